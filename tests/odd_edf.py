"""EDF and BDF written field by field, so that tests can write headers and records that no careful program would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTHS = {
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "pmin": 8,
    "pmax": 8,
    "dmin": 8,
    "dmax": 8,
    "filter": 80,
    "samples": 8,
    "free": 32,
}


@dataclass
class Signal:
    """One signal: digital values, and how the header describes them."""

    label: str
    digital: np.ndarray
    each: int  # samples of a record
    unit: str | bytes = "uV"
    physical: tuple[float, float] = (-3276.8, 3276.7)
    limits: tuple[int, int] = (-32768, 32767)
    filters: str = ""

    @property
    def values(self) -> np.ndarray:
        """Physical values as the standard defines them."""
        (low, high), (bottom, top) = self.physical, self.limits
        return (self.digital - bottom) * ((high - low) / (top - bottom)) + low


def of_values(label: str, values: np.ndarray, each: int, unit: str | bytes = "uV", **more: object) -> Signal:
    """A signal that shows `values` to the nearest step."""
    made = Signal(label, np.zeros(0, int), each, unit, **more)  # type: ignore[arg-type]
    (low, high), (bottom, top) = made.physical, made.limits
    made.digital = np.clip(np.rint((np.asarray(values) - low) * (top - bottom) / (high - low) + bottom), bottom, top).astype(
        np.int64
    )
    return made


def text(onset: float, *notes: str | bytes, duration: float | None = None) -> bytes:
    """One list of annotations; without notes it says when its record began."""
    length = b"" if duration is None else f"\x15{duration:g}".encode()
    coded = [note if isinstance(note, bytes) else note.encode() for note in notes or ("",)]
    return f"{onset:+.10g}".encode() + length + b"\x14" + b"".join(note + b"\x14" for note in coded) + b"\0"


def write(
    path: Path,
    signals: Sequence[Signal],
    *,
    seconds: float = 1.0,
    reserved: str = "",
    texts: Sequence[bytes] | None = None,
    header: dict[str, str] | None = None,
    fill: bytes = b" ",
    tail: bytes = b"",
) -> Path:
    """Write a file; the ending decides between 16 and 24 bits.

    Args:
        texts: the annotations of each record. header: fields of the general header that are to lie. fill: pads the fields.
    """
    bits = 24 if path.suffix == ".bdf" else 16
    records = min(len(signal.digital) // signal.each for signal in signals)
    columns = [
        {
            "label": s.label, "unit": s.unit, "pmin": f"{s.physical[0]:.7g}"[:8], "pmax": f"{s.physical[1]:.7g}"[:8],
            "dmin": str(s.limits[0]), "dmax": str(s.limits[1]), "filter": s.filters, "samples": str(s.each),
        }
        for s in signals
    ]  # fmt: skip
    width = 0
    if texts is not None:
        width = -(-max(len(part) for part in texts) // (bits // 8)) + 1
        name = "BDF Annotations" if bits == 24 else "EDF Annotations"
        top = 2 ** (bits - 1)
        columns.append({"label": name, "pmin": "-1", "pmax": "1", "dmin": str(-top), "dmax": str(top - 1), "samples": str(width)})
    general = {
        "bytes": str(256 * (len(columns) + 1)), "reserved": reserved, "records": str(records), "seconds": f"{seconds:g}",
        "signals": str(len(columns)), "patient": "X X X X", "recording": "Startdate X X X X", "start": "24.12.0918.30.00", **(header or {}),
    }  # fmt: skip
    sizes = {"patient": 80, "recording": 80, "start": 16, "bytes": 8, "reserved": 44, "records": 8, "seconds": 8, "signals": 4}

    def field(value: str | bytes, size: int) -> bytes:
        return (value if isinstance(value, bytes) else value.encode("latin-1"))[:size].ljust(size, fill)

    out = (b"\xffBIOSEMI" if bits == 24 else b"0       ") + b"".join(field(general[name], size) for name, size in sizes.items())
    for name, size in WIDTHS.items():
        out += b"".join(field(column.get(name, ""), size) for column in columns)
    body = []
    for record in range(records):
        for signal in signals:
            part = signal.digital[record * signal.each : (record + 1) * signal.each].astype("<i4")
            body.append(part.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes())
        if texts is not None:
            body.append(texts[record].ljust(width * bits // 8, b"\0"))
    path.write_bytes(out + b"".join(body) + tail)
    return path
