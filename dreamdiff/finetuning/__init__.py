"""Fine-tunes the conditioner and the U-Net on EEG-image pairs."""
