"""A corpus as braindecode's `BaseConcatDataset`, and the other way round. Needs `pip install 'eeg-dreamdiff[encoders]'`.

Shapes: N windows, C channels, T samples.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import eegprep
from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError, UsageError

MICROVOLT = 1e6  # MNE holds V, a corpus uV


def to_braindecode(corpus: Corpus, labels: Sequence[str] | None = None) -> Any:
    """A `BaseConcatDataset` with one `WindowsDataset` a recording; windows in V, targets numbered in the order of `labels`.

    Args:
        labels: which to keep, and their numbers; all that occur, sorted, when left out. Windows without a label get -1, and are left
            out where `labels` is given.

    Raises:
        DataError: no window is left.
    """
    datasets = _datasets()
    label_N = corpus.labels
    names = sorted({str(label) for label in label_N if label is not None}) if labels is None else list(labels)
    number = {name: code for code, name in enumerate(names)}
    target_N = np.array([-1 if label is None else number.get(str(label), -1) for label in label_N])
    group_N, recording_N = corpus.group_of(np.arange(len(corpus))), corpus.column("recording")
    keep_N = np.ones(len(corpus), bool) if labels is None else target_N >= 0
    parts = []
    for group, recording in sorted({(int(g), int(r)) for g, r in zip(group_N[keep_N], recording_N[keep_N], strict=True)}):
        rows = np.flatnonzero((group_N == group) & (recording_N == recording) & keep_N)
        part, record = corpus.take(rows), corpus.record(int(rows[0]))
        epochs = part.to_epochs()
        start_N = part.column("start").astype(int)
        epochs.metadata = pd.DataFrame(
            {
                "i_window_in_trial": np.arange(len(rows)), "i_start_in_trial": start_N, "i_stop_in_trial": start_N + corpus.samples,
                "target": target_N[rows],
            }
        )  # fmt: skip
        dataset, subject = corpus.keys[group].split("/")
        about = {"dataset": dataset, "subject": subject, "session": record["session"], "run": record["run"]}
        parts.append(datasets.WindowsDataset(epochs, about))
    if not parts:
        raise DataError(f"{corpus.url}: no window has one of the labels {', '.join(names) or '(none)'}", "choose other labels")
    return datasets.BaseConcatDataset(parts)


def from_braindecode(
    dataset: Any, out: str | Path, *, labels: Mapping[int, str] | None = None, licence: str = "unknown"
) -> Corpus:
    """A corpus of the windows of a `BaseConcatDataset`: windows in V become uV, `subject`, `session` and `run` come from the description.

    Args:
        labels: target -> label; the target as text when left out, none for -1.

    Raises:
        DataError: the parts differ in the length of their windows, or hold no windows.
    """
    parts = list(dataset.datasets)
    entries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    lengths: set[int] = set()
    for place, part in enumerate(parts):
        windows_NCT = np.stack([np.asarray(part[i][0], np.float64) for i in range(len(part))]) * MICROVOLT if len(part) else None
        if windows_NCT is None:
            raise DataError(f"part {place} of {len(parts)} holds no windows", "leave it out")
        lengths.add(windows_NCT.shape[-1])
        info = (part.windows if hasattr(part, "windows") else part.raw).info
        target_N = [part[i][1] for i in range(len(part))]
        description = [
            None if t == -1 and labels is None else (str(t) if labels is None else labels.get(t)) for t in map(int, target_N)
        ]
        about = dict(part.description) if part.description is not None else {}
        key = str(about.get("dataset", "braindecode")), str(about.get("subject", place + 1))
        entries.setdefault(key, []).append(
            {
                "windows": windows_NCT.astype(np.float32), "dataset": key[0], "subject": key[1], "session": about.get("session", "0"),
                "run": about.get("run", str(len(entries.get(key, [])))), "sfreq": float(info["sfreq"]), "channels": list(info["ch_names"]),
                "labels": description,
            }
        )  # fmt: skip
    if len(lengths) != 1:
        raise DataError(f"windows have {sorted(lengths)} samples", "cut windows of one length in braindecode")
    widest = max(part["windows"].shape[1] for group in entries.values() for part in group)
    several = [key for key, group in entries.items() if len(group) > 1]
    if several:
        entries = {key: [_joined(group)] for key, group in entries.items()}
    flat = [part for group in entries.values() for part in group]
    return eegprep.from_arrays(out, flat, sfreq=flat[0]["sfreq"], pad_to=widest, licence=licence)


def _joined(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The recordings of one subject as one, where they have one montage and rate; `from_arrays` takes one a subject."""
    first = group[0]
    for part in group[1:]:
        if part["channels"] != first["channels"] or part["sfreq"] != first["sfreq"]:
            raise DataError(
                f"recordings of {first['dataset']}/{first['subject']} have {len(first['channels'])} channels at {first['sfreq']:g} Hz and "
                f"{len(part['channels'])} at {part['sfreq']:g} Hz",
                "bring them to one montage and rate in braindecode, or write them to corpora of their own and merge",
            )
    runs = [f"{part['session']}.{part['run']}" for part in group]
    return {
        **first, "windows": np.concatenate([part["windows"] for part in group]), "labels": [x for part in group for x in part["labels"]],
        "run": "+".join(runs),
    }  # fmt: skip


def _datasets() -> Any:
    try:
        return importlib.import_module("braindecode.datasets")
    except ImportError:
        raise UsageError("braindecode is not installed", "pip install 'eeg-dreamdiff[encoders]'") from None
