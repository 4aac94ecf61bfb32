"""EDF, EDF+, BDF and BDF+: the only reader of these files, so that every route gives the same answer.

It agrees with MNE-Python on the files that MNE-Python reads right (a property test compares the two), needs a tenth of its time,
and goes on where MNE-Python gives wrong values or refuses: signals of different rates keep their own, interrupted recordings
(EDF+D) keep their pauses, units are taken channel by channel, texts may be Latin-1, and a header may contradict the file.
Format: Kemp et al. (1992), Electroencephalography and Clinical Neurophysiology 82:391-393; EDF+: Kemp and Olivan (2003),
Clinical Neurophysiology 114:1755-1761; BDF and its status bits: BioSemi. Shapes: C channels, T samples, R records.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from eegprep.errors import SourceError
from eegprep.readers.content import OFFSET_UV, Channel, Content, Note
from eegprep.readers.triggers import merge_lines, new_epochs, trigger_events
from eegprep.recording import Event

SUFFIXES = {".edf", ".bdf", ".rec"}
_TYPES = ("EEG", "SEEG", "ECOG", "DBS", "EOG", "ECG", "EMG", "BIO", "RESP", "TEMP", "MISC", "SAO2", "STIM")
_TRIGGERS = {"status", "trigger", "triggers", "trig", "stim", "sti", "sti 014", "stimulus"}
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
# a time-stamped annotation list: onset, 0x15 duration, 0x14 texts, 0x14 0x00
# each part has a limit, so that no text needs more than linear time
_ONSET = re.compile(rb"([+-]\d{1,32}(?:\.\d{0,32})?)(?:\x15(\d{1,32}(?:\.\d{0,32})?))?\x14")
# bytes of records converted at once: stays in cache
_CHUNK_BYTES = 1_000_000
# float32 has 24 bits: with a shift of fewer steps, the sum with a sample of up to 24 bits is exact
_EXACT = float(2**23)
_FIELDS = {"label": 16, "transducer": 80, "unit": 8, "pmin": 8, "pmax": 8, "dmin": 8, "dmax": 8, "filter": 80, "samples": 8}


@dataclass(frozen=True)
class Header:
    """What the header of a file says. notes: where it contradicts the file, in words."""

    bytes: int
    records: int
    seconds: float
    labels: tuple[str, ...]
    units: tuple[str, ...]
    scale_C: np.ndarray  # physical units for a digital step
    shift_C: np.ndarray  # physical value of digital zero
    filters: tuple[str, ...]
    samples: tuple[int, ...]  # a record
    sample_bytes: int
    patient: str
    start: str  # "dd.mm.yyhh.mm.ss"
    startdate: str  # the "recording" field
    notes: tuple[str, ...] = ()

    @property
    def record_bytes(self) -> int:
        return sum(self.samples) * self.sample_bytes


def read_header(path: Path) -> Header:
    """Parse the header and hold it against the length of the file.

    Raises:
        SourceError: not EDF or BDF, or shorter than the header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            header = _parse(file.read(256), file, size)
        except (ValueError, ZeroDivisionError) as error:
            raise SourceError(f"{path.name}: not an EDF or BDF file ({error})", "give an EEG file, or leave it out") from None
    expected = header.bytes + header.records * header.record_bytes
    if size < expected:
        raise SourceError(
            f"{path.name}: truncated, {size:,} bytes where its header promises {expected:,}",
            "fetch the file again, or leave it out",
        )
    return header


