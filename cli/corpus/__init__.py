"""Commands of `eegprep`, one file each."""
