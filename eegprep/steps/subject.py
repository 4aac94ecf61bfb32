"""Cuts one subject's recordings into windows and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eegprep import recording as quality_recording
from eegprep.recording import Processed, Recording, Unreadable
from eegprep.signals import gates as quality
from eegprep.signals import windows
from eegprep.signals.process import process
from eegprep.signals.recipe import Recipe
from eegprep.signals.windows import ChannelPlan, Cut

# windows made at once: 8 MB
_BATCH = 32


def quarantine_record(item: Recording | Unreadable) -> dict[str, Any]:
    """What is kept of a recording that is left out."""
    if isinstance(item, Unreadable):
        return {"recording": item.name, "findings": [vars(item.finding)], "sources": [vars(s) for s in item.sources]}
    findings = [vars(finding) for finding in item.findings]
    return {"recording": item.name, "findings": findings, "sources": [vars(source) for source in item.sources]}


@dataclass
class _Piece:
    """A recording and where its windows lie."""

    record: dict[str, Any]
    rows: ChannelPlan
    cut: Cut
    order: np.ndarray
    signal_CT: np.ndarray


def cut_subject(items: Iterable[Processed], recipe: Recipe, writer: Any, left_out: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the windows of a subject's recordings, in order; with a cap, a seeded draw over all of them.

    Returns:
        the facts of every recording that was looked at, see `Processed`.
    """
    pieces: list[_Piece] = []
    facts = []
    for item in items:
        recording = quality.gate_cut(item.recording, recipe)
        shortest = min((last - first for first, last in recording.segments), default=0)
        total = len(windows.plan_cut(recording, recipe))
        facts.append({**item.facts, "shortest": shortest, "total": total})
        if quality_recording.quarantined(recording):
            left_out.append(quarantine_record(recording))
            continue
        piece = _piece(replace(item, recording=recording), recipe)
        if recipe.max_per_subject is None:
            _write_piece(piece, recipe, writer)
        else:
            pieces = _draw([*pieces, piece], recipe.max_per_subject)
        del piece, recording, item
    for piece in pieces:
        _write_piece(piece, recipe, writer)
    return facts


def _piece(item: Processed, recipe: Recipe) -> _Piece:
    recording = item.recording
    cut, rows = windows.plan_cut(recording, recipe), windows.plan_channels(recording, recipe)
    described = recording.describe()
    del described["events"]
    record = {
        "session": recording.session,
        "run": recording.run,
        "n_channels": len(recording.channels),
        "n_samples": recording.signal_CT.shape[1],
        "pad_map": list(rows.pad_map),
        "pad_mode": recipe.mode,
        **described,
        **item.extra,
    }
    stretched = [[int(s), int(n)] for s, n in zip(cut.starts_N, cut.lengths_N, strict=True) if n != recipe.window]
    if stretched:
        record["stretched"] = stretched
    return _Piece(record, rows, cut, windows.draw(cut, recording.name, recipe.seed), recording.signal_CT)


def _draw(pieces: list[_Piece], cap: int) -> list[_Piece]:
    """The windows with the `cap` smallest numbers; recordings without one are let go."""
    everything = np.concatenate([piece.order for piece in pieces])
    if len(everything) <= cap:
        return pieces
    limit = np.partition(everything, cap - 1)[cap - 1]
    kept = []
    for piece in pieces:
        chosen = np.flatnonzero(piece.order <= limit)
        if len(chosen):
            kept.append(replace(piece, cut=piece.cut.take(chosen), order=piece.order[chosen]))
    return kept


def _write_piece(piece: _Piece, recipe: Recipe, writer: Any) -> None:
    index = writer.add_recording(piece.record)
    for first in range(0, len(piece.cut), _BATCH):
        part = piece.cut.take(np.arange(first, min(first + _BATCH, len(piece.cut))))
        padded = windows.make_windows(piece.signal_CT, part, piece.rows, recipe.window)
        writer.add(padded, index, part.starts_N, part.labels_N)


def run_subject(items: Iterable[Recording | Unreadable], recipe: Recipe, left_out: list[dict[str, Any]]) -> Iterator[Processed]:
    """Process one recording after the other; those that are left out are noted in `left_out`."""
    for item in items:
        if isinstance(item, Unreadable):
            left_out.append(quarantine_record(item))
            continue
        processed = process(item, recipe)
        del item
        if processed.usable:
            yield processed
        else:
            left_out.append(quarantine_record(processed.recording) | {"facts": processed.facts})