def _parse(general: bytes, file: BinaryIO, size: int) -> Header:
    if len(general) < 256:
        raise ValueError("shorter than a header")
    text = general.decode("latin-1")
    count = int(_clean(text[252:256]))
    # more signals than any recorder has: the field is damaged
    if not 0 < count <= 4096:
        raise ValueError(f"{count} signals")
    body = file.read(count * 256).decode("latin-1")
    if len(body) < count * 256:
        raise ValueError("shorter than its header")
    fields, place = {}, 0
    clean = _clean if "\0" in body else str.strip
    for name, width in _FIELDS.items():
        fields[name] = [clean(body[place + i * width : place + (i + 1) * width]) for i in range(count)]
        place += count * width
    low, high, dlow, dhigh = (_numbers(fields[key]) for key in ("pmin", "pmax", "dmin", "dmax"))
    # no division by zero: a channel without a range must not keep the others from being read
    steps = np.where(dhigh - dlow == 0, 1.0, dhigh - dlow)
    scale_C = np.where(high - low == 0, 1.0, high - low) / steps
    samples = tuple(int(float(v)) for v in fields["samples"])
    if min(samples) < 0 or not sum(samples):
        raise ValueError("records without samples")
    # BDF begins with 0xFF, EDF with "0"
    sample_bytes = 3 if general[:1] == b"\xff" else 2
    header_bytes, records, notes = _extent(text, count, sum(samples) * sample_bytes, size)
    return Header(
        bytes=header_bytes,
        records=records,
        seconds=float(_clean(text[244:252]).replace(",", ".")),
        labels=tuple(fields["label"]),
        units=tuple(fields["unit"]),
        scale_C=scale_C,
        shift_C=low - dlow * scale_C,
        filters=tuple(fields["filter"]),
        samples=samples,
        sample_bytes=sample_bytes,
        patient=_clean(text[8:88]),
        start=text[168:184],
        startdate=_clean(text[88:168]),
        notes=tuple(notes),
    )


def _clean(field: str) -> str:
    return field.split("\0", maxsplit=1)[0].strip()


def _number(field: str) -> float:
    """NaN where there is none: a channel without a range can still be left out by itself."""
    try:
        return float(field.replace(",", "."))
    except ValueError:
        return float("nan")


def _numbers(fields: list[str]) -> np.ndarray:
    """`_number` of each; most channels of a file say the same."""
    known = {field: _number(field) for field in set(fields)}
    return np.array([known[field] for field in fields])


def _count(field: str, otherwise: int) -> int:
    """A whole number of the general header that the file itself tells as well."""
    number = _number(_clean(field))
    return int(number) if np.isfinite(number) else otherwise


def _extent(text: str, signals: int, record_bytes: int, size: int) -> tuple[int, int, list[str]]:
    """(bytes of the header, records, contradictions): what the file holds decides, unless it is shorter than promised."""
    notes = []
    true_bytes, said_bytes = 256 * (signals + 1), _count(text[184:192], 0)
    header_bytes = true_bytes
    if said_bytes != true_bytes:
        # a longer header is legal only if whole records follow it
        fits = said_bytes > true_bytes and (size - said_bytes) % record_bytes == 0 != (size - true_bytes) % record_bytes
        header_bytes = said_bytes if fits else true_bytes
        notes.append(f"the header says that it has {said_bytes:,} bytes, {signals} signals take {true_bytes:,}")
    # -1 in the header: the recorder was not closed, and the length of the file tells
    stated, whole = _count(text[236:244], -1), max(0, size - header_bytes) // record_bytes
    if stated < whole:
        notes.append(f"the header says {stated} records, the file holds {whole}")
        stated = whole
    rest = size - header_bytes - stated * record_bytes
    if rest > 0:
        notes.append(f"{rest:,} bytes after the last record are left out")
    return header_bytes, stated, notes


