"""Imports other people's EEG-image pairs and one's own into a pairs store."""
