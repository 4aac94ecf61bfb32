"""Recordings in, a verified zarr corpus out."""

from .build import build as build
from .exports import from_arrays as from_arrays
from .filters import band_pass as band_pass
from .raws import from_raw as from_raw
from .reader import Corpus as Corpus
from .windows import crop as crop
from .windows import pad_channels as pad_channels
