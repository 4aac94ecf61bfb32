"""Publishes what was made here: the verdict on its licences, a card, a manifest of its files, and the upload to a repository."""
