"""Which files a recording is made of: samples and markers beside a header, parts of a split file, the contents of a folder.

What is read must be hashed, or a replaced file of samples goes unnoticed; and what belongs to a recording must not be listed as
one of its own.
"""

from __future__ import annotations

import configparser
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from eegprep.errors import SourceError, ToolkitError
from eegprep.folders import is_folder, is_there
from eegprep.readers.sizes import held_bytes


@dataclass(frozen=True)
class Parts:
    """The files of one recording.

    files: all that is read for it, the one to open first.
    oddities: (code, message) of what does not fit but costs nothing: a renamed pointer, lost markers.
    problem: why it cannot be read, when that is known without opening it.
    """

    files: tuple[Path, ...]
    oddities: tuple[tuple[str, str], ...] = ()
    problem: ToolkitError | None = None


def parts_of(path: Path) -> Parts:
    """The files that are read for the recording `path`.

    Raises:
        SourceError: its name has bytes that are not UTF-8, which no record of it could hold.
    """
    _check_utf8(path)
    if is_folder(path):
        inside = sorted(item for item in path.rglob("*") if not is_folder(item) and not item.name.startswith("."))
        return Parts((path, *inside), problem=next(filter(None, map(not_here, inside)), None))
    lost = not_here(path)
    if lost is not None:
        return Parts((path,), problem=lost)
    finder = _FINDERS.get(path.suffix.lower())
    try:
        parts = Parts((path,)) if finder is None else finder(path)
    except OSError as error:
        return Parts((path,), problem=unreadable(path, error))
    for companion in parts.files[1:]:
        lost = not_here(companion) or _elsewhere(companion, path)
        if lost is not None:
            return Parts((path,), parts.oddities, lost)
    return parts


