"""Data sets of OpenNeuro and NEMAR by id: the requested files become a BIDS folder in the data folder.

    openneuro:ds003825     s3.amazonaws.com/openneuro.org, listed without an account
    nemar:nm000232         data.nemar.org; signals as NEMAR's zarr copies (see `serving`), originals where those do not do

Only EEG and the text files that hold for it are brought, of the chosen people: resumed, compared with the published checksum, hashed,
and recorded as MOABB's files are. `listing.json` in the records keeps which version of a data set is here: files of another one
are refused by name, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from eegprep.atomic import write_json
from eegprep.catalogue import licences
from eegprep.catalogue.manifests import Source
from eegprep.catalogue.subjects import choose_subjects
from eegprep.download import serving
from eegprep.download.bucket import list_objects
from eegprep.download.data_folder import FetchRecords, data_folder_lock
from eegprep.download.documents import mirrored, read_json, read_url
from eegprep.download.fetch import PlanRow, require_licences
from eegprep.download.meter import Meter
from eegprep.download.transfer import download
from eegprep.errors import FetchError, SourceError
from eegprep.folders import state_folder
from eegprep.recording import ProgressCallback, SourceFile, natural_key
from eegprep.sealed import read_object

OPENNEURO = "https://s3.amazonaws.com/openneuro.org/"
NEMAR = "https://data.nemar.org/"
DESCRIPTION = "dataset_description.json"
# raw data only: what was computed from it has the same names
_NOT_RAW = {"derivatives", "sourcedata", "code", "stimuli", "phenotype"}
# the file of a recording that is opened; others of the same name belong to it
_RECORDING = re.compile(r"_eeg\.(edf|bdf|vhdr|set)(\.gz)?$", re.IGNORECASE)
_SIDECARS = ("_eeg.json", "_channels.tsv", "_events.tsv", "_electrodes.tsv", "_coordsystem.json")


@dataclass(frozen=True)
class Remote:
    """A file of an archive. checksum: ("md5" | "sha256" | "git", hex), or nothing where nobody publishes one."""

    name: str
    bytes: int
    url: str
    checksum: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Listing:
    """A data set as its archive lists it. version: what names this state of it. copies: zarr copies by the recording's path."""

    files: Mapping[str, Remote]
    version: str
    licence: str
    doi: str
    citation: str
    copies: Mapping[str, serving.Copy] = field(default_factory=dict)

    @property
    def subjects(self) -> list[str]:
        """People with EEG."""
        names = (PurePosixPath(name).parts for name in (*self.files, *self.copies))
        return sorted(
            {parts[0].removeprefix("sub-") for parts in names if parts[0].startswith("sub-") and "eeg" in parts[1:-1]},
            key=natural_key,
        )


@dataclass(frozen=True)
class Archived:
    """What is in the data folder. root: the BIDS folder. source: with licence, DOI and citation of the archive. files: by subject."""

    root: Path
    source: Source
    files: Mapping[str, Sequence[SourceFile]]


@dataclass(frozen=True)
class Expected:
    """One person of a data set that is not here, from its listing.

    bytes: of the files; `copies` are counted before compression. headers: (channels, samples, Hz) of the recordings whose length is listed.
    """

    subject: str
    recordings: int
    bytes: int
    headers: tuple[tuple[int, int, float], ...]


def is_here(source: Source, data_dir: Path) -> bool:
    """Whether all of the people asked for are in the data folder."""
    known = read_object(_place(source, data_dir))
    return known is not None and _all_held(source, known, FetchRecords(source, data_dir)) is not None


def expect_archive(source: Source, rate: float = 0.0) -> tuple[Source, list[Expected]]:
    """What would come of the people asked for, and the source with its licence: asks the archive for its listing, and downloads nothing.

    Raises:
        FetchError: as `list_archive`. UsageError: a person who is not in it.
    """
    listing = list_archive(source, rate)
    found = []
    for subject in _chosen(source, listing.subjects):
        files, copies = files_of_subject(listing, subject), _copies_of_subject(listing, subject)
        count = sum(_RECORDING.search(remote.name) is not None for remote in files) + len(copies)
        headers = tuple((copy.channels, copy.samples, copy.rate) for copy in copies if copy.most_bytes)
        found.append(Expected(subject, count, sum(remote.bytes for remote in files) + _bytes_of(source, copies), headers))
    return _described(source, _about(listing)), found


