"""Windows of a corpus as MNE objects, Dask arrays and xarray data sets. Nothing is copied before it is asked for.

Legend: N windows, C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from eegprep.errors import SignalError, UsageError


class Windows(Protocol):
    """What a view needs of a corpus; `Corpus` has it, and views stay below it in the order of imports."""

    url: str
    channels: int
    samples: int
    attributes: Any

    @property
    def keys(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Any: ...
    def __len__(self) -> int: ...
    def read(self, indices: Any, *, threads: int | None = None) -> np.ndarray: ...
    def take(self, indices: Any) -> Windows: ...
    def record(self, index: int) -> Mapping[str, Any]: ...
    def column(self, name: str) -> np.ndarray: ...
    def group_of(self, indices: Any) -> np.ndarray: ...


VOLT = 1e-6  # a corpus holds uV, MNE wants V


def contents(shape: tuple[int, int, int], subjects: pd.DataFrame, recordings: pd.DataFrame) -> str:
    """What a corpus or a selection holds, in a line."""
    rates = sorted({f"{rate:g}" for rate in recordings["sfreq"]}, key=float)
    datasets = sorted(set(recordings["dataset"]))
    parts = [f"{shape[0]} windows of {shape[1:]}"]
    parts += [
        f"{len(table)} {name}{'s' * (len(table) != 1)}" for table, name in ((subjects, "subject"), (recordings, "recording"))
    ]
    if datasets:
        parts.append(", ".join(datasets) if len(datasets) <= 3 else f"{len(datasets)} data sets")
        parts.append(f"{' and '.join(rates) if len(rates) <= 3 else f'{rates[0]} to {rates[-1]}'} Hz")
    return ", ".join(parts)


def source_rows(record: Mapping[str, Any], channels: int) -> tuple[np.ndarray, list[str]]:
    """Which rows of a window hold the recording's own channels, and their names.

    Padding repeats channels or adds zeros: each source channel is taken once, the rest is left out. Rows that were
    interpolated belong to no channel, so all of them stay, under numbers.
    """
    names = list(record.get("channels") or [])
    rows_C = np.asarray(record.get("pad_map") if record.get("pad_map") is not None else np.arange(channels) % max(1, len(names)))
    if record.get("pad_mode") == "spline" and len(names) < channels:
        return np.arange(channels), [f"row{i:03d}" for i in range(channels)]
    sources, first = np.unique(rows_C, return_index=True)
    keep = sources >= 0
    # in the order of the rows, not of the numbers of the channels
    order = np.argsort(first[keep])
    return first[keep][order], [names[i] for i in sources[keep][order]]


def to_mne(corpus: Windows, index: int) -> Any:
    """One window as `mne.io.RawArray`: the recording's own channels, in V, with its label as an annotation."""
    import mne

    record = corpus.record(index)
    rows, info = _info(record, corpus.channels)
    raw = mne.io.RawArray(corpus.read([index])[0, rows].astype(float) * VOLT, info, verbose="error")
    label = corpus.take([index]).labels[0]
    if label is not None:
        raw.set_annotations(mne.Annotations([0.0], [corpus.samples / record["sfreq"]], [label]))
    return raw


def to_epochs(corpus: Windows) -> Any:
    """All windows of a selection as `mne.EpochsArray`, in V; `metadata` says where each comes from.

    Raises:
        SignalError: the recordings differ in rate or channels, which epochs cannot.
    """
    import mne

    if not len(corpus):
        raise SignalError(f"{corpus.url}: the selection has no windows", "select less strictly")
    table = where_from(corpus)
    recordings = table.drop_duplicates(["dataset", "subject", "recording"])
    firsts = recordings.index.tolist()
    records = [corpus.record(i) for i in firsts]
    rates, montages = {record["sfreq"] for record in records}, {tuple(record["channels"]) for record in records}
    if len(rates) > 1 or len(montages) > 1:
        raise SignalError(
            f"{corpus.url}: {len(records)} recordings have {len(rates)} sampling rate{'s' * (len(rates) != 1)} and "
            f"{len(montages)} channel list{'s' * (len(montages) != 1)}",
            _uniform_selection(recordings, records),
        )
    rows, info = _info(records[0], corpus.channels)
    codes, names = pd.factorize(table["label"].fillna("none").astype(str))
    # MNE wants samples that differ; windows of several recordings have no common time
    events = np.column_stack([np.arange(len(corpus)), np.zeros(len(corpus), int), codes + 1])
    data_NCT = corpus.read(np.arange(len(corpus)))[:, rows].astype(float) * VOLT
    event_id = {str(name): code + 1 for code, name in enumerate(names)}
    return mne.EpochsArray(data_NCT, info, events, event_id=event_id, metadata=table, verbose="error")