def read(path: Path) -> Content:
    """What a file holds, see `content.Content`.

    Raises:
        SourceError: see `read_header`; or its records have no duration.
    """
    header = read_header(path)
    if header.records and not 0 < header.seconds < math.inf:
        raise SourceError(
            f"{path.name}: the header gives records of {header.seconds:g} s, so the rate of its signals is unknown",
            "correct the record duration in the header, or leave the file out",
        )
    rows = [i for i, label in enumerate(header.labels) if label not in _ANNOTATIONS]
    names, kinds, declared = split_labels([header.labels[i] for i in rows])
    channels = tuple(
        Channel(name, header.samples[row] / header.seconds, kind, own, header.units[row])
        for row, name, kind, own in zip(rows, names, kinds, declared, strict=True)
    )
    shape = (header.records, header.record_bytes)
    # mapped, not read: choosing channels of a long recording reads only their pages
    records_RB: np.ndarray = np.memmap(path, np.uint8, "r", header.bytes, shape) if header.records else np.zeros(shape, np.uint8)
    notes, pauses, lost = _annotations(records_RB, header, names)
    lines: list[tuple[str, list[Event]]] = []
    for row, channel in zip(rows, channels, strict=True):
        if channel.kind == "stim" and header.records:
            codes_T = _codes(records_RB, header, row)
            if header.sample_bytes == 3:
                # the bits of a BioSemi status channel above the 16 triggers are the amplifier's own
                pauses = (*pauses, *new_epochs(codes_T, channel.rate))
                codes_T = codes_T & 0xFFFF
            lines.append((channel.name, trigger_events(codes_T, channel.rate)))
    findings = [Note("header", note) for note in header.notes]
    ranged_C = np.isfinite(header.scale_C) & np.isfinite(header.shift_C)
    for index, row in enumerate(rows):
        if not ranged_C[row]:
            findings.append(Note("header", "its range is no number in the header", channels[index].name))
            channels = (*channels[:index], replace(channels[index], kind="unknown"), *channels[index + 1 :])
    if lost:
        findings.append(Note("events_outside", f"{lost} events lie in the pauses of the recording, where there is no signal"))
    return Content(
        channels=channels,
        seconds=header.records * header.seconds,
        read=lambda chosen, uv_C: _signal(records_RB, header, [rows[i] for i in chosen], uv_C),
        notes=notes,
        triggers=tuple(merge_lines(lines, 0.002)),
        pauses=tuple(sorted(pauses)),
        bands=tuple(_filters(header.filters[row], channel.rate) for row, channel in zip(rows, channels, strict=True)),
        findings=tuple(findings),
        private=lambda: _private(header),
    )


def split_labels(labels: Sequence[str]) -> tuple[list[str], list[str], list[bool]]:
    """Names, kinds, and whether the label says the kind: it may begin with it, `EOG left`. Equal names are numbered."""
    names, kinds, declared = [], [], []
    for label in labels:
        first, _, rest = label.partition(" ")
        typed = bool(rest) and first.upper() in _TYPES
        name = rest if typed else label
        stim = name.lower() in _TRIGGERS
        names.append(name)
        kinds.append("stim" if stim else first.lower() if typed else "eeg")
        declared.append(typed or stim)
    count, seen = Counter(names), Counter[str]()
    for index, name in enumerate(names):
        if count[name] > 1:
            names[index] = f"{name}-{seen[name]}"
            seen[name] += 1
    return names, kinds, declared


def digital(block_RB: np.ndarray, sample_bytes: int) -> np.ndarray:
    """Little-endian 16- or 24-bit integers as numbers: (R, bytes) -> (R, samples)."""
    if sample_bytes == 2:
        return np.ascontiguousarray(block_RB).view("<i2")
    parts = block_RB.reshape(len(block_RB), -1, 3).astype(np.int32)
    value = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    # the sign bit of 24 counts for 32 bits
    return value - ((value & 0x800000) << 1)


def signal_starts(header: Header) -> np.ndarray:
    """First byte of each signal in a record, and the end of the last."""
    return np.concatenate([[0], np.cumsum(header.samples)]) * header.sample_bytes


def _codes(records_RB: np.ndarray, header: Header, row: int) -> np.ndarray:
    """Digital values of a trigger channel as unsigned numbers: (T,) int64."""
    starts = signal_starts(header)
    parts = [
        digital(np.asarray(records_RB[first : first + 4096, starts[row] : starts[row + 1]]), header.sample_bytes).reshape(-1)
        for first in range(0, header.records, 4096)
    ]
    codes_T = np.concatenate(parts).astype(np.int64)
    if header.sample_bytes == 3:
        return codes_T & 0xFFFFFF
    physical = codes_T * header.scale_C[row] + header.shift_C[row]
    return np.rint(physical).astype(np.int64)


