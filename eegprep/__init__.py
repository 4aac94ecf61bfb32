"""Builds, verifies and reads harmonised EEG corpora."""

from eegprep.corpus.export import from_arrays as from_arrays
from eegprep.corpus.reader import Corpus as Corpus
from eegprep.signals.filters import band_pass as band_pass
from eegprep.signals.windows import crop as crop
from eegprep.signals.windows import pad_channels as pad_channels
from eegprep.sources.raws import from_raw as from_raw
from eegprep.steps.build import build as build
