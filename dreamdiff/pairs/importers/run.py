"""Other people's EEG-image pairs, and one's own, into a pairs store.

- `imagenet-eeg`: `eeg_5_95_std.pth` and its kin (Spampinato et al. 2017; the reference code's data), with its split files and an
  ImageNet folder. As in the reference code, samples 20 to 460 are stretched to 512 and trials of 450 to 600 samples are kept.
- `things-eeg2`: the preprocessed dictionaries of Gifford et al. 2022 (conditions, repetitions, channels, times); `things-eeg2-raw`: its recordings.
- `things-eeg1`: the BIDS folder of Grootswagers et al. 2022. `alljoined`: the preprocessed files of Alljoined-1.6M.
- `table`: a CSV or Parquet table of recording, onset, image, label; any recording that `eegprep` reads, 8 to 256 channels, through
  the same gates, filters and padding as a corpus.
- `bids`: a BIDS folder whose `events.tsv` name the pictures in a column, read like a table with all sidecars.
- `corpus`: windows of a corpus bound to images by such a table; a view, which copies no EEG.

Pickles are read by machines that execute nothing (`safe_pickle`, `npy_dict`). A missing image is an error. What a data set does not
say (blocks, sessions, times) is stored as unknown. Shapes: N trials, R repetitions, C channels, T samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import numpy as np

from dreamdiff.pairs.importers.corpus import CorpusTrials
from dreamdiff.pairs.importers.epochs import NoiseNormaliser
from dreamdiff.pairs.importers.importer import ImportConfig, Kind, Reader
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from eegprep.errors import UsageError
from eegprep.provenance import fingerprint
from eegprep.recording import ProgressCallback

# kind -> module and class, imported when asked for
READERS: Mapping[Kind, tuple[str, str]] = {
    "imagenet-eeg": ("layouts.imagenet", "ImageNetEEG"),
    "things-eeg2": ("layouts.things", "ThingsEEG2"),
    "things-eeg2-raw": ("layouts.things_raw", "ThingsEEG2Raw"),
    "things-eeg1": ("layouts.things_eeg1", "ThingsEEG1"),
    "alljoined": ("layouts.alljoined", "Alljoined"),
    "table": ("table", "OwnTable"),
    "bids": ("bids", "BidsTrials"),
    "corpus": ("corpus", "CorpusTrials"),
}


def find_reader(source: Path, config: ImportConfig) -> Reader:
    """The reader of a kind, with its source opened and checked."""
    module, name = READERS[config.kind]
    reader: Reader = getattr(import_module(f"dreamdiff.pairs.importers.{module}"), name)(source, config)
    return reader


def import_pairs(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    config: ImportConfig,
    *,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
    tell: Callable[[str], None] | None = None,
) -> Pairs:
    """Import pairs. Run again to finish what was interrupted; a finished store of the same sources is left alone.

    Args:
        source: the data file or its folder; the table; the BIDS folder.
        out: the store.
        config: the kind and its settings.
        rebuild: make a store that is there with other settings again.
        tell: given sentences on how the source was read, before the work.

    Raises:
        DataError: parts that do not fit together, or a missing image.
        CheckpointError: a pickle that is damaged, or asks for more than plain data.
    """
    reader = find_reader(Path(source), config)
    if tell is not None:
        for sentence in reader.said:
            tell(sentence)
    recipe: dict[str, object] = {"kind": config.kind, "settings": _relevant(config), "sources": reader.sources}
    view = None
    if isinstance(reader, CorpusTrials):
        view = reader.view_of(Path(out))
        recipe |= {"settings": _relevant(config) | reader.filtered(), "corpus": view["identity"]}
    channels, samples = reader.shape()
    with PairsWriter(
        out, channels=channels, samples=samples, recipe=recipe, classes=reader.classes, class_ids=reader.class_ids, provenance="simulated" if config.simulated else "recorded", licence=reader.licence,
        corpus=view, rebuild=rebuild,
    ) as writer:  # fmt: skip
        if not writer.complete:
            splits = reader.splits()  # first, so that a list that does not fit costs no time
            writer.set_image_files(reader.image_folder, reader.image_names)
            reader.stimulus = writer.stimulus
            if len(np.unique(writer.stimulus)) < len(reader.image_names):
                splits = reader.splits()  # again: copies of a picture belong into one part
            key = fingerprint(recipe)
            for number, subject in enumerate(reader.subjects):
                if not writer.done(subject, key):
                    noise = None
                    if config.mvnn:
                        first = sum(reader.total(other) for other in reader.subjects[:number])
                        training_N = np.isin(first + np.arange(reader.total(subject)), splits["train"])
                        noise = NoiseNormaliser(subject).fit(reader.batches(subject), training_N)
                    _write_subject(writer, reader, subject, key, (number, len(reader.subjects)), progress, noise)
            writer.finish(splits)
    return Pairs.open(out, images=reader.image_folder)


def parse_window(text: str) -> tuple[int, int]:
    """`20:460` -> (20, 460)."""
    first, _, last = text.partition(":")
    if not (first.strip().isdigit() and last.strip().isdigit()):
        raise UsageError(f"--window {text!r} is not START:STOP in samples", "give for instance --window 20:460")
    return int(first), int(last)


def parse_stretch(text: str, option: str) -> tuple[float, float]:
    """`-200:1000` -> (-200.0, 1000.0), ms."""
    first, _, last = text.partition(":")
    try:
        stretch = float(first), float(last)
    except ValueError:
        stretch = (0.0, 0.0)
    if not (math.isfinite(stretch[0]) and stretch[0] < stretch[1] < math.inf):
        raise UsageError(f"{option} {text!r} is not FIRST:LAST in ms", f"give for instance {option} -200:1000")
    return stretch


def _write_subject(
    writer: PairsWriter, reader: Reader, subject: str, key: str, place: tuple[int, int], progress: ProgressCallback | None,
    noise: NoiseNormaliser | None = None,
) -> None:  # fmt: skip
    attributes: dict[str, object] = {}
    with writer.subject(subject, key, attributes) as target:
        for one in reader.batches(subject):
            batch = one if noise is None else noise.apply(one)
            target.add(batch.eeg_NCT, **batch.columns)
            if progress is not None:
                progress(target.n, reader.total(subject), f"subject {subject} ({place[0] + 1} of {place[1]})")
        attributes.update(reader.attributes(subject))
        attributes.update({} if noise is None else noise.record)


def _relevant(config: ImportConfig) -> dict[str, object]:
    """The settings that this kind of source looks at; folders do not count."""
    common = {"kind", "subjects", "split_by", "seed"}
    table = {"low", "high", "nyquist", "resample", "offset", "licence"}
    own = {
        "imagenet-eeg": {"window", "min_samples", "max_samples"},
        "things-eeg2": {"repetitions"},
        "things-eeg2-raw": {"low", "high", "nyquist", "resample", "offset"},
        "things-eeg1": table,
        "alljoined": set(),
        "table": table,
        "bids": table,
        "corpus": {"offset", "licence"},
    }[config.kind]
    content = config.model_dump(mode="json", include=common | own)
    reading = {"columns", "subject_pattern", "session_pattern", "sfreq", "unit", "channel_names", "scale"}  # only where given
    given = config.model_dump(mode="json", include=reading) if config.kind in ("table", "bids", "things-eeg1") else {}
    if config.recipe == "image":
        content |= config.model_dump(mode="json", include={"recipe", "window_ms", "baseline_ms", "electrodes", "mvnn"})
    given |= config.model_dump(mode="json", include={"simulated"})
    return content | {key: value for key, value in given.items() if value}
