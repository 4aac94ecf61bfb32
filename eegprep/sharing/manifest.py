"""What is published: every file with its size and SHA-256, in a manifest that carries a digest of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eegprep.errors import CheckpointError
from eegprep.provenance import sha256, sha256_file
from eegprep.sealed import DIGEST, digest_of, read_sealed

MANIFEST, CARD, CROISSANT = "manifest.json", "README.md", "croissant.json"
UNLISTED = (MANIFEST, CARD, CROISSANT, ".gitattributes")  # written after it, or by the Hub
FORMAT = "eeg-dreamdiff-manifest"

Files = Mapping[str, Path | bytes]  # name in the repository -> a file on this machine, or its content


def files_of(folder: Path) -> dict[str, Path]:
    """All files in a folder by their names relative to it, sorted; hidden ones are left out."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {name.as_posix(): folder / name for name in names if not any(part.startswith(".") for part in name.parts)}


def as_json(content: Any) -> bytes:
    """JSON as every file here is written."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def manifest_of(files: Files, **more: Any) -> dict[str, Any]:
    """Size and SHA-256 of every file, with further facts about the whole."""
    listed = {
        name: {
            "bytes": len(content) if isinstance(content, bytes) else content.stat().st_size,
            "sha256": sha256(content) if isinstance(content, bytes) else sha256_file(content),
        }
        for name, content in sorted(files.items()) if name not in UNLISTED
    }  # fmt: skip
    content = {"format": FORMAT, "version": 1, "files": listed, **more}
    return {**content, DIGEST: digest_of(content)}


def check_manifest(folder: Path, *, digest: Callable[[Path], str] = sha256_file, partial: bool = False) -> bool:
    """Compare a folder with its manifest; False when it has none, as what others publish.

    Args:
        digest: of a file. partial: files that are not here are left out, for a copy of chosen files.

    Raises:
        CheckpointError: files that are altered, missing or not listed; the first ones are named.
    """
    if not (folder / MANIFEST).is_file():
        return False
    content = read_sealed(folder / MANIFEST)
    fix = "download it again; if that does not help, tell whoever published it"
    if content is None or content.get("format") != FORMAT or not isinstance(content.get("files"), dict):
        raise CheckpointError(f"{folder / MANIFEST}: not as it was written", fix)
    listed, here = content["files"], files_of(folder)
    problems = [f"{name} is not in the manifest" for name in here if name not in listed and name not in UNLISTED]
    problems += [
        f"{name} has another SHA-256 than the manifest"
        for name, path in here.items() if name in listed and digest(path) != listed[name]["sha256"]
    ]  # fmt: skip
    problems += [] if partial else [f"{name} is missing" for name in listed if name not in here]
    if problems:
        rest = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"{folder}: {'; '.join(problems[:3])}{rest}", fix)
    return True
