"""Simulates EEG-image pairs whose answer is known."""
