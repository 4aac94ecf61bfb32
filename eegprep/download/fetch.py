"""Bring source files here: resume, retry, TLS, checksums, a licence gate, and no socket at all when offline.

What callers use, in this order::

    rows = plan(sources, data_dir)                     # bytes and licences; opens no socket, downloads nothing
    with data_folder_lock(data_dir):                   # one process per data folder (`ensure` takes it by itself)
        files = ensure(source, data_dir, subjects=("1", "2"), offline=..., accept=..., progress=...)
    check(files["1"], data_dir)                        # in the worker, right before the files of a subject are read

`ensure` needs neither MOABB nor the network for subjects whose files are on record and unchanged in size and time of change, so
that a re-run with nothing to do is fast. That is a short cut, not a proof: `check` hashes, so that what is read is what was
fetched.

Records are JSON files in `DATA_DIR/.eegprep/`, one for each data set, written in one step after each subject: a killed process
loses nothing, and a half downloaded file is continued.

`EEGPREP_MIRRORS="https://physionet.org/=https://mirror.example.org/physionet/;..."` replaces beginnings of addresses, for an
institute's own copy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eegprep.catalogue import licences
from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import Source
from eegprep.download.data_folder import FetchRecords, data_folder_lock
from eegprep.download.documents import mirrors
from eegprep.download.meter import Meter
from eegprep.errors import FetchError, LicenceError, UsageError
from eegprep.folders import state_folder
from eegprep.offline import VARIABLE
from eegprep.provenance import sha256_file
from eegprep.recording import ProgressCallback, SourceFile

PROVIDERS = ("auto", "nemar", "upstream")

PLAIN_HTTP = "plain-http"  # in `accept`: allow hosts that offer no TLS


@dataclass(frozen=True)
class PlanRow:
    """One source before anything is downloaded.

    bytes: declared size of the chosen subjects (their share of the whole set) or, for local files, counted; None where nobody
        declares one. licence: SPDX id, or "unknown". needs_accept: the licence has to be named in `accept` before a download.
    provider: "nemar", "upstream" or "local". subjects_on_disk: how many subjects are on record in the data folder.
    """

    source: str
    dataset: str
    subjects: int
    subjects_on_disk: int
    bytes: int | None
    licence: str
    needs_accept: bool
    provider: str
    doi: str

    def row(self) -> dict[str, object]:
        """What the table of `--dry-run` shows."""
        return {
            "source": self.source,
            "subjects": self.subjects,
            "here": self.subjects_on_disk,
            "size": catalogue.format_bytes(self.bytes) or "not declared",
            "licence": self.licence,
            "accept": "needed" if self.needs_accept else "",
            "from": self.provider,
            "doi": self.doi,
        }


def plan(sources: Sequence[Source], data_dir: Path, subjects: Sequence[str] | None = None) -> list[PlanRow]:
    """What `ensure` would bring, with sizes and licences. Opens no socket, imports no MOABB.

    Args:
        subjects: of all sources; None: each source's own choice, else everybody.
    """
    return [_plan_moabb(source, data_dir, subjects) for source in sources]


def on_disk(source: Source, data_dir: Path, subjects: Sequence[str]) -> dict[str, list[SourceFile]]:
    """Files of the subjects that are here already: those on record, and those of classes whose names of files are known.

    Opens no socket, imports no MOABB, hashes and writes nothing: files that are not on record come without a hash.
    """
    records, result = FetchRecords(source, data_dir), dict[str, list[SourceFile]]()
    for subject in subjects:
        names = catalogue.known_files(source.target, subject, source.options)
        if records.holds(subject):
            result[subject] = records.files(subject)
        elif names and all((data_dir / name).is_file() for name in names):
            result[subject] = [SourceFile(name, (data_dir / name).stat().st_size, "") for name in names]
    return result


def require_licences(rows: Iterable[PlanRow], accept: Iterable[str] = ()) -> None:
    """Raise LicenceError unless every licence that needs it is in `accept` (SPDX ids in any spelling, or "all")."""
    accepted = {licences.spdx(name) for name in accept}
    asking = [row for row in rows if row.needs_accept and row.subjects_on_disk < row.subjects]
    if "all" in accepted:
        return
    missing: dict[str, list[str]] = {}
    for row in asking:
        if row.licence not in accepted:
            missing.setdefault(row.licence, []).append(row.dataset)
    if not missing:
        return
    terms = "; ".join(
        f"{licence} ({', '.join(licences.licence_terms(licence))}) of {', '.join(names)}" for licence, names in missing.items()
    )
    flags = " ".join(f"--accept {licence!r}" if " " in licence else f"--accept {licence}" for licence in missing)
    raise LicenceError(f"{len(missing)} licence(s) must be accepted before the download: {terms}", f"read them, then add {flags}")


def ensure(
    source: Source,
    data_dir: Path,
    *,
    subjects: Sequence[str] | None = None,
    offline: bool = False,
    accept: Iterable[str] = (),
    provider: str = "auto",
    progress: ProgressCallback | None = None,
    failed: dict[str, FetchError] | None = None,
) -> dict[str, list[SourceFile]]:
    """Files of each subject of a MOABB source, downloaded when missing; names are relative to `data_dir`.

    For `files:` and `bids:` sources nothing is downloaded: use `hash_files`.

    Args:
        subjects: None: the source's own choice, else everybody.
        offline: open no socket; a missing file is an error.
        accept: licences that were accepted (any spelling, or "all"), and "plain-http" for hosts without TLS. Files that are in
            the data folder already need no acceptance.
        provider: "auto" (NEMAR where it has the set, else the original host), "nemar" or "upstream".
        progress: called with (subjects done, subjects, what happens).
        failed: pass a dictionary to continue without subjects that cannot be downloaded; it is filled with the reasons. Else the first is raised,
            after all others have arrived.

    Raises:
        FetchError: a file is missing while offline, differs from its record, or its download failed or was not what is published.
        LicenceError: a download is needed and the licence has not been accepted.
        UsageError: another kind of source, or an unknown provider.
    """
    if source.kind != "moabb":
        raise UsageError(f"{source.spec} is local: there is nothing to fetch", "use the files as they are")
    if provider not in PROVIDERS:
        raise UsageError(f"there is no provider {provider!r}", f"choose one of: {', '.join(PROVIDERS)}")
    subject_ids = [str(subject) for subject in (subjects or source.subjects or catalogue.entry(source.target).subjects)]
    records = FetchRecords(source, data_dir)
    missing = [subject for subject in subject_ids if not records.holds(subject)]
    if missing:
        with data_folder_lock(data_dir, progress=progress):
            records = FetchRecords(source, data_dir)  # somebody else may have been faster
            missing = [subject for subject in subject_ids if not records.holds(subject)]
            if missing:
                problems = _fetch_missing(
                    source, data_dir, missing, len(subject_ids), records, offline, tuple(accept), provider, progress
                )
                _settle(problems, failed)
    files = {subject: records.files(subject) for subject in subject_ids if records.holds(subject)}
    _require_pinned(source, files)
    return files


def check(files: Iterable[SourceFile], data_dir: Path, *, quick: bool = False) -> None:
    """Raise FetchError unless every file is there and unchanged. `quick` compares sizes only; the default hashes."""
    for file in files:
        path = data_dir / file.name
        try:
            size = path.stat().st_size
        except OSError:
            raise FetchError(f"{file.name} is missing in {data_dir}", "run the same command again to fetch it") from None
        if size != file.bytes:
            raise FetchError(f"{file.name} has {size} bytes, on record are {file.bytes}", f"delete {path} and fetch it again")
        if not quick and (digest := sha256_file(path)) != file.sha256:
            raise FetchError(
                f"{file.name} has changed: SHA-256 {digest[:16]}..., on record {file.sha256[:16]}...",
                f"delete {path} and fetch it again",
            )


def _fetch_missing(
    source: Source,
    data_dir: Path,
    missing: Sequence[str],
    total: int,
    records: FetchRecords,
    offline: bool,
    accept: tuple[str, ...],
    provider: str,
    progress: ProgressCallback | None,
) -> dict[str, FetchError]:
    """Ask MOABB, in a process of its own: first with what is on the disk, then, licence accepted, over the network."""
    row = _plan_moabb(source, data_dir, missing)
    try:
        # a refusal is kept for later: files that are here already need no acceptance
        require_licences([row], accept)
        refused: LicenceError | None = None
    except LicenceError as error:
        refused = error
    request = {
        "dataset": source.target,
        "options": source.options,
        "subjects": list(missing),
        "data_dir": str(data_dir.resolve()),
        "offline": offline or refused is not None,
        "accept_terms": refused is None,
        "plain_http": PLAIN_HTTP in accept,
        "provider": provider,
        "mirrors": mirrors(),
    }
    done, problems = total - len(missing), dict[str, FetchError]()
    meter, present = Meter(row.bytes or 0), ("", 0)
    for answer in _ask_child(request, data_dir):
        if "files" in answer:
            try:
                records.add(answer["subject"], answer)
            except FetchError as error:
                problems[answer["subject"]] = error
                continue
            done += 1
            if progress:
                unlike = records.unlike_published(answer["subject"])
                remark = f": {len(unlike)} of its files differ from the published checksums" if unlike else ""
                progress(done, total, f"{source.target} subject {answer['subject']}{remark}")
        elif "problem" in answer:
            problems[answer["subject"]] = FetchError(answer["problem"], answer["fix"])
        elif progress and "file" in answer:
            if present[0] not in ("", answer["file"]):
                meter.finish(present[1])
            present = (answer["file"], answer["bytes"])
            meter.see(answer["bytes"])
            progress(done, total, f"{answer['file']} {meter.text}")
        elif progress and "note" in answer:
            progress(done, total, answer["note"])
    # something has to be downloaded after all
    if problems and refused is not None and not offline:
        raise refused
    return problems


def _settle(problems: Mapping[str, FetchError], failed: dict[str, FetchError] | None) -> None:
    """Hand the problems over, or raise the first."""
    if failed is not None:
        failed.update(problems)
    elif problems:
        first = next(iter(problems.values()))
        more = f" (and {len(problems) - 1} more subjects)" if len(problems) > 1 else ""
        raise FetchError(first.problem + more, first.fix)


def _ask_child(request: Mapping[str, Any], data_dir: Path) -> Iterator[Mapping[str, Any]]:
    """Answers of `moabb_child` in a process of its own."""
    # the child runs this very code, also from a checkout that is not installed
    root = str(Path(__file__).resolve().parents[2])
    code = f"import sys; sys.path.insert(0, {root!r}); from eegprep.download.moabb_child import main; main()"
    log = state_folder(data_dir) / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, VARIABLE: "1"} if request.get("offline") else None,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        with suppress(BrokenPipeError):  # it could not even start: its status says so below
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()  # and stays open: when this process ends, in whatever way, so does the child
        answered = 0
        try:
            for line in child.stdout:
                answer = json.loads(line)
                answered += "subject" in answer
                yield answer
        finally:
            # an error here, or a caller who stops listening: the child would wait for its answers to be read
            if child.poll() is None and sys.exc_info()[0] is not None:
                child.kill()
            status = child.wait()
            with suppress(BrokenPipeError):
                child.stdin.close()
    if answered < len(request["subjects"]):
        raise FetchError(
            f"MOABB's process ended with status {status} after {answered} of {len(request['subjects'])} subjects", f"see {log}"
        )


def _plan_moabb(source: Source, data_dir: Path, subjects: Sequence[str] | None) -> PlanRow:
    declared = catalogue.entry(source.target)
    subject_ids = [str(subject) for subject in (subjects or source.subjects or declared.subjects)]
    records = FetchRecords(source, data_dir)
    here = sum(records.holds(subject) for subject in subject_ids)
    # nobody declares sizes by subject
    share = None if declared.bytes is None else round(declared.bytes * len(subject_ids) / max(1, declared.n_subjects))
    provider = "local" if here == len(subject_ids) else ("nemar" if declared.nemar_id else "upstream")
    return PlanRow(
        source.spec, source.dataset, len(subject_ids), here, share, source.licence, not licences.is_open(source.licence), provider,
        source.doi,
    )  # fmt: skip


def _require_pinned(source: Source, subject_files: Mapping[str, Sequence[SourceFile]]) -> None:
    """A lock file names each file's hash: what is here must be that."""
    for files in subject_files.values():
        for file in files:
            pinned = source.sha256.get(file.name)
            if pinned is not None and pinned != file.sha256:
                raise FetchError(
                    f"{file.name}: SHA-256 {file.sha256[:16]}..., the manifest has {pinned[:16]}...",
                    "get the version that was used, or take the hash out of the manifest",
                )
