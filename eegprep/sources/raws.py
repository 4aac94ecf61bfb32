"""One recording out of an `mne.io.Raw` or a file: float32 in uV, EEG channels only, events in s from the first sample, and no
names, birthdays or dates. Shapes: C channels, T samples.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eegprep.errors import SourceError, ToolkitError
from eegprep.recording import Event, Finding, Origin, Recording
from eegprep.signals.channels import standard_positions
from eegprep.sources import edf
from eegprep.sources.listing import file_names

if TYPE_CHECKING:
    from mne.io import BaseRaw


UV_PER_VOLT = 1e6

# ours: samples x channels converted at once; 32 MB of float64
_CHUNK_VALUES = 4_000_000

# ours: an offset beyond this is taken off before the conversion to float32, uV
_OFFSET_UV = 1000.0

# what readers write where a recording has a seam
_SEAM = re.compile(r"edge boundary|edge$|bad_acq_skip|boundary$", re.IGNORECASE)

EDF_LIKE = {".edf", ".bdf", ".rec"}


def from_raw(
    raw: BaseRaw,
    origin: Origin | None = None,
    *,
    dataset: str = "raw",
    subject: str = "0",
    session: str = "0",
    run: str = "0",
    events: Sequence[Event] | None = None,
    keep_private: bool = False,
) -> Recording:
    """A `Recording` from an `mne.io.Raw`: EEG channels, uV, float32; read in pieces, so that a Raw need not be in memory.

    Args:
        raw: any Raw; it is not changed.
        origin: where it comes from; or give its names.
        dataset, subject, session, run: its names.
        events: trials; the annotations when left out.
        keep_private: also keep the measurement date and what the header says about the person.

    Raises:
        SourceError: no EEG channel, or no sample.
    """
    origin = origin or Origin(dataset, subject, session, run)
    name = f"{origin.dataset}/{origin.subject}/{origin.session}.{origin.run}"
    types = raw.get_channel_types()
    picks = [index for index, kind in enumerate(types) if kind == "eeg"]
    if not picks:
        raise SourceError(
            f"{name}: 0 of {len(types)} channels are EEG (least 1; types found: {', '.join(sorted(set(types))) or 'none'})",
            "leave the recording out, or set the channel types in the file",
        )
    if raw.n_times == 0:
        raise SourceError(f"{name}: 0 samples (least 1)", "leave the recording out")
    sfreq = float(raw.info["sfreq"])
    channels = tuple(raw.ch_names[pick] for pick in picks)
    low, high = float(raw.info["highpass"] or 0.0), float(raw.info["lowpass"] or sfreq / 2)
    signal_CT, offsets_C = _read_signal(raw, picks, name)
    return Recording(
        signal_CT=signal_CT,
        sfreq=sfreq,
        channels=channels,
        dataset=origin.dataset,
        subject=origin.subject,
        session=origin.session,
        run=origin.run,
        positions_C3=_positions(raw, picks, channels),
        original_sfreq=sfreq,
        events=tuple((annotation_events(raw) or stim_events(raw)) if events is None else events),
        segments=_segments(raw),
        sources=origin.sources,
        licence=origin.licence,
        doi=origin.doi,
        reference=origin.reference,
        line_freq=origin.line_freq if raw.info["line_freq"] is None else float(raw.info["line_freq"]),
        band=(low, high),
        person=origin.person or f"{origin.dataset}/{origin.subject}",
        findings=_raw_findings(raw, name),
        software=software(),
        offsets=tuple(offsets_C.tolist()) if offsets_C.any() else (),
        header=_header(raw) if keep_private else {},
    )


def _header(raw: BaseRaw) -> dict[str, Any]:
    """What the header says of the person and the date; only on request."""
    person = {key: str(value) for key, value in (raw.info["subject_info"] or {}).items()}
    date = raw.info["meas_date"]
    return {"meas_date": None if date is None else date.isoformat(), "subject_info": person}


def _read_signal(raw: BaseRaw, picks: list[int], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(C, T) float32 uV, converted in pieces that are small against the whole, and what was taken off each channel, uV.

    Amplifiers coupled for direct current record EEG on top of tens of millivolts, where float32 has steps of several nanovolts:
    such an offset is taken off first, in float64.
    """
    signal_CT = np.empty((len(picks), raw.n_times), np.float32)
    step = max(1, _CHUNK_VALUES // max(len(raw.ch_names), 1))
    first_C = raw[picks, 0:1][0][:, 0] * UV_PER_VOLT
    offsets_C = np.where(np.abs(np.nan_to_num(first_C)) > _OFFSET_UV, np.rint(np.nan_to_num(first_C)), 0.0)
    volts_C1 = offsets_C[:, None] / UV_PER_VOLT
    for start in range(0, raw.n_times, step):
        stop = min(start + step, raw.n_times)
        piece = raw[picks, start:stop][0]
        if piece.shape[1] != stop - start:
            raise SourceError(
                f"{name}: the file ends at sample {start + piece.shape[1]:,} of {raw.n_times:,}", "fetch the file again"
            )
        if offsets_C.any():
            piece = piece - volts_C1
        np.multiply(piece, UV_PER_VOLT, out=signal_CT[:, start:stop], casting="unsafe")
    return signal_CT, offsets_C


def _positions(raw: BaseRaw, picks: list[int], channels: tuple[str, ...]) -> np.ndarray:
    """(C, 3) m in head coordinates: what the file says, else the standard place of that name, else NaN."""
    located = np.array([raw.info["chs"][pick]["loc"][:3] for pick in picks], float).reshape(len(picks), 3)
    unknown = ~np.isfinite(located).all(axis=1) | (located == 0).all(axis=1)
    if unknown.any():
        located[unknown] = standard_positions([name for name, lost in zip(channels, unknown, strict=True) if lost])
    return located


def annotation_events(raw: BaseRaw) -> list[Event]:
    """Annotations as events, the one at sample 0 included; onsets in s from the first sample."""
    notes = raw.annotations
    return [
        Event(round(float(onset - raw.first_time), 9), float(duration), str(label))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
        if not _SEAM.match(str(label))
    ]


def stim_events(raw: BaseRaw) -> list[Event]:
    """New values of stimulus channels, for recordings without annotations; the label is the value."""
    sfreq, events = float(raw.info["sfreq"]), []
    for pick, kind in enumerate(raw.get_channel_types()):
        if kind == "stim":
            values_T = np.rint(raw[pick][0][0]).astype(np.int64)
            events += [Event(round(sample / sfreq, 9), 0.0, str(values_T[sample])) for sample in onsets(values_T).tolist()]
    return events


def onsets(values_T: np.ndarray) -> np.ndarray:
    """Samples where a stimulus channel takes a new value other than 0; the first sample counts."""
    before = np.concatenate([[0], values_T[:-1]])
    return np.flatnonzero((values_T != before) & (values_T != 0))


def _segments(raw: BaseRaw) -> tuple[tuple[int, int], ...]:
    """Sample ranges between the seams that annotations name."""
    notes = raw.annotations
    seams = [
        Event(float(onset - raw.first_time), float(duration), str(label))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
        if _SEAM.match(str(label))
    ]
    return _between_seams(seams, float(raw.info["sfreq"]), raw.n_times)


def _between_seams(seams: Sequence[Event], sfreq: float, n_samples: int) -> tuple[tuple[int, int], ...]:
    cuts: list[tuple[int, int]] = []
    for seam in seams:
        first = min(max(round(seam.onset * sfreq), 0), n_samples)
        lost = seam.duration if seam.label.lower().startswith("bad_acq_skip") else 0.0
        cuts.append((first, min(first + round(lost * sfreq), n_samples)))
    segments, start = [], 0
    for first, last in sorted(cuts):
        if first > start:
            segments.append((start, first))
        start = max(start, last)
    if start < n_samples:
        segments.append((start, n_samples))
    return tuple(segments)


def _raw_findings(raw: BaseRaw, name: str) -> tuple[Finding, ...]:
    """Channels that the file itself marks as bad: kept, and said."""
    return tuple(Finding("marked_bad", name, bad, None, None, "noted", "marked as bad in the source") for bad in raw.info["bads"])


@cache
def _version(package: str) -> str:
    return metadata.version(package)


def software(*more: str) -> dict[str, str]:
    return {package: _version(package) for package in ("mne", *more)}


def read_file(path: Path, origin: Origin | None = None, *, keep_private: bool = False) -> Recording:
    """One file of any format that MNE reads.

    Raises:
        SourceError: it is missing, truncated, not an EEG file, or holds no EEG channel.
    """
    origin = origin or Origin("files", *file_names(Path(path.name)))
    if not path.exists():
        raise SourceError(f"{path.name}: no such file", "check the path")
    if path.suffix.lower() in EDF_LIKE and not keep_private:
        content = edf.read(path, _OFFSET_UV)
        if content is not None:
            return _from_edf(content, origin)
    with quiet_mne():
        return from_raw(open_raw(path), origin, keep_private=keep_private)


def _from_edf(content: edf.Content, origin: Origin) -> Recording:
    """The same `Recording` as through MNE-Python."""
    notes = [Event(round(onset, 9), duration, label) for onset, duration, label in content.annotations]
    n_samples = content.signal_CT.shape[1]
    seconds = n_samples / content.sfreq
    return Recording(
        signal_CT=content.signal_CT,
        sfreq=content.sfreq,
        channels=content.channels,
        dataset=origin.dataset,
        subject=origin.subject,
        session=origin.session,
        run=origin.run,
        positions_C3=standard_positions(content.channels),
        original_sfreq=content.sfreq,
        events=tuple(note for note in notes if not _SEAM.match(note.label) and note.onset < seconds),
        segments=_between_seams([note for note in notes if _SEAM.match(note.label)], content.sfreq, n_samples),
        sources=origin.sources,
        licence=origin.licence,
        doi=origin.doi,
        reference=origin.reference,
        line_freq=origin.line_freq,
        band=(content.highpass, content.lowpass),
        person=origin.person or f"{origin.dataset}/{origin.subject}",
        software=software(),
        offsets=tuple(content.offsets_C.tolist()) if content.offsets_C.any() else (),
    )


def open_raw(path: Path) -> BaseRaw:
    """Open a file without reading its samples, after checking that it is whole where the header tells."""
    import mne

    if not path.exists():
        raise SourceError(f"{path.name}: no such file", "check the path")
    options: dict[str, Any] = {}
    if path.suffix.lower() in EDF_LIKE:
        edf.read_header(path)
        options = {"infer_types": True}
    try:
        return mne.io.read_raw(path, preload=False, verbose="error", **options)
    except ToolkitError:
        raise
    except Exception as error:  # readers raise anything, from ValueError to struct.error
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(
            f"{path.name}: not a file that MNE-Python can read ({reason})", "give an EEG file, or leave it out"
        ) from error


@contextmanager
def quiet_mne() -> Iterator[None]:
    """Readers' warnings about header details are noise here; what matters becomes a finding."""
    import mne

    with warnings.catch_warnings(), mne.utils.use_log_level("ERROR"):
        warnings.simplefilter("ignore")
        yield
