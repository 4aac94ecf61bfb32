"""Publishes models and EEG-image pairs: what a repository holds, its chain of licences, and a card made from the run."""