def ensure_archive(
    source: Source, data_dir: Path, *, offline: bool = False, accept: Iterable[str] = (), rate: float = 0.0,
    progress: ProgressCallback | None = None, failed: dict[str, FetchError] | None = None,
) -> Archived:  # fmt: skip
    """Files of the chosen people of an archive's data set.

    Args:
        offline: open no socket; what is missing is an error. accept: as in `fetch.ensure`.
        rate: Hz that is needed of the signal; a copy of NEMAR's with less is passed over where the original has more.
        failed: pass a dictionary to continue without people that cannot be had; it is filled with the reasons.

    Raises:
        FetchError: as for `fetch.ensure`; also a data set that is not here any more as it was. LicenceError: not accepted yet.
        UsageError: a person who is not in it.
    """
    root = data_dir / source.kind / source.target
    place = _place(source, data_dir)
    records = FetchRecords(source, data_dir)
    known = read_object(place)
    if known is not None and (subjects := _all_held(source, known, records)):
        return Archived(root, _described(source, known), {subject: records.files(subject) for subject in subjects})
    if offline:
        what = "it" if known is None else "all of the people asked for"
        raise FetchError(
            f"{source.spec}: {what} is not in {data_dir}, and this is offline", "run the same command without --offline once"
        )
    with data_folder_lock(data_dir, progress=progress):
        listing = list_archive(source, rate, progress)
        subjects = _chosen(source, listing.subjects)
        if not subjects:
            raise SourceError(f"{source.spec}: 0 people with EEG (least 1)", "look at its page: it may hold other signals only")
        records = FetchRecords(source, data_dir)
        if known is not None:
            _require_same(source, known, listing, records, root)
        described = _described(source, _about(listing))
        require_licences([_plan_row(described, listing, subjects, records)], accept)
        write_json(place, _about(listing))
        _bring(source, listing, subjects, records, root, data_dir, progress, failed)
    return Archived(root, described, {subject: records.files(subject) for subject in subjects if records.holds(subject)})


def plan_archive(source: Source, data_dir: Path) -> PlanRow:
    """What `ensure_archive` would bring: asks the archive for its listing, and downloads nothing else."""
    listing = list_archive(source, 0.0)
    return _plan_row(
        _described(source, _about(listing)), listing, _chosen(source, listing.subjects), FetchRecords(source, data_dir)
    )


def list_archive(source: Source, rate: float = 0.0, progress: ProgressCallback | None = None) -> Listing:
    """Ask the archive what there is.

    Raises:
        FetchError: no such data set, or no answer.
    """
    if progress:
        progress(0, 0, f"{source.spec}: asking for its listing")
    return _openneuro(source.target) if source.kind == "openneuro" else _nemar(source, rate)


def _openneuro(target: str) -> Listing:
    found = list_objects(OPENNEURO, f"{target}/")
    if not found:
        raise FetchError(f"openneuro:{target}: there is no such public data set", "check the id on openneuro.org")
    files = {}
    for item in found:
        name = item.key.removeprefix(f"{target}/")
        # of a file that was uploaded in parts the tag is no MD5
        checksum = ("md5", item.etag) if re.fullmatch(r"[0-9a-f]{32}", item.etag) else ("", "")
        files[name] = Remote(name, item.bytes, OPENNEURO + quote(item.key), checksum)
    version = hashlib.sha256(json.dumps(sorted((i.key, i.bytes, i.etag) for i in found)).encode()).hexdigest()
    return _listed(f"openneuro:{target}", files, version)


