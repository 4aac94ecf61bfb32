"""Tells a damaged or wrong file from the expected content."""

from __future__ import annotations

import re
import stat
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path, PurePosixPath

import requests

from eegprep import folders

BOMB_RATIO, BOMB_BYTES = 500, 20 * 10**9  # an archive that unpacks to more than both is refused


def content_problem(path: Path, name: str) -> str | None:
    """Why the bytes cannot be the file called `name`: a web page, a wrong beginning, another length than it tells itself."""
    with path.open("rb") as file:
        head = file.read(1 << 17)  # an EDF header of 500 channels
    size, suffix = path.stat().st_size, PurePosixPath(name).suffix.lower()
    if size == 0:
        return "an empty file came"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) and suffix not in (".html", ".htm"):
        return "a web page came instead of the file"
    # a zip archive has its table of contents at the end, so a cut one shows here
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return f"the zip archive is cut off ({size} bytes, without its table of contents)"
    if suffix == ".zip" and not head.startswith(b"PK"):
        return "it is not a zip archive"
    if suffix in (".edf", ".bdf"):
        return _edf_problem(head, size, suffix)
    if suffix == ".mat" and not (head.startswith((b"MATLAB", b"\x89HDF")) or _is_mat4(head)):
        return "it is not a MATLAB file"
    return None


def archive_problem(path: Path, free_bytes: int | None = None) -> str | None:
    """Why an archive must not be unpacked: members outside its folder, links, special files, or far too much content."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [(m.filename, m.file_size, stat.S_IFMT(m.external_attr >> 16)) for m in archive.infolist()]
        # 0: archives that were not made on Unix state no kind
        members = [(name, size, kind not in (0, stat.S_IFREG, stat.S_IFDIR)) for name, size, kind in members]  # type: ignore[misc]
    elif path.suffix.lower() in (".tar", ".tgz", ".gz", ".bz2", ".xz") and tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            members = [(m.name, m.size, not (m.isreg() or m.isdir())) for m in tar]  # type: ignore[misc]
    else:
        return None
    for name, _, special in members:
        # some archives of Windows part folders by backslashes
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", name):
            return f"member {name!r} would be written outside its folder"
        if special:
            return f"member {name!r} is a link or a special file"
    unpacked, packed = sum(size for _, size, _ in members), max(1, path.stat().st_size)
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * packed:
        return f"{packed} bytes would unpack to {unpacked}"
    free = folders.free_bytes(path.parent) if free_bytes is None else free_bytes
    if unpacked > free:
        return f"it unpacks to {unpacked} bytes, {free} are free on the disk"
    return None


def _edf_problem(head: bytes, size: int, suffix: str) -> str | None:
    """An EDF header tells its own length, the number of data records, and the samples in one (edfplus.info specification)."""
    try:
        header, records, channels = int(head[184:192]), int(head[236:244]), int(head[252:256])
        fields = head[256 + 216 * channels : 256 + 224 * channels]
        samples = sum(int(fields[8 * i : 8 * i + 8]) for i in range(channels)) if len(fields) == 8 * channels else None
    except ValueError:
        return f"it is not an {suffix[1:].upper()} file"
    if header != 256 * (channels + 1):
        return f"its header says {header} bytes for {channels} channels, which take {256 * (channels + 1)}"
    if samples is None or records < 0:  # more channels than were looked at, or a recording that was not closed
        return f"it ends inside its header of {header} bytes" if size < header else None
    expected = header + records * samples * (3 if suffix == ".bdf" else 2)
    # longer files are left to the reader: some recorders write notes behind the last record
    return f"it has {size} bytes, its header describes {expected}" if size < expected else None


def _is_mat4(head: bytes) -> bool:
    """A MATLAB 4 file begins with a small type code and plausible dimensions."""
    if len(head) < 20:
        return False
    values = [int.from_bytes(head[i : i + 4], "little") for i in range(0, 20, 4)]
    return values[0] < 5000 and values[3] in (0, 1) and 0 < values[4] < 256


def page_title(response: requests.Response) -> str:
    text = ""
    with suppress(requests.RequestException):
        # the title is near the beginning; a login page may be large
        text = next(response.iter_content(4096), b"").decode("utf-8", "replace")
    match = re.search(r"<title[^>]*>\s*(.*?)\s*</title>", text, re.IGNORECASE | re.DOTALL)
    return f"titled {match[1][:60]!r}" if match else "status 200"
