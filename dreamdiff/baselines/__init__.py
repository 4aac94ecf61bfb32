"""Earlier systems and simple ways from EEG to an image, trained on the same trials as the model that is judged."""