def _uniform_selection(table: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> str:
    """A call that leaves recordings of one rate and one channel list, the simplest that does."""
    facts = table.assign(
        rate=[record["sfreq"] for record in records],
        montage=[",".join(record["channels"]) for record in records],
        subject=table["dataset"] + "/" + table["subject"],
    )
    calls = {
        ("rate",): "corpus.to_epochs(rate={rate:g})",
        ("dataset",): "corpus.select(dataset={dataset!r}).to_epochs()",
        ("dataset", "rate"): "corpus.select(dataset={dataset!r}).to_epochs(rate={rate:g})",
        ("subject", "rate"): "corpus.select(subjects={subject!r}).to_epochs(rate={rate:g})",
    }
    for names, call in calls.items():
        for _, part in facts.groupby(list(names)):
            if part["montage"].nunique() == 1 and part["rate"].nunique() == 1:
                return f"select recordings that fit together, for instance {call.format(**part.iloc[0].to_dict())}"
    return "take the windows of one recording, for instance corpus.take(range(10)).to_epochs()"


def to_dask(corpus: Windows, chunk: int = 256) -> Any:
    """A Dask array (N, C, T) that reads `chunk` windows at a time."""
    try:
        import dask.array
        from dask import delayed
    except ImportError:
        raise UsageError("dask is not installed", "pip install 'eeg-dreamdiff[views]'") from None
    parts = []
    for first in range(0, len(corpus), chunk):
        last = min(first + chunk, len(corpus))
        block = delayed(_block)(corpus, first, last)
        parts.append(dask.array.from_delayed(block, (last - first, corpus.channels, corpus.samples), np.float32))
    if not parts:
        return dask.array.zeros((0, corpus.channels, corpus.samples), dtype=np.float32)
    return dask.array.concatenate(parts)


def to_xarray(corpus: Windows, chunk: int = 256) -> Any:
    """An xarray data set: `windows` (window, channel, time) in uV, read when asked for, and where each window comes from."""
    try:
        import xarray
    except ImportError:
        raise UsageError("xarray is not installed", "pip install 'eeg-dreamdiff[views]'") from None
    table = where_from(corpus)
    coordinates = {name: ("window", table[name].to_numpy()) for name in table}
    return xarray.Dataset(
        {"windows": (("window", "channel", "time"), to_dask(corpus, chunk), {"units": "uV"})},
        coords=coordinates,
        attrs={key: corpus.attributes[key] for key in ("format", "version", "fingerprint")},
    )


def where_from(corpus: Windows) -> pd.DataFrame:
    """One row a window: dataset, subject, recording, start (sample), label."""
    group_N = corpus.group_of(np.arange(len(corpus)))
    keys = [key.split("/") for key in corpus.keys]
    return pd.DataFrame(
        {
            "dataset": [keys[group][0] for group in group_N],
            "subject": [keys[group][1] for group in group_N],
            "recording": corpus.column("recording"),
            "start": corpus.column("start"),
            "label": corpus.labels,
        }
    )


def _block(corpus: Windows, first: int, last: int) -> np.ndarray:
    return corpus.read(np.arange(first, last), threads=1)


def _info(record: Mapping[str, Any], channels: int) -> tuple[np.ndarray, Any]:
    import mne

    rows, names = source_rows(record, channels)
    info = mne.create_info(names, float(record["sfreq"]), "eeg")
    positions = dict(zip(record.get("channels") or [], record.get("positions") or [], strict=False))
    known = {name: np.array(positions[name], float) for name in names if name in positions and None not in positions[name]}
    if known:
        info.set_montage(mne.channels.make_dig_montage(known, coord_frame="head"), on_missing="ignore", verbose="error")
    return rows, info
