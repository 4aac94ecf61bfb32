"""Recordings in, a verified zarr corpus out."""
