"""Commands of `dreamdiff pairs` on recordings and logs, one file each."""
