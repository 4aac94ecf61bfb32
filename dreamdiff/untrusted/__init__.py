"""Reads checkpoints and pickled arrays from other people without executing them."""