def _signal(records_RB: np.ndarray, header: Header, rows: list[int], uv_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, T) float32 uV of signals of one rate, and what was taken off each channel first, uV.

    Args:
        uv_C: uV of one physical unit of each channel.
    """
    width, each = header.sample_bytes, header.samples[rows[0]]
    starts = signal_starts(header)
    scale_C = header.scale_C[rows] * uv_C
    shift_C = header.shift_C[rows] * uv_C
    first_B: np.ndarray = np.asarray(records_RB[0])
    first_C = digital(np.stack([first_B[start : start + width] for start in starts[rows].tolist()]), width)[:, 0]
    first_C = first_C * scale_C + shift_C
    offsets_C = np.where(np.abs(first_C) > OFFSET_UV, np.rint(first_C), 0.0)
    shift_C = shift_C - offsets_C
    # steps of a power of two and a shift by a number of them: float32 holds the result exactly, and nothing need pass through float64
    few_steps_C = (shift_C % scale_C == 0) & (np.abs(shift_C) < _EXACT * scale_C)
    exact_C = (np.frexp(scale_C)[0] == 0.5) & few_steps_C
    signal_CT = np.empty((len(rows), header.records * each), np.float32)
    signal_CRT = signal_CT.reshape(len(rows), header.records, each)
    side_by_side = width == 2 and bool((starts[rows] == starts[rows[0]] + np.arange(len(rows)) * each * width).all())
    step = max(1, _CHUNK_BYTES // records_RB.shape[1])
    for start in range(0, header.records, step):
        block_RB = np.asarray(records_RB[start : start + step])
        if side_by_side and exact_C.all():  # all channels at once
            values_RCT = block_RB[:, starts[rows[0]] : starts[rows[-1] + 1]].view("<i2").reshape(len(block_RB), len(rows), each)
            target_CRT = signal_CRT[:, start : start + step]
            scale_C11, shift_C11 = (values_C.astype(np.float32)[:, None, None] for values_C in (scale_C, shift_C))
            np.multiply(values_RCT.swapaxes(0, 1), scale_C11, out=target_CRT, casting="unsafe", dtype=np.float32)
            if shift_C.any():
                target_CRT += shift_C11
            continue
        for channel, row in enumerate(rows):
            values = digital(block_RB[:, starts[row] : starts[row] + each * width], width).reshape(-1)
            target_T = signal_CT[channel, start * each : start * each + len(values)]
            if exact_C[channel]:
                np.multiply(values, np.float32(scale_C[channel]), out=target_T, casting="unsafe", dtype=np.float32)
                target_T += np.float32(shift_C[channel])
            else:
                target_T[...] = values * scale_C[channel] + shift_C[channel]
    return signal_CT, offsets_C


def _annotations(
    records_RB: np.ndarray, header: Header, names: list[str]
) -> tuple[tuple[Event, ...], tuple[tuple[float, float], ...], int]:
    """Texts with their place in the signal, pauses between records, both in s of signal, and how many texts lie in a pause.

    The first, empty text of each record says when it began. In an interrupted recording a time of the file's clock is mapped
    to the record that was running then.
    """
    starts = signal_starts(header)
    # a dictionary keeps the order and drops what several channels repeat
    texts: dict[tuple[float, float, str, int], None] = {}
    began_R: np.ndarray | None = None
    first = True
    offset = 0.0
    for row, label in enumerate(header.labels):
        if label not in _ANNOTATIONS:
            continue
        width = int(starts[row + 1] - starts[row])
        content = np.ascontiguousarray(records_RB[:, starts[row] : starts[row + 1]]).tobytes()
        clock_R = np.full(header.records, np.nan)
        for number, (place, onset, duration, listed) in enumerate(_annotation_lists(content)):
            start = onset + offset
            for note in listed:
                if note:
                    text, unique = _text(note, names)
                    texts[(start, duration, text, 0 if unique else len(texts))] = None
                elif first and number == 0:
                    offset = -start
                    start = 0.0
            record = place // width
            if np.isnan(clock_R[record]) and not listed[0]:
                clock_R[record] = start
        if first:
            began_R = clock_R
        first = False
    notes = sorted((key[:3] for key in texts), key=lambda note: note[:2])
    if began_R is None or np.isnan(began_R).any():
        return tuple(Event(*note) for note in notes), (), 0
    return _on_signal(notes, began_R, header)


def _annotation_lists(content: bytes) -> Iterator[tuple[int, float, float, list[bytes]]]:
    """(first byte, onset s, duration s, texts) of each list: onset, 0x15 and duration, texts behind 0x14 each, 0x14 and 0x00 at the end."""
    for part in re.finditer(rb"[^\x00]+", content):
        piece = part[0]
        match = _ONSET.search(piece) if piece.endswith(b"\x14") else None
        if match is not None and match.end() < len(piece):
            yield part.start() + match.start(), float(match[1]), float(match[2] or 0), piece[match.end() : -1].split(b"\x14")


def _text(note: bytes, names: list[str]) -> tuple[str, bool]:
    """A text, and whether it names a channel (`text@@channel`), so that the same text of several channels is one event."""
    try:
        text = note.decode("utf-8")
    except UnicodeDecodeError:
        text = note.decode("latin-1")
    text = re.sub(r"[\r\n\t]+", " ", text)
    head, mark, channel = text.partition("@@")
    return (head, True) if mark and channel in names else (text, False)


def _on_signal(
    notes: list[tuple[float, float, str]], began_R: np.ndarray, header: Header
) -> tuple[tuple[Event, ...], tuple[tuple[float, float], ...], int]:
    """Times of the file's clock as s of signal, where records did not follow each other without a pause."""
    seconds, finest = header.seconds, header.seconds / max(header.samples)
    jumps = np.diff(began_R) - seconds
    # less than one sample is the rounding of the clock's text
    after = np.flatnonzero(np.abs(jumps) > max(finest, 1e-6)) + 1
    if not len(after):
        return tuple(Event(*note) for note in notes), (), 0
    pauses = tuple((record * seconds, record * seconds) for record in after.tolist())

    def place(time: float) -> tuple[float, bool]:
        """s of signal, and whether anything was recorded then."""
        record = int(np.searchsorted(began_R, time + 1e-9, side="right")) - 1
        if record < 0:
            return time - float(began_R[0]), True
        within = time - float(began_R[record])
        last = record == len(began_R) - 1
        return record * seconds + (within if last else min(within, seconds)), last or within <= seconds

    kept, lost = [], 0
    for onset, duration, text in notes:
        (start, inside), (stop, _) = place(onset), place(onset + duration)
        if inside or stop > start:
            kept.append(Event(start, max(0.0, stop - start) if duration else 0.0, text))
        else:
            lost += 1
    return tuple(kept), pauses, lost


