"""EEG to image vectors: the aligned encoder, its targets, losses and training."""
