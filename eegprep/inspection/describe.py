"""What is in a store, for people and programs, and one window or recording as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eegprep.atomic import write_bytes
from eegprep.corpus.doubles import same_recordings
from eegprep.corpus.reader import Corpus
from eegprep.errors import UsageError
from eegprep.inspection.pictures import figure_png
from eegprep.inspection.store_facts import Listed, gather
from eegprep.provenance import plain_json
from eegprep.settings import suggest
from eegprep.store import recordings as recordings_store
from eegprep.store.commit import read_root
from eegprep.store.records import CorpusRecording

SHOWN_OF_FINDING = ("code", "channel", "value", "limit", "action", "message")


@dataclass(frozen=True)
class RecordingRow:
    """One recording as `eegprep inspect` lists it. band: Hz, None when nobody said; windows: None in a recordings store."""

    dataset: str
    subject: str
    recording: str
    person: str
    channels: int
    sfreq: float
    band: tuple[float, float | None] | None
    seconds: float | None
    licence: str
    files: tuple[str, ...]
    findings: int
    windows: int | None = None

    @classmethod
    def of(cls, listed: Listed) -> RecordingRow:
        record = listed.record
        return cls(
            dataset=listed.dataset,
            subject=listed.subject,
            recording=record.name,
            person=listed.person,
            channels=len(record.channels),
            sfreq=record.sfreq,
            band=record.band,
            seconds=None if record.seconds is None else round(record.seconds, 3),
            licence=record.licence,
            files=tuple(source.name for source in record.sources),
            findings=len(record.findings),
            windows=record.windows,
        )

    @property
    def place(self) -> list[str]:
        """The parts of its key."""
        return [self.dataset, self.subject, self.recording]

    def to_json(self) -> dict[str, object]:
        return {name: value for name, value in plain_json(vars(self)).items() if name != "windows" or value is not None}


def describe(path: str | Path, key: str | None = None) -> dict[str, object]:
    """What is in a corpus, a recordings store, or one part of it.

    Args:
        key: `DATASET`, `DATASET/SUBJECT`, or in a recordings store `DATASET/SUBJECT/SESSION.RUN`.

    Returns:
        JSON values: `kind` ("corpus" or "recordings"), totals, `findings`, and `rows`: one per data set, or per recording when a key is given.
    """
    facts = gather(Path(path))
    node = facts.root
    rows = [RecordingRow.of(listed) for listed in facts.recordings]
    chosen = _choose(rows, key)
    general: dict[str, object] = {"kind": "corpus" if facts.is_corpus else "recordings", "path": facts.path}
    if facts.is_corpus:
        general |= {
            "window": [node["channels"], node["samples"]],
            "windows": sum(row.windows or 0 for row in chosen),
            "licences": node["licences"],
            "fingerprint": node["fingerprint"],
            "doubles": [double.sentence for double in same_recordings(Corpus.open(path))],
        }
    else:
        general["stage"] = node["stage"]
    general |= {
        "subjects": len({(row.dataset, row.subject) for row in chosen}),
        "people": len({row.person for row in chosen}),
        "recordings": len(chosen),
        "hours": _hours(chosen),
        "recipe": node.get("recipe"),
        "quarantined": [
            {"recording": lost.record.recording, "code": finding.code, "message": finding.message}
            for lost in facts.left_out
            for finding in lost.record.reasons
        ],
        "findings": [
            {"recording": "/".join(row.place), **{name: finding.to_json()[name] for name in SHOWN_OF_FINDING}}
            for listed, row in zip(facts.recordings, rows, strict=True)
            if row in chosen
            for finding in listed.record.findings
        ],
        "rows": [row.to_json() for row in chosen] if key else _by_dataset(chosen),
    }
    return general


def _choose(rows: list[RecordingRow], key: str | None) -> list[RecordingRow]:
    if key is None:
        return rows
    parts = key.strip("/").split("/")
    chosen = [row for row in rows if row.place[: len(parts)] == parts]
    if not chosen:
        known = sorted({"/".join(row.place[: len(parts)]) for row in rows})
        raise UsageError(
            f"there is no {key!r} in the store{suggest(key, known)}", "run `eegprep inspect` without a key to see all"
        )
    return chosen


def _hours(rows: list[RecordingRow]) -> float:
    return round(sum(row.seconds or 0.0 for row in rows) / 3600, 3)


def _by_dataset(rows: list[RecordingRow]) -> list[dict[str, object]]:
    lines = []
    for dataset in sorted({row.dataset for row in rows}):
        own = [row for row in rows if row.dataset == dataset]
        line: dict[str, object] = {
            "dataset": dataset,
            "subjects": len({row.subject for row in own}),
            "recordings": len(own),
            "hours": _hours(own),
            "channels": sorted({row.channels for row in own}),
            "rates": sorted({row.sfreq for row in own}),
            "licence": ", ".join(sorted({row.licence for row in own})),
        }
        if own[0].windows is not None:
            line["windows"] = sum(row.windows or 0 for row in own)
        lines.append(line)
    return lines


def plot(path: str | Path, file: str | Path, key: str | None = None) -> str:
    """Draw one window of a corpus, or the start of a recording, into a PNG; returns what was drawn.

    Args:
        key: window number over the whole corpus (default 0), `DATASET/SUBJECT[/N]`, or a recording of a recordings store.
    """
    root = Path(path)
    if read_root(root)["attributes"].get("format") == recordings_store.FORMAT:
        return _plot_recording(root, Path(file), key)
    corpus, index = _window(Corpus.open(root), key)
    window_CT, record = corpus.read([index])[0], CorpusRecording.from_json(corpus.record(index))
    who = corpus.attributes_of(corpus.keys[int(corpus.group_of([index])[0])])["person"]
    band = "" if record.band is None else f", {record.band[0]:g}-{record.band[1]:g} Hz"
    title = (
        f"{who}, session {record.session}, run {record.run}, from sample {int(corpus.column('start')[index])}, "
        f"{record.n_channels} channels at {record.sfreq:g} Hz{band}"
    )
    names = [record.channels[row] if row >= 0 else "(none)" for row in record.pad_map]
    _draw(window_CT, record.sfreq, names, title, Path(file), record.n_channels)
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
    row = _choose([RecordingRow.of(listed) for listed in gather(root).recordings], key)[0]
    recording = recordings_store.read_recording(root, *row.place)
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
    # by the median channel: a loud one must not flatten the others
    scale = 4 * float(np.median(signal_CT.std(axis=1))) or 1.0
    figure = Figure(figsize=(12, max(4.0, 0.11 * n_rows + 1.5)), layout="constrained")
    traces, bars = figure.subplots(1, 2, sharey=True, width_ratios=(6, 1))
    time_s = np.arange(n_samples) / sfreq
    for row in range(n_rows):
        # grey: rows that repeat a channel
        colour = "#1f4e79" if row < real else "#9aa7b4"
        traces.plot(time_s, signal_CT[row] / scale - row, linewidth=0.5, color=colour)
    traces.set(xlabel="s", xlim=(0, n_samples / sfreq), ylim=(-n_rows, 1), title=title)
    # more names than this do not fit beside each other
    step = max(1, n_rows // 64)
    traces.set_yticks(-np.arange(0, n_rows, step), names[::step], fontsize=5)
    bars.barh(-np.arange(n_rows), signal_CT.std(axis=1), height=0.8, color="#1f4e79")
    bars.set(xlabel="standard deviation, uV", title=f"one row = {scale:.3g} uV")
    write_bytes(file, figure_png(figure))
