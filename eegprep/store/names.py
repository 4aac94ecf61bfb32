"""Names and paths out of a store are data: what they may look like, and the one way to open a file that a store names.

Nothing that a store says leads out of its folder: no absolute name, no `..`, no link, no device.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from eegprep.errors import StoreError

_BAD = '/\\:*?"<>|\0\n'
# leading dots belong to hidden folders of writers, leading `__` to zarr; the rest is what some file system refuses
_PART = r'(?!__)[^./\\:*?"<>|\0\n][^/\\:*?"<>|\0\n]*'
_RELATIVE = re.compile(rf"{_PART}(?:/{_PART})*")
_FIX = "get the store from somebody you trust; nothing was read or written"


def check_name(name: str, what: str) -> str:
    """`name` as it is, if it can be the name of a zarr group and of a folder."""
    if not isinstance(name, str) or not name or name.startswith((".", "__")) or name == "zarr.json" or set(name) & set(_BAD):
        raise StoreError(f"{what} {name!r} cannot be the name of a zarr group", "use letters, digits, '-', '_' and '.'")
    return name


def check_key(key: str, where: str) -> str:
    """`dataset/subject` as it is, if both can be names of groups.

    Raises:
        StoreError: it has another form.
    """
    parts = key.split("/")
    if len(parts) != 2:
        raise StoreError(f"{where}: {key!r} is no group of the form dataset/subject", _FIX)
    for part in parts:
        try:
            check_name(part, "group")
        except StoreError as error:
            raise StoreError(f"{where}: {error.problem}", _FIX) from None
    return key


def check_relative(path: str, where: str) -> str:
    """A file name relative to its store or group, as it is, if it cannot lead out of it."""
    if not isinstance(path, str) or not _leads_inside(path):
        raise StoreError(f"{where}: names the file {path!r}, which is not inside it", _FIX)
    return path


@lru_cache(maxsize=1024)  # the same dozen names in every group of a store
def _leads_inside(path: str) -> bool:
    return _RELATIVE.fullmatch(path) is not None


def inside(root: Path, relative: str) -> Path:
    """`root / relative` when no link leads to it; errors as in `place_inside`."""
    return Path(place_inside(root, relative))


def place_inside(root: Path, relative: str) -> str:
    """`root / relative` as text when no link leads to it.

    Raises:
        StoreError: the name leads out of `root`, or a part of it is a link.
    """
    with suppress(FileNotFoundError, NotADirectoryError):  # what is not there is no link; whoever opens it will say so
        status_inside(root, relative)
    return os.path.join(root, relative)  # noqa: PTH118


def status_inside(root: Path, relative: str, plain: set[str] | None = None) -> os.stat_result:
    """The status of `root / relative` when no link leads to it.

    Args:
        plain: folders that are known to be no links; those on the way are added. For many files of one group, looked at in one go.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not there.
        StoreError: the name leads out of `root`, or a part of it is a link.
    """
    check_relative(relative, str(root))
    path, known = os.fspath(root), set() if plain is None else plain
    # once for each file of a store: comparing real paths takes four times as long, pathlib ten times
    *above, last = relative.split("/")
    for part in above:
        path = f"{path}{os.sep}{part}"
        if path not in known:
            _refuse_link(path, os.lstat(path))
            known.add(path)
    path = f"{path}{os.sep}{last}"
    status = os.lstat(path)
    _refuse_link(path, status)
    return status


def _refuse_link(path: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise StoreError(f"{path}: is a link, or lies behind one", "put the files themselves into the store")


def open_inside(root: Path, relative: str, plain: set[str] | None = None) -> int:
    """A handle for reading a regular file of a store; `plain` as in `status_inside`.

    Raises:
        FileNotFoundError: it is not there.
        StoreError: it is reached through a link, or is a folder, pipe, socket or device.
    """
    path = os.path.join(root, relative)  # noqa: PTH118
    try:
        if not stat.S_ISREG(status_inside(root, relative, plain).st_mode):
            raise StoreError(f"{path}: is no regular file", "remove it, and make the group again")
        # O_NOFOLLOW: a link may have been put there since; O_NONBLOCK: opening a pipe would wait for its writer
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})", "check the disk and the permissions") from None


def read_inside(root: Path, relative: str, plain: set[str] | None = None) -> bytes:
    """The bytes of a regular file of a store; errors as in `open_inside`."""
    with open(open_inside(root, relative, plain), "rb", buffering=0) as file:
        try:
            return file.readall()
        except OSError as error:
            raise StoreError(f"{root / relative}: cannot be read ({error.strerror})", "check the disk") from None


def folders(folder: Path) -> list[Path]:
    """The visible folders in `folder`, sorted.

    Raises:
        StoreError: one of them is a link: whoever writes there would write outside of the store.
    """
    names = []
    with os.scandir(folder) as entries:  # says of each entry what it is, where pathlib would ask once more
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                raise StoreError(f"{entry.path}: is a link", "put the files themselves into the store")
            if entry.is_dir():
                names.append(entry.name)
    return [folder / name for name in sorted(names)]
