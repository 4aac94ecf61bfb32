"""What is in a store, for people and programs, and one window or recording as a picture."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from eegprep.corpus.reader import Corpus
from eegprep.errors import StoreError, UsageError
from eegprep.recording import natural_key
from eegprep.settings import suggest
from eegprep.store import format as store
from eegprep.store import recordings as recordings_store


def describe(path: str | Path, key: str | None = None) -> dict[str, Any]:
    """Facts of a corpus, a recordings store, or of one part of it.

    Args:
        key: `DATASET`, `DATASET/SUBJECT`, or in a recordings store `DATASET/SUBJECT/SESSION.RUN`.

    Returns:
        `kind` ("corpus" or "recordings"), totals, and `rows`: one per data set, or per recording when a key is given.
    """
    root = Path(path)
    node = store.read_node(root / "zarr.json").get("attributes", {})
    kind = {store.FORMAT: "corpus", recordings_store.FORMAT: "recordings"}.get(node.get("format", ""))
    if kind is None:
        raise StoreError(
            f"{root}: holds {node.get('format')!r}, which is no store of ours", "give a corpus or a recordings store"
        )
    recordings = _corpus_rows(root) if kind == "corpus" else _recording_rows(root)
    chosen = _choose(recordings, key)
    general: dict[str, Any] = {"kind": kind, "path": str(root)}
    if kind == "corpus":
        general |= {
            "window": [node["channels"], node["samples"]],
            "windows": sum(row["windows"] for row in chosen),
            "licences": node["licences"],
            "fingerprint": node["fingerprint"],
        }
    else:
        general["stage"] = node["stage"]
    general |= {
        "subjects": len({(row["dataset"], row["subject"]) for row in chosen}),
        "people": len({row["person"] for row in chosen}),
        "recordings": len(chosen),
        "hours": round(sum(row["seconds"] for row in chosen) / 3600, 3),
        "recipe": node.get("recipe"),
        "quarantined": _quarantined(root, node),
        "rows": chosen if key else _by_dataset(chosen),
    }
    return general


def _quarantined(root: Path, node: dict[str, Any]) -> list[dict[str, Any]]:
    """Recordings that were left out, with the reason."""
    entries = [record for subject in node.get("left_out", {}).values() for record in subject["recordings"]]
    for dataset, subject in recordings_store.subjects(root):
        entries += recordings_store.group_attributes(root, dataset, subject).get("left_out", [])
    return [
        {"recording": entry["recording"], "code": finding["code"], "message": finding["message"]}
        for entry in entries
        for finding in entry["findings"]
        if finding["action"] == "quarantined"
    ]


def _choose(rows: list[dict[str, Any]], key: str | None) -> list[dict[str, Any]]:
    if key is None:
        return rows
    parts = key.strip("/").split("/")
    chosen = [row for row in rows if [row["dataset"], row["subject"], row["recording"]][: len(parts)] == parts]
    if not chosen:
        known = sorted({"/".join([row["dataset"], row["subject"], row["recording"]][: len(parts)]) for row in rows})
        raise UsageError(
            f"there is no {key!r} in the store{suggest(key, known)}", "run `eegprep inspect` without a key to see all"
        )
    return chosen


def _corpus_rows(root: Path) -> list[dict[str, Any]]:
    rows = []
    for dataset, subject in recordings_store.subjects(root):
        attributes = recordings_store.group_attributes(root, dataset, subject)
        for record in attributes["recordings"]:
            rows.append(
                _row(dataset, subject, f"{record['session']}.{record['run']}", record, record["n_samples"], attributes["person"])
                | {"windows": record["windows"]}
            )
    return rows


def _recording_rows(root: Path) -> list[dict[str, Any]]:
    rows = []
    for dataset, subject in recordings_store.subjects(root):
        for name in sorted(recordings_store.array_names(root, dataset, subject), key=natural_key):
            node = store.read_node(root / dataset / subject / name / "zarr.json")
            rows.append(_row(dataset, subject, name, node["attributes"], node["shape"][1], node["attributes"]["person"]))
    return rows


def _row(dataset: str, subject: str, name: str, record: dict[str, Any], n_samples: int, person: str) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "subject": subject,
        "recording": name,
        "person": person,
        "channels": len(record["channels"]),
        "sfreq": record["sfreq"],
        "band": record["band"],
        "seconds": round(n_samples / record["sfreq"], 3),
        "licence": record["licence"],
        "files": [source["name"] for source in record["sources"]],
        "findings": len(record["findings"]),
    }


def _by_dataset(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for dataset in sorted({row["dataset"] for row in rows}):
        own = [row for row in rows if row["dataset"] == dataset]
        line: dict[str, Any] = {
            "dataset": dataset,
            "subjects": len({row["subject"] for row in own}),
            "recordings": len(own),
            "hours": round(sum(row["seconds"] for row in own) / 3600, 3),
            "channels": sorted(Counter(row["channels"] for row in own)),
            "rates": sorted({row["sfreq"] for row in own}),
            "licence": ", ".join(sorted({row["licence"] for row in own})),
        }
        if "windows" in own[0]:
            line["windows"] = sum(row["windows"] for row in own)
        found.append(line)
    return found


def plot(path: str | Path, file: str | Path, key: str | None = None) -> str:
    """Draw one window of a corpus, or the start of a recording, into a PNG; returns what was drawn.

    Args:
        key: window number over the whole corpus (default 0), `DATASET/SUBJECT[/N]`, or a recording of a recordings store.
    """
    root = Path(path)
    if store.read_node(root / "zarr.json").get("attributes", {}).get("format") == recordings_store.FORMAT:
        return _plot_recording(root, Path(file), key)
    corpus, index = _window(Corpus.open(root), key)
    window_CT, record = corpus.read([index])[0], corpus.record(index)
    title = (
        f"{record['person']}, session {record['session']}, run {record['run']}, from sample {int(corpus.column('start')[index])}, "
        f"{record['n_channels']} channels at {record['sfreq']:g} Hz, {record['band'][0]:g}-{record['band'][1]:g} Hz"
    )
    names = [record["channels"][row] if row >= 0 else "(none)" for row in record["pad_map"]]
    _draw(window_CT, record["sfreq"], names, title, Path(file), record["n_channels"])
    return title


def _window(corpus: Corpus, key: str | None) -> tuple[Corpus, int]:
    """A view of the corpus and a window's number in it."""
    number = 0
    if key is not None and key.isdigit():
        number = int(key)
    elif key is not None:
        dataset, _, rest = key.strip("/").partition("/")
        subject, _, within = rest.partition("/")
        corpus = corpus.select(dataset=dataset, subjects=f"{dataset}/{subject}" if subject else None)
        number = int(within) if within.isdigit() else 0
    if number >= len(corpus):
        raise UsageError(f"there is no window {number} (there are {len(corpus)})", f"give a number from 0 to {len(corpus) - 1}")
    return corpus, number


