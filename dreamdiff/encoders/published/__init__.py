"""Published EEG-to-image encoders, each in one file, written from its paper, for the same front end, head, losses and trials as ours."""
