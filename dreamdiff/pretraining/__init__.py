"""Masked signal modelling: the window stream, the task, its scores, and a probe of the encoder."""
