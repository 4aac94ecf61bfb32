"""Small files of formats that no package here writes: GDF, Neuroscan CNT, EGI simple binary, Persyst, Nihon Kohden.

Each takes a signal in uV and gives back the path; values are kept to the nearest step of 0.1 uV or better.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Marks = Sequence[tuple[int, int]]  # (sample, code)


def _pad(text: str, size: int) -> bytes:
    return text.encode("latin-1")[:size].ljust(size, b"\0")


def gdf(path: Path, x_CT: np.ndarray, rate: int, names: Sequence[str], marks: Marks = (), units: Sequence[str] = ()) -> Path:
    """GDF 1.25 with records of one second, 16 bits, and an event table."""
    n, steps = len(x_CT), np.rint(x_CT * 10).astype("<i2")
    units = units or ["uV"] * n
    records = x_CT.shape[1] // rate
    head = b"GDF 1.25" + _pad("X X X", 80) + _pad("made", 80) + b"2026010112000000" + struct.pack("<q", 256 * (n + 1))
    head += bytes(24) + bytes(20) + struct.pack("<q", records) + struct.pack("<III", 1, 1, n)
    head += b"".join(_pad(name, 16) for name in names) + bytes(80 * n) + b"".join(_pad(unit, 8) for unit in units)
    head += struct.pack(f"<{n}d", *[-3276.8] * n) + struct.pack(f"<{n}d", *[3276.7] * n)
    head += struct.pack(f"<{n}q", *[-32768] * n) + struct.pack(f"<{n}q", *[32767] * n)
    head += bytes(80 * n) + struct.pack(f"<{n}i", *[rate] * n) + struct.pack(f"<{n}i", *[3] * n) + bytes(32 * n)
    body = b"".join(steps[:, r * rate : (r + 1) * rate].tobytes() for r in range(records))
    table = bytes([1]) + rate.to_bytes(3, "little") + struct.pack("<I", len(marks))
    table += struct.pack(f"<{len(marks)}I", *[s + 1 for s, _ in marks]) + struct.pack(f"<{len(marks)}H", *[c for _, c in marks])
    path.write_bytes(head + body + table)
    return path


def cnt(
    path: Path, x_CT: np.ndarray, rate: int, names: Sequence[str], marks: Marks = (), bits: int = 16, says_samples: bool = True
) -> Path:
    """Neuroscan CNT, version 3, with events of type 1, which point behind their sample; one step is 0.1 uV."""
    (n, samples), size = x_CT.shape, bits // 8
    steps = np.rint(x_CT * 10).astype(f"<i{size}")
    head = bytearray(900)
    head[:12] = b"Version 3.0\0"
    struct.pack_into("<H", head, 370, n)
    struct.pack_into("<H", head, 376, rate)
    struct.pack_into("<i", head, 864, samples if says_samples else 0)
    struct.pack_into("<i", head, 886, 900 + 75 * n + samples * n * size)
    channels = b""
    for name in names:
        about = bytearray(75)
        about[: len(name)] = name.encode()
        struct.pack_into("<f", about, 59, 0.1 * 204.8)  # sensitivity
        struct.pack_into("<f", about, 71, 1.0)  # calibration
        channels += bytes(about)
    events = b"".join(struct.pack("<HBBi", code, 0, 0, 900 + 75 * n + (sample + 1) * n * size) for sample, code in marks)
    table = struct.pack("<Bii", 1, len(events), 0) + events
    path.write_bytes(bytes(head) + channels + steps.T.tobytes() + table)
    return path


def egi(path: Path, x_CT: np.ndarray, rate: int, marks: Marks = ()) -> Path:
    """EGI simple binary, version 4: float32 in uV; event codes become four letters."""
    n, samples = x_CT.shape
    codes = sorted({code for _, code in marks})
    head = struct.pack(">i6hi5hih", 4, 2026, 1, 1, 12, 0, 0, 0, rate, n, 1, 0, 0, samples, len(codes))
    head += b"".join(f"ev{code:02d}".encode() for code in codes)
    lines = np.zeros((len(codes), samples))
    for sample, code in marks:
        lines[codes.index(code), sample] = 1
    path.write_bytes(head + np.vstack([x_CT, lines]).T.astype(">f4").tobytes())
    return path


def persyst(path: Path, x_CT: np.ndarray, rate: int, names: Sequence[str], marks: Marks = ()) -> Path:
    """Persyst: a text with the layout, and 16-bit samples beside it."""
    lines = ["[FileInfo]", f"File={path.with_suffix('.dat').name}", "FileType=Interleaved", f"SamplingRate={rate}", "HeaderLength=0",
             "Calibration=0.1", f"WaveformCount={len(names)}", "DataType=0", "[ChannelMap]"]  # fmt: skip
    lines += [f"{name}-Ref={number}" for number, name in enumerate(names, 1)]
    lines += ["[Sheets]", "[Comments]"] + [f"{sample / rate:.4f},0,0,100,mark {code}" for sample, code in marks]
    path.write_text("\n".join([*lines, "[Patient]", "First=X"]) + "\n")
    path.with_suffix(".dat").write_bytes(np.rint(x_CT * 10).astype("<i2").T.tobytes())
    return path


_NIHON = ["FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T3", "T4", "T5", "T6", "FZ", "CZ", "PZ"]


def nihon(path: Path, x_CT: np.ndarray, rate: int, blocks: int = 1, marks: Marks = ()) -> Path:
    """Nihon Kohden EEG-1100 with its usual channel names, in one or more blocks of data, and a log of events (whole seconds)."""
    version = b"EEG-1100C V01.00"
    n, samples = x_CT.shape
    each = samples // blocks
    steps = np.rint((x_CT + 3200) / (6399.902 / 65535)).astype(np.int64)
    words = np.vstack([steps, np.zeros((1, samples), np.int64)]).astype("<u2")
    control, first = 0x400, 0x1800
    data = bytearray(first)
    data[:16] = data[0x81:0x91] = version
    data[0x91] = 1
    struct.pack_into("<I", data, 0x92, control)
    data[0x17FE] = 1
    data[control + 17] = blocks
    for block in range(blocks):
        address = len(data)
        struct.pack_into("<I", data, control + 18 + 20 * block, address)
        about = bytearray(0x27 + 10 * n)
        struct.pack_into("<H", about, 0x1A, rate | 0xC000)
        struct.pack_into("<I", about, 0x1C, each * 10 // rate)
        about[0x26] = n
        for channel in range(n):
            about[0x27 + 10 * channel] = channel
        data += about + words[:, block * each : (block + 1) * each].T.tobytes()
    path.write_bytes(bytes(data))
    log = bytearray(0x200)
    log[:16] = version
    log[0x91] = 1
    struct.pack_into("<I", log, 0x92, 0x200)
    entries = b"".join(
        f"mark {code}".encode().ljust(20, b"\0") + f"{s // 3600:02d}{s // 60 % 60:02d}{s % 60:02d}".encode().ljust(25, b"\0")
        for s, code in ((sample // rate, code) for sample, code in marks)
    )
    log += b"\0" + version + b"\0" + bytes([len(marks)]) + b"\0" + entries
    path.with_suffix(".LOG").write_bytes(bytes(log))
    return path


def nihon_names(count: int) -> list[str]:
    """Names that such a file gives its first channels."""
    return _NIHON[:count]