@lru_cache(maxsize=1024)  # channels and files mostly have the same
def _filters(text: str, sfreq: float) -> tuple[float, float]:
    """High-pass and low-pass, Hz, of a text such as `HP:0.1Hz LP:75Hz`; 0 and half the rate where it says nothing usable."""

    def value(key: str) -> float:
        result = re.findall(rf"{key}:\s*([a-zA-Z0-9,.]+)", text)
        number = result[-1].replace("Hz", "").replace(",", ".") if result else ""
        return float(number) if number.replace(".", "", 1).isdigit() else 0.0

    highpass, lowpass = value("HP"), value("LP") or sfreq / 2
    return (highpass, lowpass) if highpass <= lowpass <= sfreq / 2 else (0.0, sfreq / 2)


def _private(header: Header) -> dict[str, object]:
    """Date and person, only on request."""
    day, month, year, hour, minute, second = (
        (int(v) for v in re.findall(r"\d\d", header.start)[:6]) if re.fullmatch(r"(\d\d\D?){6}\s*", header.start) else (0,) * 6
    )
    try:
        # two digits: EDF+ says that 85 to 99 are of the last century
        date = datetime(year + (2000 if year < 85 else 1900), month, day, hour, minute, second, tzinfo=UTC).isoformat()
    except ValueError:
        date = None
    code, sex, birthday, name = (header.patient.split() + [""] * 4)[:4]
    return {"meas_date": date, "subject_info": {"his_id": code, "sex": sex, "birthday": birthday, "name": name}}
