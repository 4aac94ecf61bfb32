"""JSON files: read without believing them, and written with a digest of themselves.

With a digest a flipped bit in a figure or a position is noticed when the file is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegprep import atomic
from eegprep.provenance import sha256_json

DIGEST = "sha256"


def digest_of(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as it is after reading, without the digest itself; order and blanks do not count."""
    return sha256_json(json.loads(json.dumps({key: value for key, value in content.items() if key != DIGEST})))


def is_whole(content: Any) -> bool:
    """Whether the content is what was written."""
    return isinstance(content, Mapping) and content.get(DIGEST) == digest_of(content)


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with its digest, whole or not at all."""
    atomic.write_json(path, {**content, DIGEST: digest_of(content)})


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file, or something else in it (no JSON, a list, nested too deep)."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_sealed(path: Path) -> dict[str, Any] | None:
    """The content without its digest; None where there is no file, or where it is not what was written."""
    content = read_object(path)
    return {key: value for key, value in content.items() if key != DIGEST} if content is not None and is_whole(content) else None