def _nemar(source: Source, rate: float) -> Listing:
    target = source.target
    manifest = read_json(f"{NEMAR}{target}/latest/manifest.json", missing=True)
    copies: Mapping[str, serving.Copy] = {}
    index = None if source.options.get("copy") == "originals" else serving.read_index(target)
    if index is not None:
        copies = serving.sufficient(index, rate)
    if manifest is None and not copies:
        raise FetchError(f"nemar:{target}: there is no such public data set", "check the id on nemar.org")
    files = {}
    for entry in manifest or ():
        try:
            name, size = str(entry["path"]), int(entry["size"])
            kind, value = str(entry.get("checksum_algorithm", "")), str(entry.get("checksum", ""))
            files[name] = Remote(name, size, str(entry["url"]), (kind, value))
        except (KeyError, TypeError, ValueError):
            raise FetchError(f"nemar:{target}: an entry of its manifest lacks path, size or address", "try again later") from None
    version = hashlib.sha256(json.dumps(sorted((f.name, f.bytes, f.checksum) for f in files.values())).encode()).hexdigest()
    listing = _listed(f"nemar:{target}", files, version)
    about = index.about if index is not None else {}
    return Listing(
        files, version, listing.licence if listing.licence != "unknown" else licences.spdx(about.get("license")),
        listing.doi or str(about.get("doi") or ""), listing.citation or str(about.get("citation") or ""), copies,
    )  # fmt: skip


def _listed(spec: str, files: Mapping[str, Remote], version: str) -> Listing:
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name:
            raise FetchError(f"{spec}: lists a file {name!r} outside of its folder", "tell the archive; nothing was downloaded")
    content: Mapping[str, Any] = {}
    if DESCRIPTION in files:
        try:
            loaded = json.loads((read_url(files[DESCRIPTION].url) or b"").decode("utf-8-sig"))
        except (ValueError, RecursionError):
            loaded = {}
        content = loaded if isinstance(loaded, dict) else {}
    authors = content.get("Authors")
    cited = ", ".join(str(name) for name in authors) if isinstance(authors, list) else ""
    citation = str(content.get("HowToAcknowledge") or "") or ". ".join(
        part for part in (cited, str(content.get("Name") or "")) if part
    )
    doi = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)", "", str(content.get("DatasetDOI") or ""))
    licence = content.get("License")
    return Listing(files, version, licences.spdx(licence if isinstance(licence, str) else ""), doi, citation)


def files_of_subject(listing: Listing, subject: str) -> list[Remote]:
    """Files of one person: recordings of EEG with all that belongs to them, or the sidecars alone where a copy holds the signal."""
    copied = {re.sub(r"\.[^.]+$", "", name) for name in listing.copies}
    chosen = []
    for name, remote in listing.files.items():
        parts = PurePosixPath(name).parts
        if parts[0] in _NOT_RAW or any(part.startswith(".") for part in parts):
            continue
        if len(parts) == 1:
            if name in (DESCRIPTION, "participants.tsv", "participants.json") or name.endswith(_SIDECARS):
                chosen.append(remote)
        elif parts[0] == f"sub-{subject}":
            sidecar = name.endswith(_SIDECARS)
            inside = "eeg" in parts[1:-1]
            if sidecar or (inside and re.sub(r"\.[^.]+$", "", name) not in copied):
                chosen.append(remote)
    return chosen


def _bring(
    source: Source, listing: Listing, subjects: Sequence[str], records: FetchRecords, root: Path, data_dir: Path,
    progress: ProgressCallback | None, failed: dict[str, FetchError] | None,
) -> None:  # fmt: skip
    missing = [subject for subject in subjects if not records.holds(subject)]
    meter = Meter(sum(remote.bytes for subject in missing for remote in files_of_subject(listing, subject)))
    first: FetchError | None = None
    for number, subject in enumerate(missing):
        done = len(subjects) - len(missing) + number

        def tell(here: int, _: int, name: str, done: int = done, subject: str = subject) -> None:
            meter.see(here)
            if progress:
                progress(done, len(subjects), f"{source.target} subject {subject}: {meter.text} ({name})")

        try:
            names = [_fetch_one(remote, root / remote.name, meter, tell) for remote in files_of_subject(listing, subject)]
            for copy in _copies_of_subject(listing, subject):
                names += serving.fetch_copy(copy, root, tell, signal=source.options.get("copy") != "ranges")
            relative = [path.relative_to(data_dir).as_posix() for path in sorted(set(names))]
            records.add(subject, {"files": relative, "provider": source.kind, "fetched": [listing.version]})
        except FetchError as error:
            first = first or error
            if failed is not None:
                failed[subject] = error
    if first is not None and failed is None:
        raise first


