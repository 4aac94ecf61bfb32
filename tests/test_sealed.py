"""JSON files with a digest of themselves, and JSON of strangers."""

from __future__ import annotations

import json
import math

import pytest

from eegprep.sealed import digest_of, is_whole, read_object, read_sealed, write_sealed


def test_what_was_written_is_read_back(tmp_path):
    """Tuples become lists and keys texts, as everywhere in JSON; the digest is of what is read."""
    content = {"step": 7, "loss": 0.1 + 0.2, "pair": (1, "ä"), "none": None, "numbers": {1: math.inf}}
    write_sealed(tmp_path / "a.json", content)

    found = read_sealed(tmp_path / "a.json")

    assert found == {"step": 7, "loss": 0.1 + 0.2, "pair": [1, "ä"], "none": None, "numbers": {"1": math.inf}}
    assert is_whole(json.loads((tmp_path / "a.json").read_text())) and digest_of(content) == digest_of(found)


def test_no_flipped_bit_is_believed(tmp_path):
    """Each bit of the file: either it is refused, or nothing that is read is different (blanks between the parts)."""
    write_sealed(tmp_path / "a.json", {"step": 7, "name": "x"})
    whole, content = (tmp_path / "a.json").read_bytes(), read_sealed(tmp_path / "a.json")
    refused = 0
    for position in range(len(whole)):
        for bit in range(8):
            (tmp_path / "b.json").write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            found = read_sealed(tmp_path / "b.json")
            assert found in (None, content), (position, bit)
            refused += found is None
    assert refused > 8 * len(whole) * 0.9


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"{", b'{"a": "\xff"}', b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}", b"7"],
)
def test_what_is_no_object_is_nothing(tmp_path, content):
    """Empty, a list, cut, no UTF-8, nested too deep, a number without end: never an exception of the parser."""
    (tmp_path / "a.json").write_bytes(content)

    assert read_object(tmp_path / "a.json") is None and read_object(tmp_path / "none.json") is None