def _check_utf8(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SourceError(f"{path.name!a}: a file name with bytes that are not UTF-8", "rename the file") from None


def _elsewhere(companion: Path, header: Path) -> ToolkitError | None:
    """A companion that is really in another folder than its header: a stranger's header could make any file of this machine EEG.

    Links into git-annex, and links that lead where the header's own link leads, are how people keep their data.
    """
    real = os.path.realpath(companion)
    homes = {os.path.realpath(header.parent), os.path.dirname(os.path.realpath(header))}  # noqa: PTH120
    if any(real.startswith(home.rstrip(os.sep) + os.sep) for home in homes) or f"{os.sep}.git{os.sep}annex{os.sep}" in real:
        return None
    return SourceError(
        f"{header.name}: its file {companion.name} is a link to another folder", "put the file itself beside the header"
    )


def not_here(path: Path) -> ToolkitError | None:
    """What is wrong with a file whose content is elsewhere: a link that leads nowhere, or a pointer of git-annex or Git LFS."""
    if path.is_symlink() and not is_there(path):
        return _fetch_first(path, "is a link to content that has not been fetched" if ".git/annex" in str(path.readlink()) else
                            f"is a link to {path.readlink().name}, which is not there")  # fmt: skip
    try:
        # a pointer is a few lines of text; no recording is as short
        if is_there(path) and path.stat().st_size <= _POINTER_BYTES:
            with path.open("rb") as file:
                head = file.read(_POINTER_BYTES)
            if head.startswith((b"/annex/objects/", b"version https://git-lfs")):
                return _fetch_first(path, "is a pointer to content that has not been fetched")
    except OSError as error:
        return unreadable(path, error)
    return None


_POINTER_BYTES = 1024


def _fetch_first(path: Path, what: str) -> SourceError:
    return SourceError(
        f"{path.name}: {what}", f"run `datalad get {path.name}`, `git annex get {path.name}` or `git lfs pull` in its folder"
    )


def closed(folder: Path) -> SourceError:
    """Of a folder that cannot be looked into."""
    return SourceError(f"{folder.name}: this account may not look into the folder", "give it the right to (chmod u+rx)")


def unreadable(path: Path, error: OSError) -> SourceError:
    """In the words of this toolkit what the operating system says."""
    if isinstance(error, PermissionError):
        return SourceError(f"{path.name}: this account may not read it", "give it the right to read the file (chmod u+r)")
    return SourceError(f"{path.name}: cannot be read ({error.strerror or error})", "check the disk, or leave the file out")


# -------------------------------------------------------------------------------------------------------- BrainVision


@dataclass(frozen=True)
class BrainVision:
    """What the header of a BrainVision recording says of its files, and what is really there.

    data, markers: the files to read, None when missing. stale: header pointers that were replaced by a file of the header's name.
    """

    data: Path | None
    markers: Path | None
    data_named: str
    markers_named: str
    channels: int
    sample_bytes: int  # of all channels together, 0 where the header does not tell
    points: int  # samples that the header promises, 0 where it does not
    stale: tuple[str, ...] = ()
    plain: bool = True  # both pointers are bare names
    value_type: str = ""  # of a value, as numpy writes it, where all channels of a sample follow each other; "" for other layouts


def read_brainvision(path: Path) -> BrainVision:
    """Pointers of a `.vhdr` or `.ahdr` file.

    Raises:
        SourceError: no header of this kind.
    """
    text = decode(path.read_bytes())
    # free text follows, which no parser of INI files reads
    body = text.partition("[Comment]")[0]
    # `%` and lines without "=" occur in genuine headers
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True, delimiters=("=",))
    start = body.find("[")
    try:
        parser.read_string(body[start:] if start >= 0 else "")
        common = parser["Common Infos"]
        binary = parser["Binary Infos"] if parser.has_section("Binary Infos") else {}
        channels = int(common.get("NumberOfChannels", "0"))
    except (configparser.Error, KeyError, ValueError) as error:
        raise SourceError(f"{path.name}: not a BrainVision header ({error})", "export the recording again") from None
    width = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}.get((binary.get("BinaryFormat") or "").upper(), 0)
    stale: list[str] = []

    def locate(key: str, ending: str) -> tuple[Path | None, str]:
        named = (common.get(key) or "").strip().replace("$b", path.stem)
        # only the bare name counts: a header never points outside its own folder
        bare = re.split(r"[\\/]", named)[-1]
        if bare and _exists(path.with_name(bare)):
            return path.with_name(bare), bare
        candidates = [path.with_suffix(ending), path.with_suffix(ending.upper())]
        other = next((item for item in candidates if _exists(item)), None)
        if other is not None and bare:
            stale.append(f"the header names {bare}, which is not there; {other.name}, which lies beside it, is read")
        return other if bare or key == "DataFile" else None, bare

    data, data_named = locate("DataFile", ".eeg")
    if data is None and _exists(path.with_suffix(".dat")):
        data = path.with_suffix(".dat")
        stale.append(f"the header names {data_named}, which is not there; {data.name}, which lies beside it, is read")
    markers, markers_named = locate("MarkerFile", ".vmrk")
    points = (common.get("DataPoints") or "").strip()
    plain = not re.search(r"[\\/]", f"{common.get('DataFile') or ''}{common.get('MarkerFile') or ''}")
    return BrainVision(
        data, markers, data_named, markers_named, channels, channels * width, int(points) if points.isdigit() else 0, tuple(stale), plain,
        _value_type(common, binary),
    )  # fmt: skip


def _value_type(common: Mapping[str, str], binary: Mapping[str, str]) -> str:
    """Of multiplexed little-endian values that `readers.frames` reads."""

    def said(section: Mapping[str, str], key: str) -> str:
        return (section.get(key) or "").strip().upper()

    usual = (
        said(common, "DataFormat") == "BINARY"
        and said(common, "DataOrientation") == "MULTIPLEXED"
        and said(common, "DataType") in ("", "TIMEDOMAIN")
        and said(binary, "UseBigEndianOrder") in ("", "NO")
    )
    return {"INT_16": "<i2", "IEEE_FLOAT_32": "<f4"}.get(said(binary, "BinaryFormat"), "") if usual else ""


def _exists(path: Path) -> bool:
    """Also of a link that leads nowhere, which is named later; never raises, as Path.exists does without permission."""
    return os.path.lexists(path)


