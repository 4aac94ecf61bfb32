"""Makers of the embedded model: drawings, training, measurement. Not part of the installed package."""