def _plot_recording(root: Path, file: Path, key: str | None) -> str:
    row = _choose(_recording_rows(root), key)[0]
    recording = recordings_store.read_recording(root, row["dataset"], row["subject"], row["recording"])
    shown = min(recording.signal_CT.shape[1], round(4 * recording.sfreq))
    title = (
        f"{recording.name}: first {shown / recording.sfreq:.2g} s, {len(recording.channels)} channels at {recording.sfreq:g} Hz"
    )
    _draw(recording.signal_CT[:, :shown], recording.sfreq, list(recording.channels), title, file, len(recording.channels))
    return title


def _draw(signal_CT: np.ndarray, sfreq: float, names: list[str], title: str, file: Path, real: int) -> None:
    """Traces of every row, and the amplitude of every row beside them."""
    from matplotlib.figure import Figure

    n_rows, n_samples = signal_CT.shape
    scale = 4 * float(np.median(signal_CT.std(axis=1))) or 1.0
    figure = Figure(figsize=(12, max(4.0, 0.11 * n_rows + 1.5)), layout="constrained")
    traces, bars = figure.subplots(1, 2, sharey=True, width_ratios=(6, 1))
    time_s = np.arange(n_samples) / sfreq
    for row in range(n_rows):
        colour = "#1f4e79" if row < real else "#9aa7b4"
        traces.plot(time_s, signal_CT[row] / scale - row, linewidth=0.5, color=colour)
    traces.set(xlabel="s", xlim=(0, n_samples / sfreq), ylim=(-n_rows, 1), title=title)
    step = max(1, n_rows // 64)
    traces.set_yticks(-np.arange(0, n_rows, step), names[::step], fontsize=5)
    bars.barh(-np.arange(n_rows), signal_CT.std(axis=1), height=0.8, color="#1f4e79")
    bars.set(xlabel="standard deviation, uV", title=f"one row = {scale:.3g} uV")
    figure.savefig(file, dpi=110)
