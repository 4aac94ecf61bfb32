"""Reads one file of any format: what it holds as `Content`, and the EEG in it as a `Recording` in uV."""
