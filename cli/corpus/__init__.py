"""Commands of `eegprep`, one file each (`index`, which takes what `build` takes, stands beside it)."""
