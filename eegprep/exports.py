"""A corpus from numpy arrays, and a corpus as other people's files.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import SignalError
from .reader import Corpus
from .settings import fingerprint
from .store import SubjectWriter, create_corpus, finish_corpus


def from_arrays(
    out: str | Path,
    windows: np.ndarray | Sequence[Mapping[str, Any]],
    *,
    sfreq: float,
    channels: Sequence[str] | None = None,
    dataset: str = "arrays",
    labels: Sequence[str | None] | None = None,
    licence: str = "unknown",
    pad_to: int = 128,
    shard: int = 256,
) -> Corpus:
    """Make a corpus of windows that are numpy arrays already.

    Args:
        out: the corpus to make, or to add to.
        windows: (N, C, T) float, uV, of one subject; or one dictionary a subject with `windows` (N, C, T) and, as far as
            they are known, `subject`, `dataset`, `person`, `session`, `run`, `sfreq`, `channels`, `labels`, `starts`, `licence`.
        sfreq: sampling rate, Hz, where a dictionary names none.
        channels, dataset, labels, licence: the same for what a dictionary does not say.
        pad_to: channels of the corpus; fewer are repeated in their order until there are as many.
        shard: windows a file.

    Returns:
        The corpus, open for reading.
    """
    if isinstance(windows, np.ndarray):
        windows = [{"windows": windows, "labels": labels}]
    root, samples = Path(out), {np.shape(entry["windows"])[-1] for entry in windows}
    if len(samples) != 1:
        raise SignalError(f"windows have {sorted(samples)} samples", "give windows of one length")
    (length,) = samples
    recipe = {"made_by": "from_arrays", "pad_to": pad_to, "samples": length}
    create_corpus(root, recipe, fingerprint(recipe), channels=pad_to, samples=length)
    defaults = {"sfreq": sfreq, "channels": channels, "dataset": dataset, "licence": licence}
    for number, given in enumerate(windows, start=1):
        entry = {**defaults, "subject": str(number), **given}
        _write_subject(root, entry, pad_to, length, shard)
    finish_corpus(root)
    return Corpus.open(root)


def _write_subject(root: Path, entry: Mapping[str, Any], pad_to: int, samples: int, shard: int) -> None:
    windows_NCT = np.asarray(entry["windows"], np.float32)
    n_channels = windows_NCT.shape[1]
    if not 1 <= n_channels <= pad_to:
        raise SignalError(
            f"{entry['subject']}: {n_channels} channels do not fit a corpus of {pad_to}", "choose channels, or set pad_to"
        )
    names = list(entry["channels"] or (f"EEG{i + 1:03d}" for i in range(n_channels)))
    if len(names) != n_channels:
        raise SignalError(f"{entry['subject']}: {len(names)} channel names for {n_channels} channels", "give one name a channel")
    pad_map = np.arange(pad_to) % n_channels
    starts = entry.get("starts")
    with SubjectWriter(root, entry["dataset"], str(entry["subject"]), channels=pad_to, samples=samples, shard=shard) as writer:
        recording = writer.add_recording(
            {
                "session": str(entry.get("session", "0")),
                "run": str(entry.get("run", "0")),
                "sfreq": float(entry["sfreq"]),
                "original_sfreq": float(entry.get("original_sfreq", entry["sfreq"])),
                "channels": names,
                "n_channels": n_channels,
                "pad_map": pad_map.tolist(),
                "band": entry.get("band"),
                "licence": entry["licence"],
                "doi": entry.get("doi", ""),
                "sources": [],
                "findings": [],
            }
        )
        writer.add(
            windows_NCT[:, pad_map],
            recording,
            np.arange(len(windows_NCT)) * samples if starts is None else starts,
            entry.get("labels"),
        )
        person = entry.get("person", f"{entry['dataset']}/{entry['subject']}")
        writer.commit(fingerprint({"arrays": str(entry["subject"])}), {"person": person})
