"""Turns files into `Recording`s in uV: MOABB classes, BIDS folders, any file MNE reads, `mne.io.Raw`."""
