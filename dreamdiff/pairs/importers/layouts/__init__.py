"""Data sets of EEG and pictures as their authors share them."""
