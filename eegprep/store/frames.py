"""zstd frames of windows whose rows repeat, written without a compressor.

A window of 64 electrodes is stored with 128 rows, the second half of which repeats the first. zstd at its fastest level finds that, and
keeps the first half as it is; saying so outright takes a copy, a tenth of the time. Any zstd library decodes the frame.
Format: RFC 8878 (Collet and Kucherawy, 2021), sections 3.1.1.2 to 3.1.1.3.2. Shapes: C channels, T samples.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

_MAGIC = b"\x28\xb5\x2f\xfd"
# header: one segment, its size in four bytes, neither checksum nor dictionary
_DESCRIPTOR = b"\xa0"
# no block may give more
_BLOCK = 128 * 1024
_RAW, _COMPRESSED = 0, 2
# streaming decoders keep a window as long as the frame, and refuse more than this
LARGEST = 8 << 20
# match lengths: (smallest length, code, bits that say how much longer); RFC 8878, section 3.1.1.3.2.1.1
_MATCHES = [(code + 3, code, 0) for code in range(32)] + [
    (35, 32, 1), (37, 33, 1), (39, 34, 1), (41, 35, 1), (43, 36, 2), (47, 37, 2), (51, 38, 3), (59, 39, 3), (67, 40, 4), (83, 41, 4),
    (99, 42, 5), *(((1 << bits) + 3, bits + 36, bits) for bits in range(7, 17)),
]  # fmt: skip


def repeated_frame(rows_CT: np.ndarray, channels: int) -> bytes:
    """A frame that decodes to `rows_CT`, repeated in order until there are `channels` rows.

    Args:
        rows_CT: float32, no more rows than `channels`.
        channels: rows of the result, at most `LARGEST` bytes.
    """
    content = np.ascontiguousarray(rows_CT).data.cast("B")
    period, total = len(content), len(content) // len(rows_CT) * channels
    parts: list[bytes | memoryview] = [_MAGIC, _DESCRIPTOR, struct.pack("<I", total)]
    for start in range(0, period, _BLOCK):
        piece = content[start : start + _BLOCK]
        parts += [_block_header(_RAW, len(piece), last=start + len(piece) == total), piece]
    for start in range(period, total, _BLOCK):
        block = _match(period, min(_BLOCK, total - start))
        parts += [_block_header(_COMPRESSED, len(block), last=start + _BLOCK >= total), block]
    return b"".join(parts)


def _block_header(kind: int, size: int, *, last: bool) -> bytes:
    return (last | kind << 1 | size << 3).to_bytes(3, "little")


@lru_cache(maxsize=64)  # windows of a recording are of one size
def _match(offset: int, length: int) -> bytes:
    """A block without literals and with one sequence: `length` bytes from `offset` bytes back."""
    # 1 to 3 stand for offsets that were used before
    value = offset + 3
    offset_code = value.bit_length() - 1
    least, length_code, length_bits = next(match for match in reversed(_MATCHES) if match[0] <= length)
    # read from the end: a one, then the bits that the codes leave open
    bits = 1 << offset_code | value - (1 << offset_code)
    bits = bits << length_bits | length - least
    stream = bits.to_bytes(-(-bits.bit_length() // 8), "little")
    # no literals; one sequence; each of the three codes given once (RLE mode): no literals, offset, length
    return bytes([0, 1, 0b01_01_01_00, 0, offset_code, length_code]) + stream
