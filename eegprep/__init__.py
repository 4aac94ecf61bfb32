"""Recordings in, a verified zarr corpus out."""

from .exports import from_arrays as from_arrays
from .reader import Corpus as Corpus
