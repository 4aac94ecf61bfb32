"""Commands of `dreamdiff`, one file each."""
