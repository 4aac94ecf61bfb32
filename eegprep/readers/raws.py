"""An `mne.io.Raw` as `Content`, and as a `Recording`. Shapes: C channels, T samples."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eegprep.errors import SourceError
from eegprep.readers import edf
from eegprep.readers.content import OFFSET_UV, Channel, Content, Note, Reading, to_recording, uv_of
from eegprep.readers.triggers import merge_lines, new_epochs, trigger_events
from eegprep.recording import Event, Origin, Recording
from eegprep.signals.channels import is_electrode

if TYPE_CHECKING:
    from mne.io import BaseRaw

# ours: samples x channels converted at once; 32 MB of float64
_CHUNK_VALUES = 4_000_000
# kind of a point that is an electrode
_FIFF_POINT_EEG = 3
_FIFF_UNIT_V = 107
_BROUGHT_TO_V = ("uV", "\u00b5V", "mV", "V")


def from_raw(
    raw: BaseRaw,
    origin: Origin | None = None,
    *,
    dataset: str = "raw",
    subject: str = "0",
    session: str = "0",
    run: str = "0",
    events: Sequence[Event] | None = None,
    reading: Reading | None = None,
    keep_private: bool = False,
) -> Recording:
    """A `Recording` from an `mne.io.Raw`: EEG channels, uV, float32; read in pieces, so that a Raw need not be in memory.

    Args:
        raw: any Raw; it is not changed.
        origin: where it comes from; or give its names.
        dataset, subject, session, run: its names.
        events: trials; the annotations and triggers when left out.
        reading: how marks and units are taken.
        keep_private: also keep the measurement date and what the header says about the person.

    Raises:
        SourceError: no EEG channel, or no sample.

    Example:
        >>> import eegprep, mne, numpy
        >>> info = mne.create_info(["Fz", "Cz", "Oz"], 250.0, "eeg")
        >>> raw = mne.io.RawArray(numpy.random.default_rng(0).normal(0, 1e-5, (3, 5000)), info, verbose="error")
        >>> recording = eegprep.from_raw(raw, dataset="mine", subject="1")
        >>> recording.signal_CT.shape, recording.sfreq
        ((3, 5000), 250.0)
    """
    origin = origin or Origin(dataset, subject, session, run)
    return to_recording(content_of(raw), origin, reading, events=events, keep_private=keep_private)


def content_of(raw: BaseRaw, findings: Sequence[Note] = ()) -> Content:
    """What a Raw holds. Nothing is read but its trigger channels."""
    if not raw.preload and _mixed_rates(raw):
        # a Raw of this kind resamples every slice by itself and misplaces it; as a whole it is right
        raw = raw.copy().load_data(verbose="error")
    sfreq = float(raw.info["sfreq"])
    band = (float(raw.info["highpass"] or 0.0), float(raw.info["lowpass"] or sfreq / 2))
    lines, pauses = [], []
    for pick, kind in enumerate(raw.get_channel_types()):
        if kind == "stim":
            codes_T = np.rint(np.nan_to_num(raw[pick][0][0])).astype(np.int64)
            if raw.ch_names[pick].casefold() == "status":
                pauses += new_epochs(codes_T, sfreq)
                codes_T = codes_T & 0xFFFF
            lines.append((raw.ch_names[pick], trigger_events(codes_T, sfreq)))
    channels, notes = _channels(raw, sfreq), _notes(raw)
    interrupted = _interrupted_edf(raw)
    if interrupted is not None:  # MNE-Python joins the records, and leaves the events on the clock of the file
        notes, more = interrupted
        pauses += more
    return Content(
        channels=channels,
        seconds=raw.n_times / sfreq,
        read=lambda rows, uv_C: _read_signal(raw, list(rows), uv_C),
        notes=tuple(notes),
        triggers=tuple(merge_lines(lines, 1.5 / sfreq)),
        pauses=tuple(pauses),
        bands=(band,) * len(channels),
        findings=tuple(findings),
        line_freq=None if raw.info["line_freq"] is None else float(raw.info["line_freq"]),
        private=lambda: _private(raw),
    )


def _mixed_rates(raw: BaseRaw) -> bool:
    for extras in getattr(raw, "_raw_extras", ()):
        each = extras.get("n_samps") if isinstance(extras, dict) else None
        chosen = extras.get("sel") if isinstance(extras, dict) else None
        if each is not None and chosen is not None and len(set(np.asarray(each)[np.asarray(chosen, int)].tolist())) > 1:
            return True
    return False


def _interrupted_edf(raw: BaseRaw) -> tuple[list[Event], list[tuple[float, float]]] | None:
    """Events and pauses of the EDF or BDF file behind a Raw, in s from its first sample, when its records were interrupted."""
    files = [Path(name) for name in raw.filenames if name is not None]
    if type(raw).__name__ not in ("RawEDF", "RawBDF") or len(files) != 1 or not files[0].is_file():
        return None
    try:
        own = edf.read(files[0])
    except SourceError:
        return None
    if not own.pauses:
        return None
    begin = float(raw.first_time)
    notes = [Event(round(note.onset - begin, 9), note.duration, note.label) for note in own.notes]
    return notes, [(start - begin, stop - begin) for start, stop in own.pauses if stop > begin]


def _channels(raw: BaseRaw, sfreq: float) -> tuple[Channel, ...]:
    """Kinds, units and places as the Raw has them.

    A BrainVision channel in another unit than volts comes as `misc` from MNE-Python: here its unit decides, and is named. Of EDF it
    knows uV and mV, and takes everything else for volts.
    """
    written: dict[str, str] = getattr(raw, "_orig_units", None) or {}
    brainvision = type(raw).__name__ == "RawBrainVision"
    digitised = any(int(point["kind"]) == _FIFF_POINT_EEG for point in raw.info["dig"] or ())
    channels = []
    for name, typed, about in zip(raw.ch_names, raw.get_channel_types(), raw.info["chs"], strict=True):
        kind = typed
        unit = "V" if about["unit"] == _FIFF_UNIT_V else "n/a"
        if brainvision and kind == "misc" and uv_of(written.get(name, "")) is None:
            kind, unit = "eeg", written.get(name, "")
        if (
            name in written
            and typed == "eeg"
            and type(raw).__name__ in ("RawEDF", "RawBDF")
            and written[name] not in _BROUGHT_TO_V
        ):
            unit = written[name]
        if typed == "misc" and type(raw).__name__ == "RawNihon" and is_electrode(name):
            kind, unit = "eeg", "V"  # MNE-Python takes every name with a Z for something else: FZ, CZ, PZ
        place = np.array(about["loc"][:3], float)
        # without any position in the file, zeros are a reader's way to say so
        known = np.isfinite(place).all() and (bool(place.any()) or digitised)
        where = (float(place[0]), float(place[1]), float(place[2])) if known else None
        channels.append(Channel(name, sfreq, kind, False, unit, where, name in raw.info["bads"]))
    return tuple(channels)


def _private(raw: BaseRaw) -> dict[str, object]:
    """What the header says of the person and the date; only on request."""
    person = {key: str(value) for key, value in (raw.info["subject_info"] or {}).items()}
    date = raw.info["meas_date"]
    return {"meas_date": None if date is None else date.isoformat(), "subject_info": person}


def _read_signal(raw: BaseRaw, picks: list[int], uv_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, T) float32 uV, converted in pieces that are small against the whole, and what was taken off each channel, uV.

    Amplifiers coupled for direct current record EEG on top of tens of millivolts, where float32 has steps of several nanovolts:
    such an offset is taken off first, in float64.
    """
    signal_CT = np.empty((len(picks), raw.n_times), np.float32)
    step = max(1, _CHUNK_VALUES // max(len(raw.ch_names), 1))
    first_C = np.nan_to_num(raw[picks, 0:1][0][:, 0] * uv_C)
    offsets_C = np.where(np.abs(first_C) > OFFSET_UV, np.rint(first_C), 0.0)
    units_C1 = (offsets_C / uv_C)[:, None]
    edges = sorted({*range(0, raw.n_times, step), *_block_ends(raw), raw.n_times})
    for start, stop in pairwise(edges):
        piece = raw[picks, start:stop][0]
        # a slice beyond the end of a truncated file may come back shorter
        if piece.shape[1] != stop - start:
            raise SourceError(
                f"the file ends at sample {start + piece.shape[1]:,} of {raw.n_times:,}", "fetch the file again, or leave it out"
            )
        if offsets_C.any():
            piece = piece - units_C1
        np.multiply(piece, uv_C[:, None], out=signal_CT[:, start:stop], casting="unsafe")
    return signal_CT, offsets_C


def _block_ends(raw: BaseRaw) -> list[int]:
    """Where a Nihon Kohden file goes on in another block of data: MNE-Python misreads slices that begin in one and end in the next."""
    if type(raw).__name__ != "RawNihon" or raw.preload:
        return []
    blocks = raw._raw_extras[0]["header"]["controlblocks"][0]["datablocks"]
    first, total = raw.first_samp, np.cumsum([block["n_samples"] for block in blocks])
    return [int(end - first) for end in total if 0 < end - first < raw.n_times]


def _notes(raw: BaseRaw) -> list[Event]:
    """Annotations, the one at sample 0 included; onsets in s from the first sample."""
    notes = raw.annotations
    markers = [
        Event(round(float(onset - raw.first_time), 9), float(duration), str(label))
        for onset, duration, label in zip(notes.onset, notes.duration, notes.description, strict=True)
    ]
    kind = type(raw).__name__
    # EEGLAB writes -99 for a boundary when the types of its events are numbers; GDF begins a new run with 0x7FFE
    code = "-99" if "EEGLAB" in kind and all(_number(note.label) for note in markers) else "32766" if kind == "RawGDF" else None
    return [Event(note.onset, note.duration, "boundary") if note.label == code else note for note in markers]


def _number(label: str) -> bool:
    return re.fullmatch(r"[+-]?\d+(\.\d+)?|boundary", label.strip()) is not None


def annotation_events(raw: BaseRaw) -> list[Event]:
    """Annotations that are no seam."""
    from eegprep.readers.content import is_seam

    return [note for note in _notes(raw) if not is_seam(note)]


@contextmanager
def quiet_mne() -> Iterator[None]:
    """Readers' warnings about header details are noise here; what matters becomes a finding."""
    import mne

    with warnings.catch_warnings(), mne.utils.use_log_level("ERROR"):
        warnings.simplefilter("ignore")
        yield
