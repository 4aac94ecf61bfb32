"""From EEG to tokens: the encoder, its transformer, the masked autoencoder, and their weights on disk."""