def _fetch_one(remote: Remote, path: Path, meter: Meter, tell: Any) -> Path:
    kind, value = remote.checksum
    if not (path.is_file() and path.stat().st_size == remote.bytes and _matches(path, kind, value)):
        download(mirrored(remote.url), path, size=remote.bytes, sha256=value if kind == "sha256" else None, progress=tell)
        if not _matches(path, kind, value):
            path.unlink()
            raise FetchError(f"{remote.name}: its {kind} is not the published {value[:12]}...", "run the same command again")
    meter.finish(remote.bytes)
    return path


def _matches(path: Path, kind: str, value: str) -> bool:
    """Whether a file has its published checksum; without one, its size has to do."""
    if kind not in ("md5", "sha256", "git"):
        return True
    digest = hashlib.new("sha1" if kind == "git" else kind, usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == value.lower()


def _about(listing: Listing) -> dict[str, Any]:
    return {
        "version": listing.version, "licence": listing.licence, "doi": listing.doi, "citation": listing.citation, "subjects": listing.subjects,
        "files": {name: [remote.bytes, *remote.checksum] for name, remote in sorted(listing.files.items())},
        "copies": {path: copy.version for path, copy in sorted(listing.copies.items())},
    }  # fmt: skip


def _require_same(source: Source, known: Mapping[str, Any], listing: Listing, records: FetchRecords, root: Path) -> None:
    """Files that are here must still be those of the archive: two versions of a data set are never mixed.

    Raises:
        FetchError: naming what has changed.
    """
    here = {name for record in records.subjects.values() for name in record["files"]}
    prefix = f"{source.kind}/{source.target}/"
    changed = []
    for name, stated in known["files"].items():
        now = listing.files.get(name)
        if prefix + name in here and (now is None or [now.bytes, *now.checksum] != stated):
            changed.append(name)
    for path, version in known["copies"].items():
        now_copy = listing.copies.get(path)
        held = any(name.startswith(prefix + serving.folder_of(path)) for name in here)
        if held and (now_copy is None or now_copy.version != version):
            changed.append(serving.folder_of(path).rstrip("/"))
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise FetchError(
            f"{source.spec}: {len(changed)} files that are here have been replaced in the archive since: {', '.join(changed[:3])}{more}",
            f"work on with the people who are here (--offline), or delete {root} and {records.path} to take the new version",
        )


def _described(source: Source, about: Mapping[str, Any]) -> Source:
    return source.model_copy(
        update={
            "licence": source.licence if source.licence not in ("", "unknown") else about["licence"], "doi": source.doi or about["doi"],
            "citation": source.citation or about["citation"],
        }
    )  # fmt: skip


def _place(source: Source, data_dir: Path) -> Path:
    """Where the last listing of a data set is kept."""
    return state_folder(data_dir) / f"{source.kind}-{source.target}.listing.json"


def _all_held(source: Source, known: Mapping[str, Any], records: FetchRecords) -> list[str] | None:
    """The people asked for, where the files of all are here; None otherwise."""
    subjects = _chosen(source, known["subjects"])
    return subjects if subjects and all(map(records.holds, subjects)) else None


def _copies_of_subject(listing: Listing, subject: str) -> list[serving.Copy]:
    return [copy for copy in listing.copies.values() if PurePosixPath(copy.path).parts[0] == f"sub-{subject}"]


def _bytes_of(source: Source, copies: Iterable[serving.Copy]) -> int:
    """What copies bring at most."""
    return 0 if source.options.get("copy") == "ranges" else sum(copy.most_bytes for copy in copies)


def _chosen(source: Source, known: Sequence[str]) -> list[str]:
    return list(known) if source.subjects is None else list(choose_subjects(source.subjects, known))


def _plan_row(source: Source, listing: Listing, subjects: Sequence[str], records: FetchRecords) -> PlanRow:
    size = sum(remote.bytes for subject in subjects for remote in files_of_subject(listing, subject))
    size += sum(_bytes_of(source, _copies_of_subject(listing, subject)) for subject in subjects)
    here = sum(records.holds(subject) for subject in subjects)
    return PlanRow(
        source.spec,
        source.dataset,
        len(subjects),
        here,
        size,
        source.licence,
        not licences.is_open(source.licence),
        source.kind,
        source.doi,
    )
