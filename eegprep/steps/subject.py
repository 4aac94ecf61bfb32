"""Cuts one subject's recordings into windows and writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eegprep.recording import CutFacts, Facts, Finding, LeftOut, Origin, Processed, Recording, Unreadable
from eegprep.signals import gates, windows
from eegprep.signals.process import process
from eegprep.signals.recipe import Recipe
from eegprep.signals.windows import ChannelPlan, Cut
from eegprep.store.records import CorpusRecording

# windows made at once: 1 MB of 64 channels, which is written and hashed while it is in the cache
_BATCH = 8


@dataclass
class _Piece:
    """A recording and where its windows lie. order: what decides a draw; empty where there is none."""

    record: CorpusRecording
    rows: ChannelPlan
    cut: Cut
    order: np.ndarray
    signal_CT: np.ndarray


def cut_subject(
    items: Iterable[Processed], recipe: Recipe, writer: Any, left_out: list[LeftOut]
) -> tuple[list[tuple[Finding, ...]], list[Facts]]:
    """Write the windows of a subject's recordings, in order; with a cap, a seeded draw over all of them.

    Returns:
        the findings of each recording that has windows, and the facts of every recording that was looked at.
    """
    pieces: list[_Piece] = []
    written: list[tuple[Finding, ...]] = []
    facts = []
    for item in items:
        recording = gates.gate_cut(item.recording, recipe)
        shortest = min((last - first for first, last in recording.segments), default=0)
        cut = windows.plan_cut(recording, recipe)
        facts.append(replace(item.facts, cut=CutFacts(shortest, len(cut))))
        if recording.quarantined:
            left_out.append(LeftOut.of(recording))
            continue
        piece = _piece(replace(item, recording=recording), cut, recipe)
        if recipe.max_per_subject is None:
            written.append(_write_piece(piece, recipe, writer))
        else:
            # drawn again after each recording, so that no more than the cap is ever kept in memory
            pieces = _draw([*pieces, piece], recipe.max_per_subject)
        # the signal goes before the next one is read: one recording in memory at a time
        del piece, recording, item
    written += [_write_piece(piece, recipe, writer) for piece in pieces]
    return written, facts


def _piece(item: Processed, cut: Cut, recipe: Recipe) -> _Piece:
    recording, rows = item.recording, windows.plan_channels(item.recording, recipe)
    stretched = [(int(s), int(n)) for s, n in zip(cut.starts_N, cut.lengths_N, strict=True) if n != recipe.window]
    record = CorpusRecording.of(item, rows.pad_map, recipe.mode, stretched)
    capped = recipe.max_per_subject is not None
    order = windows.draw(cut, recording.name, recipe.seed) if capped else np.empty(0, np.uint64)
    return _Piece(record, rows, cut, order, recording.signal_CT)


def _draw(pieces: list[_Piece], cap: int) -> list[_Piece]:
    """The windows with the `cap` smallest numbers; recordings without one are let go."""
    everything = np.concatenate([piece.order for piece in pieces])
    if len(everything) <= cap:
        return pieces
    # a threshold on the windows' numbers: the same draw whatever the order of recordings and workers
    limit = np.partition(everything, cap - 1)[cap - 1]
    kept = []
    for piece in pieces:
        chosen = np.flatnonzero(piece.order <= limit)
        if len(chosen):
            kept.append(replace(piece, cut=piece.cut.take(chosen), order=piece.order[chosen]))
    return kept


def _write_piece(piece: _Piece, recipe: Recipe, writer: Any) -> tuple[Finding, ...]:
    """Write its windows, without the rows that repeat others; returns the findings of its recording."""
    index, rows = writer.add_recording(piece.record.to_json()), piece.rows.distinct
    for first in range(0, len(piece.cut), _BATCH):
        part = piece.cut.take(np.arange(first, min(first + _BATCH, len(piece.cut))))
        made_NCT = windows.make_windows(piece.signal_CT, part, rows, recipe.window)
        writer.add(made_NCT, index, part.starts_N, part.labels_N, repeat=True)
    return piece.record.findings


def run_subject(items: Iterable[Recording | Unreadable], recipe: Recipe, left_out: list[LeftOut]) -> Iterator[Processed]:
    """Process one recording after the other; those that are left out are noted in `left_out`."""
    for item in items:
        if isinstance(item, Unreadable):
            left_out.append(LeftOut.of(item))
            continue
        try:
            processed = process(item, recipe)
        except (ArithmeticError, MemoryError, ValueError, TypeError, IndexError) as error:  # that recording only
            origin = Origin(item.dataset, item.subject, item.session, item.run, sources=item.sources)
            left_out.append(LeftOut.of(Unreadable.because(origin, error)))
            continue
        del item
        if processed.usable:
            yield processed
        else:
            left_out.append(LeftOut.of(processed.recording, processed.facts))