def decode(content: bytes) -> str:
    """Text of a header: UTF-8, else Latin-1, which takes every byte."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _brainvision(path: Path) -> Parts:
    try:
        header = read_brainvision(path)
    except SourceError as error:
        return Parts((path,), problem=error)
    oddities = [("renamed", text) for text in header.stale]
    if header.data is None:
        return Parts((path,), tuple(oddities), SourceError(
            f"{path.name}: its samples are missing: the header names {header.data_named or 'no file'}, and neither that nor "
            f"{path.stem}.eeg lies beside it", "put the .eeg file beside the header under the name that the header gives",
        ))  # fmt: skip
    if header.markers is None and header.markers_named:
        oddities.append(("markers", f"{header.markers_named}, the marker file that the header names, is missing: no events"))
    files = [path, header.data, *([header.markers] if header.markers else [])]
    if header.sample_bytes and is_there(header.data):
        oddities += _cut(header, header.data)
    return Parts(tuple(files), tuple(oddities))


def _cut(header: BrainVision, data: Path) -> list[tuple[str, str]]:
    """Whether the samples end before the header or the markers say so."""
    size = data.stat().st_size
    samples, rest = divmod(size, header.sample_bytes)
    marks = [] if header.markers is None or not_here(header.markers) else _marker_samples(header.markers)
    beyond = sum(1 for sample in marks if sample > samples)
    signs = []
    if rest:
        signs.append(f"it ends in the middle of a sample ({size:,} bytes are {samples:,} samples and {rest} bytes)")
    if header.points > samples:
        signs.append(f"it ends after {samples:,} of {header.points:,} samples")
    if beyond:
        signs.append(f"{beyond} of {len(marks)} markers lie behind its end")
    return [("cut", f"{data.name} is incomplete: {'; '.join(signs)}")] if signs else []


def _marker_samples(path: Path) -> list[int]:
    """Places of the markers, samples from 1."""
    rows = re.findall(r"(?m)^Mk\d+=([^,]*),[^,]*,(\d+)", decode(path.read_bytes()))
    return [int(sample) for kind, sample in rows if kind.strip() != "New Segment"]


@contextmanager
def openable(path: Path) -> Iterator[Path]:
    """The file to hand to a reader: `path`, or a copy of its header whose pointers are right, for as long as it is read.

    Readers follow the header's pointers, which may be out of date, or lead out of the folder.
    """
    if path.suffix.lower() in (".vhdr", ".ahdr", ".set", ".lay") and (problem := parts_of(path).problem) is not None:
        raise problem
    if path.suffix.lower() not in (".vhdr", ".ahdr"):
        yield path
        return
    header = read_brainvision(path)
    right = not header.stale and (header.markers is not None or not header.markers_named) and header.plain
    if right or header.data is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="eegprep-") as folder:
        content = path.read_bytes()
        for key, target, ending in ((b"DataFile", header.data, b".eeg"), (b"MarkerFile", header.markers, b".vmrk")):
            name = b"recording" + ending if target is not None else b""
            content = re.sub(rb"(?mi)^" + key + rb"[ \t]*=[^\r\n]*", key + b"=" + name if name else b"", content)
            if target is not None:
                # a link, not a copy: samples can be gigabytes
                (Path(folder) / name.decode()).symlink_to(target.absolute())
        copy = Path(folder) / path.name
        copy.write_bytes(content)
        yield copy


# ------------------------------------------------------------------------------------------------------------ EEGLAB


def _eeglab(path: Path) -> Parts:
    named, data = _eeglab_data(path), path.with_suffix(".fdt")
    if named == "":
        return Parts((path,))
    bare = re.split(r"[\\/]", named or "")[-1]
    if bare and _exists(path.with_name(bare)):
        return Parts((path, path.with_name(bare)))
    if _exists(data):
        stale = f"the header names {bare}, which is not there; {data.name}, which lies beside it, is read"
        return Parts((path, data), (("renamed", stale),) if bare else ())
    if named is None:
        return Parts((path,))
    return Parts((path,), problem=SourceError(
        f"{path.name}: its samples are missing: it names {bare}, and neither that nor {data.name} lies beside it",
        "put the .fdt file beside the .set file",
    ))  # fmt: skip


def _eeglab_data(path: Path) -> str | None:
    """The file of samples that a `.set` names; "" when it holds them itself, None when it cannot be looked into."""
    from scipy.io import loadmat

    # a file that holds its samples is large, if not before it is unfolded, and need not be opened for this
    if held_bytes(path) > 32_000_000:
        return ""
    try:
        content = loadmat(path, variable_names=["EEG", "data", "datfile"], squeeze_me=True, struct_as_record=False)
    except Exception:  # HDF5 (version 7.3), or no MATLAB file: reading it will tell
        return None
    eeg = content.get("EEG")
    data = getattr(eeg, "data", None) if eeg is not None else content.get("data")
    return data if isinstance(data, str) else None if data is None else ""


# --------------------------------------------------------------------------------------------------------------- FIF

_PART = re.compile(r"(?P<first>.+)-(?P<number>\d+)(?P<ending>\.fif(?:\.gz)?)", re.IGNORECASE)
_BIDS_PART = re.compile(r"(?P<before>.+_split-)(?P<number>\d+)(?P<after>.*\.fif(?:\.gz)?)", re.IGNORECASE)


def _fif(path: Path) -> Parts:
    """A FIF file and the parts that it goes on in: they are named in it, so MNE-Python is asked where a candidate lies beside."""
    named = _BIDS_PART.fullmatch(path.name)
    # a later part is read with its first one; alone it would be taken for a whole recording
    if named is not None and int(named["number"]) > 1 and not _exists(_part(path, named, 1)):
        first = _part(path, named, 1).name
        return Parts((path,), problem=SourceError(
            f"{path.name}: is part {int(named['number'])} of a split recording, and its first part, {first}, is not there",
            "put all parts into one folder under the names that they were written with",
        ))  # fmt: skip
    if not _may_go_on(path):
        return Parts((path,))
    import mne

    try:
        # MaxShield concerns the magnetometers, not the EEG
        raw = mne.io.read_raw_fif(path, preload=False, allow_maxshield=True, verbose="error")
    except ValueError as error:
        if "plit raw file" not in str(error):
            return Parts((path,))
        return Parts((path, *_parts_beside(path)), problem=SourceError(
            f"{path.name}: a part of this split recording is missing", "put all parts beside it under the names that they were written with"
        ))  # fmt: skip
    except Exception:  # reading it will tell
        return Parts((path,))
    return Parts((path, *(Path(str(name)) for name in raw.filenames[1:] if name is not None)))


def _part(path: Path, named: re.Match[str], number: int) -> Path:
    return path.with_name(f"{named['before']}{number:0{len(named['number'])}d}{named['after']}")


def _parts_beside(path: Path) -> list[Path]:
    """Files that are called as later parts of a FIF file are."""
    named = _BIDS_PART.fullmatch(path.name)
    if named is not None:
        pattern = re.escape(named["before"]) + r"\d+" + re.escape(named["after"])
    else:
        stem, ending = re.match(r"(.+?)(\.fif(?:\.gz)?)$", path.name, re.IGNORECASE).groups()  # type: ignore[union-attr]
        pattern = re.escape(stem) + r"-\d+" + re.escape(ending)
    return sorted(other for other in path.parent.iterdir() if re.fullmatch(pattern, other.name) and other != path)


def _may_go_on(path: Path) -> bool:
    """Whether files beside it are called as its later parts."""
    bids, plain = _BIDS_PART.fullmatch(path.name), _PART.fullmatch(path.name)
    if bids is not None:
        return int(bids["number"]) == 1 or _exists(_part(path, bids, int(bids["number"]) + 1))
    following = None if plain is None else path.with_name(f"{plain['first']}-{int(plain['number']) + 1}{plain['ending']}")
    return bool(_parts_beside(path)) or (following is not None and _exists(following))


# ------------------------------------------------------------------------------------------------------ other formats


def _beside(*endings: str) -> Callable[[Path], Parts]:
    """Files of the same name with these endings, in any case."""

    def find(path: Path) -> Parts:
        names = {f"{path.stem}{ending}".casefold() for ending in endings} | {
            f"{path.name}{ending}".casefold() for ending in endings
        }
        others = sorted(item for item in path.parent.iterdir() if item.name.casefold() in names and item != path)
        return Parts((path, *others))

    return find


def _persyst(path: Path) -> Parts:
    named = re.search(r"(?im)^\s*File\s*=\s*(.+?)\s*$", decode(path.read_bytes()))
    names = [re.split(r"[\\/]", named[1])[-1]] if named else []
    others = [path.with_name(name) for name in (*names, f"{path.stem}.dat") if _exists(path.with_name(name))]
    return Parts((path, *dict.fromkeys(others)))


_FINDERS: dict[str, Callable[[Path], Parts]] = {
    ".vhdr": _brainvision,
    ".ahdr": _brainvision,
    ".set": _eeglab,
    ".fif": _fif,
    ".gz": lambda path: _fif(path) if path.name.lower().endswith(".fif.gz") else Parts((path,)),
    ".lay": _persyst,
    ".eeg": _beside(".pnt", ".21e", ".log"),  # Nihon Kohden; BrainVision's .eeg is opened through its header
    ".cdt": _beside(".dpa", ".dpo", ".cef", ".ceo"),
    ".dap": _beside(".dat", ".rs3", ".cef", ".res"),
    ".data": _beside(".head"),
    ".nxe": _beside(".xml"),
}
