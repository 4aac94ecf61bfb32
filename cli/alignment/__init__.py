"""Commands that align EEG to image vectors and use what was aligned."""
