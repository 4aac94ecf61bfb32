"""Which reader takes a file, and what a person is told when none can."""

from __future__ import annotations

import glob
import gzip
import logging
import re
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eegprep.errors import SourceError, ToolkitError
from eegprep.readers import arrays, edf, serving_copy, tables, xdf
from eegprep.readers.content import Content, Note, Reading, needs_package
from eegprep.readers.raws import content_of, quiet_mne
from eegprep.readers.sizes import struct_fields
from eegprep.recording import Event

if TYPE_CHECKING:
    from mne import BaseEpochs
    from mne.io import BaseRaw


# ours: slower or faster than any amplifier, so that what is derived from the rate stays within bounds, Hz
SLOWEST, FASTEST = 0.01, 1e6


def open_content(path: Path, reading: Reading | None = None) -> Content:
    """A file of any format, open: its header and events are read, its signal when `Content.read` is called.

    Raises:
        SourceError: it is missing, damaged, no EEG file, of an impossible rate, or needs a package that is not installed.
    """
    content = _opened(path, reading or Reading())
    for channel in content.channels:
        if not SLOWEST <= channel.rate <= FASTEST:
            raise SourceError(
                f"{path.name}: its header gives {channel.name} a rate of {channel.rate:g} Hz ({SLOWEST:g} to {FASTEST:g})",
                "correct the header, or leave the file out",
            )
    return content


def _opened(path: Path, reading: Reading) -> Content:
    if not path.exists():
        raise SourceError(f"{path.name}: no such file", "check the path")
    suffix = path.suffix.lower()
    # MNE-Python reads packed FIF files itself
    if suffix == ".gz" and not path.name.lower().endswith(".fif.gz"):
        return _unpacked(path, reading)
    if suffix in (".bz2", ".xz", ".zip", ".7z", ".rar", ".tar", ".tgz"):
        raise SourceError(f"{path.name}: compressed files of this kind are not read", "unpack it first (gzip is read as it is)")
    if suffix in edf.SUFFIXES:
        return edf.read(path)
    if suffix in tables.SUFFIXES:
        return tables.read(path, reading)
    if suffix in arrays.SUFFIXES:
        return arrays.read(path, reading)
    if suffix in xdf.SUFFIXES:
        return xdf.read(path, reading)
    if suffix in serving_copy.SUFFIXES:
        return serving_copy.read(path, reading)
    with quiet_mne():
        return _with_mne(path)


# ours: tables of EEG unfold to 3 to 20 times their size; what unfolds to much more is made to fill a disk
_MOST_UNFOLDED, _SMALL = 200, 64_000_000


