"""A corpus in, a model and images out."""
