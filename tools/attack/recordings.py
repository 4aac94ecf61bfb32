"""Small recordings as files: EDF whose header fields can lie, and BrainVision whose header can name any file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

CHANNELS = ("Fp1", "Fp2", "C3", "C4", "P3", "P4", "O1", "O2")


def signal(samples: int, seed: int, channels: int = 8) -> np.ndarray:
    """(channels, samples) uV, standard deviation about 25: a slow part and white noise."""
    draw = np.random.default_rng(seed)
    slow = np.repeat(draw.standard_normal((channels, samples // 8 + 1)), 8, axis=1)[:, :samples]
    return slow * 20 + draw.standard_normal((channels, samples)) * 15


def edf(seconds: int = 16, sfreq: int = 128, seed: int = 0, *, annotations: bytes = b"", **lies: str) -> bytes:
    """An EDF+C file of 8 channels and an annotation signal.

    annotations: bytes of the annotation signal, spread over the records. lies: fields of the header as text: `records`, `duration`,
    `signals`, `header_bytes`, `reserved`; and `pmin`, `pmax`, `dmin`, `dmax`, `samples`, `unit` of all channels.
    """
    count = len(CHANNELS) + 1
    share = max(64, -(-len(annotations) // seconds // 2) * 2)

    def field(text: object, width: int) -> bytes:
        return str(text)[:width].ljust(width).encode("latin-1")

    def each(name: str, value: object, last: object, width: int) -> bytes:
        return field(lies.get(name, value), width) * (count - 1) + field(last, width)

    head = field("0", 8) + field("X X X X", 80) + field("Startdate X X X X", 80) + b"01.01.2601.00.00"
    head += field(lies.get("header_bytes", 256 * (count + 1)), 8) + field(lies.get("reserved", "EDF+C"), 44)
    head += field(lies.get("records", seconds), 8) + field(lies.get("duration", 1), 8) + field(lies.get("signals", count), 4)
    head += b"".join(field(name, 16) for name in (*CHANNELS, "EDF Annotations"))
    head += field("", 80) * count + each("unit", "uV", "", 8)
    head += (
        each("pmin", -3276.8, -1, 8)
        + each("pmax", 3276.7, 1, 8)
        + each("dmin", -32768, -32768, 8)
        + each("dmax", 32767, 32767, 8)
    )
    head += field("", 80) * count + each("samples", sfreq, share // 2, 8) + field("", 32) * count
    digital = np.rint(signal(seconds * sfreq, seed) * 10).astype("<i2")
    parts = [head]
    for second in range(seconds):
        stamp = annotations[second * share : (second + 1) * share] if annotations else f"+{second}\x14\x14\0".encode()
        parts += [digital[:, second * sfreq : (second + 1) * sfreq].tobytes(), stamp.ljust(share, b"\0")]
    return b"".join(parts)


def people(folder: Path, count: int, *, runs: int = 1, seconds: int = 16) -> str:
    """Recordings of several people; the SOURCE that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for person in range(1, count + 1):
        for run in range(1, runs + 1):
            (folder / f"sub-{person:02d}_run-{run}.edf").write_bytes(edf(seconds, seed=100 * person + run))
    return f"files:{folder}/*.edf"


def brain_vision(folder: Path, *, data: str = "own.eeg", marker: str = "own.vmrk", interval: str = "7812.5") -> Path:
    """A BrainVision recording; the header says `data`, `marker` and `interval` (us) as they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["Brain Vision Data Exchange Header File Version 1.0", "[Common Infos]", "Codepage=UTF-8", f"DataFile={data}"]
    lines += [f"MarkerFile={marker}", "DataFormat=BINARY", "DataOrientation=MULTIPLEXED", "NumberOfChannels=8"]
    lines += [f"SamplingInterval={interval}", "[Binary Infos]", "BinaryFormat=INT_16", "[Channel Infos]"]
    lines += [f"Ch{number}={name},,0.1,uV" for number, name in enumerate(CHANNELS, start=1)]
    (folder / "own.vhdr").write_text("\n".join(lines) + "\n")
    marks = ["Brain Vision Data Exchange Marker File, Version 1.0", "[Common Infos]", "DataFile=own.eeg", "[Marker Infos]"]
    (folder / "own.vmrk").write_text("\n".join([*marks, "Mk1=New Segment,,1,1,0,20260101000000000000"]) + "\n")
    samples(folder / "own.eeg")
    return folder / "own.vhdr"


def samples(path: Path) -> Path:
    """The data file of such a recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((signal(128 * 24, 5).T * 10).round().astype("<i2").tobytes())
    return path