def _unpacked(path: Path, reading: Reading) -> Content:
    """A gzip file, unpacked into a temporary folder that lives as long as the content."""
    folder = tempfile.TemporaryDirectory(prefix="eegprep-")
    inner = Path(folder.name) / path.stem
    most = max(_SMALL, _MOST_UNFOLDED * path.stat().st_size)
    try:
        with gzip.open(path, "rb") as source, inner.open("wb") as target:
            while piece := source.read(1 << 20):
                target.write(piece)
                if target.tell() > most:
                    raise SourceError(f"{path.name}: unfolds to more than {most:,} bytes", "give a file that holds a recording")
    except (OSError, EOFError) as error:
        raise SourceError(f"{path.name}: cannot be unpacked ({error})", "fetch the file again, or gunzip it yourself") from None
    content = open_content(inner, reading)

    def read(rows: Sequence[int], uv_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # the closure keeps the folder alive; it goes with the content
        assert folder
        return content.read(rows, uv_C)

    return replace(content, read=read)


def _with_mne(path: Path) -> Content:
    """A file through MNE-Python, with its losses as findings."""
    try:
        with _heard() as heard:
            raw, notes = _open(path)
        content = content_of(raw, [*notes, *_losses(heard)])
        return _with_gdf_units(content, path) if path.suffix.lower() == ".gdf" else content
    except ToolkitError:
        raise
    except Exception as error:  # readers raise anything, from ValueError to struct.error
        epochs = _epochs(path, error)
        if epochs is not None:
            return content_of_epochs(epochs)
        raise unreadable(path, error) from error


@contextmanager
def _heard() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what MNE-Python warns of, and print none of it."""
    # readers run at level "warning", or they would not warn at all; what they also log is held back here
    handlers = [(handler, handler.level) for handler in logging.getLogger("mne").handlers]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for handler, _ in handlers:
            handler.setLevel(logging.CRITICAL)
        try:
            yield heard
        finally:
            for handler, level in handlers:
                handler.setLevel(level)


def _open(path: Path) -> tuple[BaseRaw, list[Note]]:
    import mne

    suffix, options = path.suffix.lower(), {"preload": False, "verbose": "warning"}
    with path.open("rb") if path.is_file() else nullcontext() as file:
        begin = file.read(16) if file else b""
    # two makers use .cnt: files of ANT begin with RIFF, those of Neuroscan do not
    if suffix == ".cnt" and begin[:4] != b"RIFF":
        return _open_cnt(path)
    # .dat belongs to Curry as well
    if suffix == ".dat" and begin.startswith((b"BCI2000V", b"HeaderLen=")):
        return mne.io.read_raw_bci2k(path, **options), []
    if suffix == ".raw":
        return mne.io.read_raw_egi(path, **options), []
    if suffix in _PACKAGES:
        if find_spec(_PACKAGES[suffix]) is None:
            raise needs_package(path, _PACKAGES[suffix])
        reader = mne.io.read_raw_ant if suffix == ".cnt" else mne.io.read_raw_egi if suffix == ".mff" else mne.io.read_raw_curry
        return reader(path, **options), []
    if suffix == ".gdf":
        return _open_gdf(path)
    if suffix in (".lay", ".eeg"):
        return _open_with_person(path)
    if suffix in (".vhdr", ".ahdr"):
        try:
            return mne.io.read_raw_brainvision(path, **options), []
        except UnicodeDecodeError:
            return _open_brainvision_latin(path), []
    if suffix == ".set":
        fields = struct_fields(path, "EEG")
        if missing := [name for name in _EEGLAB_FIELDS if fields and name not in fields]:
            raise SourceError(
                f"{path.name}: its EEG structure has no field {missing[0]!r}",
                "complete it in EEGLAB and save it again, or leave it out",
            )
        try:
            return mne.io.read_raw_eeglab(path, **options), []
        except Exception as error:
            if "uint16_codec" not in str(error) and not isinstance(error, UnicodeDecodeError):
                raise
            return mne.io.read_raw_eeglab(path, uint16_codec="latin1", **options), []  # texts of an old MATLAB
    return mne.io.read_raw(path, **options), []


# without these MNE-Python ends in a traceback, after it has unfolded all samples
_EEGLAB_FIELDS = ("data", "srate", "chanlocs")
# formats that MNE-Python reads with the help of another package
_PACKAGES = {
    ".cnt": "antio",
    ".mff": "mffpy",
    ".nedf": "defusedxml",
    **dict.fromkeys((".dat", ".dap", ".rs3", ".cdt", ".cef"), "curryreader"),
}


def _open_brainvision_latin(path: Path) -> BaseRaw:
    """A BrainVision header or marker file whose texts are Latin-1, whatever its code page says: read from a copy in UTF-8."""
    import mne

    folder = tempfile.TemporaryDirectory(prefix="eegprep-")
    for name in {path.name, *re.findall(r"^(?:DataFile|MarkerFile)=(.+?)\s*$", _text_of(path), re.MULTILINE)}:
        part = path.parent / name.replace("$b", path.stem)
        if part.suffix.lower() in (".vhdr", ".ahdr", ".vmrk", ".amrk") and part.is_file():
            (Path(folder.name) / part.name).write_text(re.sub(r"(?m)^Codepage=.*$", "Codepage=UTF-8", _text_of(part)), "utf-8")
        elif part.is_file():
            (Path(folder.name) / part.name).symlink_to(part.resolve())
    raw = mne.io.read_raw_brainvision(Path(folder.name) / path.name, preload=False, verbose="warning")
    raw._unpacked = folder  # lives as long as the Raw
    return raw


def _text_of(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _read_nihon(path: Path, **options: Any) -> BaseRaw:
    """Texts of the log are UTF-8, or else Latin-1: MNE-Python leaves out what it cannot decode."""
    import mne

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        raw = mne.io.read_raw_nihon(path, **options)
    if any("Could not decode log" in str(warning.message) for warning in heard):
        return mne.io.read_raw_nihon(path, encoding="latin1", **options)
    for warning in heard:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return raw


def _open_with_person(path: Path) -> tuple[BaseRaw, list[Note]]:
    """Persyst and Nihon Kohden: an incomplete description of the person must not cost the recording, so it is read without."""
    import mne

    reader = mne.io.read_raw_persyst if path.suffix.lower() == ".lay" else _read_nihon
    try:
        return reader(path, preload=False, verbose="warning"), []
    except Exception as error:  # anything, from KeyError to UnboundLocalError
        with tempfile.TemporaryDirectory(prefix="eegprep-") as folder:
            for other in path.parent.glob(f"{glob.escape(path.stem)}.*"):
                if other != path and other.suffix.lower() != ".pnt":
                    (Path(folder) / other.name).symlink_to(other.resolve())
            bare = Path(folder) / path.name
            if path.suffix.lower() == ".lay":
                text = path.read_text("utf-8", "replace")
                named = re.search(r"^File=(.*?)\s*$", text, re.MULTILINE | re.IGNORECASE)
                data = path.parent / re.split(r"[\\/]", named[1])[-1] if named else path
                if named and data.exists() and not (Path(folder) / data.name).exists():
                    (Path(folder) / data.name).symlink_to(data.resolve())
                bare.write_text(re.sub(r"\[Patient\][^\[]*", _NOBODY, text, flags=re.IGNORECASE), "utf-8")
            else:
                bare.symlink_to(path.resolve())
            try:
                raw = reader(bare, preload=True, verbose="warning").set_meas_date(None)
            except Exception:
                raise error from None
            raw.info["subject_info"] = None
        return raw, [Note("header", "what the file says of the person is incomplete and was left out")]


_NOBODY = "[Patient]\nFirst=X\nSex=unknown\nHand=unknown\nBirthDate=01/01/01\nTestDate=01/01/2000\nTestTime=00:00:00\n"


def _open_gdf(path: Path) -> tuple[BaseRaw, list[Note]]:
    """A GDF file; where its signals have several rates, only those of the rate that most EEG signals have."""
    import mne

    raw = mne.io.read_raw_gdf(path, preload=False, verbose="warning")
    extras = raw._raw_extras[0]
    each = np.asarray(extras["n_samps"])[np.asarray(extras["sel"], int)]
    eeg = [index for index, kind in enumerate(raw.get_channel_types()) if kind == "eeg"]
    if len(set(each.tolist())) > 1 and eeg:
        rates, counts = np.unique(each[eeg], return_counts=True)
        # of two rates that are as frequent, the higher, as in `content.choose`
        main = rates[np.flatnonzero(counts == counts.max())[-1]]
        keep = [raw.ch_names[index] for index in range(len(each)) if each[index] == main]
        lost = [raw.ch_names[index] for index in eeg if each[index] != main]
        raw = mne.io.read_raw_gdf(path, include=keep, preload=True, verbose="warning")
        return raw, [Note("rate", "has another rate than most EEG channels", name) for name in lost]
    return raw, []


def _gdf_units(path: Path) -> dict[str, str]:
    """Units of a GDF file by channel, as text; MNE-Python takes all that it does not know for volts."""
    with path.open("rb") as file:
        content = file.read(256 * 4097)
    # GDF 1 has other fields, units as text among them
    old = float(content[4:8]) < 1.9
    count = struct.unpack_from("<I" if old else "<H", content, 252)[0]
    names = [content[256 + 16 * i : 272 + 16 * i].decode("latin-1").split("\0")[0].strip() for i in range(count)]
    if old:
        place = 256 + 96 * count
        units = [content[place + 8 * i : place + 8 * i + 8].decode("latin-1").split("\0")[0].strip() for i in range(count)]
    else:
        codes = struct.unpack_from(f"<{count}H", content, 256 + 102 * count)
        units = [_GDF_UNITS.get(code, "" if code in (0, 512) else f"code {code}") for code in codes]
    return dict(zip(names, units, strict=True))


def _with_gdf_units(content: Content, path: Path) -> Content:
    with path.open("rb") as file:
        # the units that MNE-Python itself brings to volts
        brought = ("uV",) if float(file.read(8)[4:]) < 1.9 else ("uV", "mV")
    units = _gdf_units(path)
    channels = tuple(
        channel if units.get(channel.name, "") in brought else replace(channel, unit=units.get(channel.name, ""))
        for channel in content.channels
    )
    return replace(content, channels=channels)


# volts are 4256 in ISO/IEEE 11073-10101, the decimal factor is in the five lowest bits
_GDF_UNITS = {4256: "V", 4274: "mV", 4275: "uV", 4276: "nV"}

# ours: what a channel of EEG can have before any filter, uV, how rough it can be (white noise: 1.41), and how many have to be so
_PLAUSIBLE_UV, _ROUGHEST, _LEAST_SHARE = (0.5, 3000.0), 1.2, 0.6


def _open_cnt(path: Path) -> tuple[BaseRaw, list[Note]]:
    """A Neuroscan file. Its header does not say how many bytes a sample has: what gives an EEG is right."""
    import mne

    opened, problem = {}, None
    # "auto" first: it is right for most files, and then there is nothing to note; without a number of samples it can only guess
    for size in ("auto", "int16", "int32") if _says_samples(path) else ("int16", "int32"):
        try:
            opened[size] = mne.io.read_raw_cnt(path, data_format=size, preload=False, verbose="warning")
        except Exception as error:
            problem = problem or error
            continue
        if _plausible(opened[size]):
            note = Note("sample_size", f"samples read as {size}: the other size gives no EEG")
            return opened[size], [] if size == "auto" else [note]
    if not opened:
        assert problem is not None
        raise problem
    return next(iter(opened.values())), []


def _says_samples(path: Path) -> bool:
    """Whether the header of a Neuroscan file gives the number of samples."""
    with path.open("rb") as file:
        file.seek(864)
        return any(file.read(4))


def _plausible(raw: BaseRaw) -> bool:
    """Whether ten seconds out of the middle look like EEG in volts."""
    middle, half = raw.n_times // 2, round(5 * raw.info["sfreq"])
    try:
        piece_CT = raw.get_data(picks="eeg", start=max(0, middle - half), stop=min(raw.n_times, middle + half)) * 1e6
    except Exception:
        return False
    if piece_CT.shape[1] < 8:
        return False
    spread_C = piece_CT.std(axis=1)
    rough_C = np.diff(piece_CT, axis=1).std(axis=1) / np.maximum(spread_C, 1e-12)
    good_C = (spread_C >= _PLAUSIBLE_UV[0]) & (spread_C <= _PLAUSIBLE_UV[1]) & (rough_C <= _ROUGHEST)
    return bool(good_C.mean() >= _LEAST_SHARE)


def _losses(heard: Sequence[warnings.WarningMessage]) -> list[Note]:
    """What MNE-Python only warns of although something is lost."""
    notes = []
    for warning in heard:
        text = " ".join(str(warning.message).split())
        match = re.search(r"Omitted (\d+) annotation", text)
        if match:
            notes.append(Note("events_outside", f"{match[1]} events lie outside the signal and are left out"))
    return notes


def _epochs(path: Path, error: BaseException) -> BaseEpochs | None:
    """The file as epochs, when it is one."""
    import mne

    name = path.name.lower()
    try:
        if name.endswith(".set") and "trials" in str(error):
            return mne.read_epochs_eeglab(path, verbose="error")
        if name.endswith((".fif", ".fif.gz")) and "No raw data" in str(error):
            return mne.read_epochs(path, preload=True, verbose="error")
    except Exception:
        return None
    return None


def content_of_epochs(epochs: BaseEpochs) -> Content:
    """Epochs as stretches of one recording, with the event of each where it lies in its epoch."""
    import mne

    data_ECT = epochs.get_data(copy=False)
    n_epochs, _, n_samples = data_ECT.shape
    sfreq = float(epochs.info["sfreq"])
    raw = mne.io.RawArray(data_ECT.transpose(1, 0, 2).reshape(data_ECT.shape[1], -1), epochs.info, verbose="error")
    labels = {code: label for label, code in epochs.event_id.items()}
    before = min(max(0.0, -epochs.tmin), n_samples / sfreq)
    events = tuple(
        Event(
            round(number * n_samples / sfreq + before, 9),
            round(n_samples / sfreq - before, 9),
            labels.get(int(code), str(int(code))),
        )
        for number, code in enumerate(epochs.events[:, 2])
    )
    seams = tuple((number * n_samples / sfreq,) * 2 for number in range(1, n_epochs))
    note = Note("epochs", f"holds {n_epochs} epochs of {n_samples} samples, not a recording; each epoch is a stretch of its own")
    return replace(content_of(raw, [note]), notes=events, triggers=(), pauses=seams)


def unreadable(path: Path, error: BaseException) -> SourceError:
    """What a reader's error means to a person: no advice for programmers, no path of this machine."""
    text = " ".join(str(error).split())
    package = re.search(r"pip install ([\w.-]+)", text) or re.search(r"[Nn]o module named '?([\w-]+)", text)
    if package:
        return needs_package(path, package[1])
    if "Unsupported file type" in text:
        return SourceError(
            f"{path.name}: not a format of EEG that is known here ({path.suffix or 'no ending'})",
            "give an EEG file, or leave it out",
        )
    if "No raw data" in text or "Could not find measurement data" in text:
        return SourceError(
            f"{path.name}: holds no recording (averages, a covariance or the like)", "give the recording, or leave it out"
        )
    # a report may be shared, and folders name people
    text = text.replace(f"{path.parent}/", "")
    text = re.split(r"(?:Please|Consider|You might|You may|Try |Use |pass |To |set `?\w+`? |Either )", text, maxsplit=1)[0].strip(
        " .,;"
    )[:200]
    return SourceError(f"{path.name}: cannot be read ({text or type(error).__name__})", "give a whole EEG file, or leave it out")
