"""Says what a file is when it is not the weights that it is named after: what failed and unfinished downloads leave behind."""

from __future__ import annotations

import re
from pathlib import Path

from eegprep.errors import CheckpointError, missing_path

_AGAIN = "download it again, and compare its size and SHA-256 with those its page states"


def check_weights_file(path: Path) -> bytes:
    """The first 512 bytes of a file that may hold weights.

    Raises:
        CheckpointError: missing, empty, a Git LFS pointer, a web page, a refusal in JSON, or an archive to unpack first.
    """
    if not path.is_file():
        raise missing_path(path, CheckpointError)
    with path.open("rb") as file:
        head = file.read(512)
    problem = not_weights(head)
    if problem is not None:
        raise CheckpointError(f"{path}: {problem[0]}", problem[1])
    return head


def not_weights(head: bytes) -> tuple[str, str] | None:
    """What a file with these first bytes is, and what to do, if it cannot hold weights; else None."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "the file is empty (0 bytes)", _AGAIN
    if not head.strip(b"\0"):
        return "the file holds nothing but zeros: its download did not finish", _AGAIN
    if text.startswith(b"version https://git-lfs"):
        size = re.search(rb"size (\d+)", head)
        of = f" of a file of {int(size[1]) / 1e9:.2g} GB" if size and len(size[1]) < 16 else ""
        return f"a Git LFS pointer{of}, not the file itself", "run `git lfs pull` in that folder, or download the file itself"
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<error")):
        return "a web page (HTML or XML), not a file of weights", "the download needs a login or another address; " + _AGAIN
    if text.startswith((b"{", b"[")):
        return "JSON text, not a file of weights: probably the refusal of a server", "read it, then " + _AGAIN
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")):
        return "a compressed archive, not a file of weights", "unpack it, and give the file inside"
    if head.startswith(b"\x89HDF"):
        return "an HDF5 file (Keras or TensorFlow), not PyTorch weights", "give weights saved by PyTorch or as safetensors"
    if head.startswith((b"GGUF", b"GGML", b"ggml")):
        return "a GGUF file, not PyTorch weights", "give weights saved by PyTorch or as safetensors"
    return None
