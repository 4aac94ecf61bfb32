"""Reads checkpoints and pickled arrays of strangers without executing them."""
