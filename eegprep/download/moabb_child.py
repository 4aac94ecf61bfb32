"""Lists and downloads a MOABB data set's files in a child process, with TLS checks, resume and checksums added.

MOABB's own route to the original hosts has TLS verification switched off, no checksum, no resume and no retry. In this process,
and only here, the one function through which nearly all of its classes download (pooch's HTTP downloader) is ours, requests that
bypass it verify certificates again, and archives are looked into before they are unpacked. Where NEMAR mirrors a data set, its
files come from there (nemar-py resumes, retries, and checks SHA-256) and are put into MOABB's own layout, so that reading later
needs neither NEMAR nor a network.

The process reads one JSON request on standard input and answers with one JSON object a line on standard output.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tarfile
import threading
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from eegprep.download.content import archive_problem
from eegprep.download.network import files_opened
from eegprep.download.transfer import Fetched, Unreachable, download
from eegprep.errors import FetchError, ToolkitError
from eegprep.folders import state_folder
from eegprep.offline import no_network

Emit = Callable[[dict[str, Any]], None]

# files that belong to a file a loader names, by its suffix
COMPANIONS = {".set": (".fdt",), ".vhdr": (".eeg", ".vmrk", ".dat"), ".dap": (".dat", ".rs3", ".ceo"), ".cdt": (".dpa", ".ceo")}


def environment(data_dir: Path) -> dict[str, str]:
    """Variables under which MOABB and MNE look for files in `data_dir` and nowhere else, and write no setting of the user's."""
    return {
        "MNE_DATA": str(data_dir),
        "MOABB_DOWNLOAD_PROVIDER": "upstream",  # what NEMAR served lies in the upstream layout as well
        "_MNE_FAKE_HOME_DIR": str(state_folder(data_dir) / "home"),
    }


def main() -> None:
    """Entry of the child process."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # whatever libraries print goes to standard error instead
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    end_with_parent(sys.stdin.fileno())

    def emit(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    prepare(Path(request["data_dir"]))
    with no_network(everywhere=True) if request["offline"] else nullcontext():
        find_files(request, emit)


def end_with_parent(line: int) -> None:
    """End this process as soon as the other end of `line`, a file descriptor, is closed.

    A parent that was killed has let go of the data folder, and nobody may go on writing into it.
    """

    def watch() -> None:
        while os.read(line, 1):  # not through a file object, whose lock would be held when the interpreter ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)  # ends us at once: nobody here catches it, and partial files are meant to stay

    threading.Thread(target=watch, daemon=True).start()


def prepare(data_dir: Path) -> None:
    """Set this process up; before MOABB is imported."""
    # such a variable would send one data set's files elsewhere than to the data folder
    for name in [name for name in os.environ if name.startswith("MNE_DATASETS_")]:
        del os.environ[name]
    os.environ.update(environment(data_dir))
    (state_folder(data_dir) / "home").mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore")


def find_files(request: Mapping[str, Any], emit: Emit) -> None:
    """Answer for each subject: `{"subject", "files", "fetched", "provider"}` or `{"subject", "problem", "fix"}`.

    Args:
        request: dataset, options, subjects, data_dir, offline, accept_terms, plain_http, provider, mirrors.
    """
    data_dir = Path(request["data_dir"])
    route = Route(data_dir, dict(request["mirrors"]), bool(request["plain_http"]), emit)
    with route.installed():
        from moabb.datasets.utils import dataset_dict

        dataset = dataset_dict[request["dataset"]](**request["options"])
        by_text = {str(subject): subject for subject in dataset.subject_list}
        silent: Unreachable | None = None
        for subject in request["subjects"]:
            route.begin()
            try:
                provider, paths = _bring(dataset, by_text[subject], {**request, "offline": True} if silent else request, route)
                files = sorted({_relative(path, data_dir) for path in _expand(paths)} | _landed(route.fetched, data_dir))
                if not files:
                    raise FetchError(f"{request['dataset']} names no file for subject {subject}", "leave the subject out")
                emit({"subject": subject, "files": files, "fetched": route.report(), "provider": provider})
            except Exception as error:
                silent = silent or _unreachable(error)  # the host is not asked again: what is here still counts
                emit({"subject": subject, **_explain(silent or error, request["dataset"], subject, bool(request["offline"]))})


class Route:
    """Where this process's downloads go: our downloader, MOABB's file names.

    mirrors: URL beginnings and what to put in their place.
    """

    def __init__(self, data_dir: Path, mirrors: Mapping[str, str], plain_http: bool, emit: Emit) -> None:
        self.data_dir, self.mirrors, self.plain_http, self.emit = data_dir, mirrors, plain_http, emit
        self.fetched: list[Fetched] = []
        self.nemar_silent = False

    def begin(self) -> None:
        """Forget the files of the subject before."""
        self.fetched = []

    def report(self) -> list[dict[str, object]]:
        """What was downloaded, for the record."""
        return [{"url": f.url, "bytes": f.bytes, "sha256": f.sha256, "tls": f.tls} for f in self.fetched]

    def fetch(self, url: str, output: Path) -> None:
        """Download to a stable name, so that a killed process resumes the download, then move it to where it is needed."""
        parts = state_folder(self.data_dir) / "parts"
        # named by the URL: pooch's temporary names differ each time, and nothing could be continued
        here = parts / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{Path(urlsplit(url).path).name or 'file'}"
        known = published_sha256(url)
        got = download(self._mirrored(url), here, sha256=known, plain_http=self.plain_http, progress=self._report_progress)
        problem = archive_problem(here)
        if problem:
            here.unlink()
            raise FetchError(f"{url}: {problem}", "do not unpack it; tell the host of the data set")
        here.replace(output)
        self.fetched.append(Fetched(output, url, got.bytes, got.sha256, got.tls))

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put our downloader into pooch, TLS back into requests, and a look into archives, for as long as this lasts."""
        import pooch
        import requests

        inner_call, inner_request = pooch.HTTPDownloader.__call__, requests.Session.request
        inner_zip = zipfile.ZipFile.extractall
        inner_tar = getattr(tarfile.TarFile, "extraction_filter", None)
        route = self

        def call(downloader: Any, url: str, output_file: Any, pooch_: Any, check_only: bool = False) -> bool | None:
            # pooch asks for the headers only, or wants the bytes in its own file: neither is a download to continue
            if check_only or hasattr(output_file, "write"):
                answer: bool | None = inner_call(downloader, url, output_file, pooch_, check_only)
                return answer
            route.fetch(url, Path(output_file))
            return None

        def request(session: Any, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
            # some loaders pass verify=False
            kwargs.pop("verify", None)
            return inner_request(session, method, route._mirrored(url), *args, **kwargs)

        def unzip(archive: zipfile.ZipFile, *args: Any, **kwargs: Any) -> None:
            problem = archive_problem(Path(archive.filename)) if archive.filename else None
            if problem:
                raise FetchError(f"{archive.filename}: {problem}", "delete it; do not unpack it")
            inner_zip(archive, *args, **kwargs)

        pooch.HTTPDownloader.__call__, requests.Session.request = call, request  # type: ignore[method-assign,assignment]
        zipfile.ZipFile.extractall = unzip  # type: ignore[method-assign,assignment]
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)  # PEP 706
        try:
            yield
        finally:
            pooch.HTTPDownloader.__call__, requests.Session.request = inner_call, inner_request  # type: ignore[method-assign]
            zipfile.ZipFile.extractall = inner_zip  # type: ignore[method-assign]
            tarfile.TarFile.extraction_filter = inner_tar

    def _mirrored(self, url: str) -> str:
        for beginning, other in self.mirrors.items():
            if url.startswith(beginning):
                return other + url[len(beginning) :]
        return url

    def _report_progress(self, here: int, total: int, name: str) -> None:
        self.emit({"bytes": here, "total": total, "file": name.partition("-")[2]})


def published_sha256(url: str) -> str | None:
    """The checksum that MNE ships for PhysioNet's EEG Motor Movement/Imagery files, None for any other."""
    _, marker, name = url.partition("/eegmmidb/1.0.0/")  # in the URL, and in the name under MOABB's data folder
    return _eegbci_checksums().get(name) if marker else None


@lru_cache(maxsize=1)
def _eegbci_checksums() -> dict[str, str]:
    spec = find_spec("mne")  # without importing it
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    text = (folder / "data" / "eegbci_checksums.txt").read_text(encoding="utf-8")
    return dict(line.split() for line in text.splitlines() if line.strip())


def _bring(dataset: Any, subject: Any, request: Mapping[str, Any], route: Route) -> tuple[str, Any]:
    """(provider, what data_path returned): from the disk alone if it has everything, else from NEMAR, else from the host."""
    try:
        with no_network() as guard:
            paths = _data_path(dataset, subject, request)
        # some loaders swallow errors and return what they have; offline that has to do
        if request["offline"] or not guard.refused:
            return "local", paths
    except Exception as error:
        if not guard.refused:  # the failure was not a missing file
            raise error
        read = _files_read(dataset, subject, Path(request["data_dir"]))
        if read:
            return "local", read
        if request["offline"]:
            raise error
    if dataset.nemar_id and request["provider"] != "upstream":
        store = _from_nemar(dataset, subject, request, route)
        if store is not None:
            from moabb.datasets.download import active_sourcedata_store

            with active_sourcedata_store(store):
                return "nemar", _data_path(dataset, subject, request)
    elif request["provider"] == "nemar":
        raise FetchError(f"{dataset.code} is not mirrored by NEMAR", "leave out the provider, or choose upstream")
    return "upstream", _data_path(dataset, subject, request)


def _from_nemar(dataset: Any, subject: Any, request: Mapping[str, Any], route: Route) -> Path | None:
    """Fill NEMAR's folder for one subject; None when it cannot and the original host may be asked."""
    from moabb.datasets.download import NemarDownloadError

    if route.nemar_silent:
        return None
    route.emit({"bytes": 0, "total": 0, "file": f"{dataset.code} from NEMAR ({dataset.nemar_id})"})
    try:
        return Path(dataset.sourcedata_path(subject=subject, path=request["data_dir"], verbose="ERROR"))
    except NemarDownloadError as error:
        if request["provider"] == "nemar":
            raise FetchError(f"{dataset.code} subject {subject}: {error}", "try again later, or choose upstream") from error
        # the next subject would wait for the same time-out
        route.nemar_silent = "Network error" in str(error)
        route.emit({"note": f"{dataset.code} subject {subject}: NEMAR did not deliver ({error}); asking the original host"})
        return None


def _files_read(dataset: Any, subject: Any, data_dir: Path) -> list[Path]:
    """Files that loading the subject opens, if it loads without asking for the network; else none.

    Some classes name more files than their loader reads: PhysionetMI wants the two baseline runs, which no task uses.
    """
    try:
        from moabb.datasets.preprocessing import FixedPipeline

        with no_network() as guard, files_opened(data_dir) as opened:
            data = dataset.get_data([subject], process_pipeline=FixedPipeline([]))[subject]
    except Exception:
        return []
    return opened if data and not guard.refused else []


def _data_path(dataset: Any, subject: Any, request: Mapping[str, Any]) -> Any:
    """What the class's own `data_path` returns; arguments that some classes want beyond MOABB's own are filled in."""
    parameters = signature(dataset.data_path).parameters
    more: dict[str, object] = {"accept": request["accept_terms"]} if "accept" in parameters else {}
    for name, parameter in parameters.items():  # CastillosXXX: the paradigm, which the object knows
        if parameter.default is Parameter.empty and parameter.kind is Parameter.POSITIONAL_OR_KEYWORD and hasattr(dataset, name):
            more[name] = getattr(dataset, name)
    try:
        return dataset.data_path(subject, **more)
    except TypeError:  # Nieto2022: cannot do without a session, and takes them one by one
        if "session" not in parameters:
            raise
        return [dataset.data_path(subject, session=number, **more) for number in range(1, int(dataset.n_sessions) + 1)]


def _expand(paths: Any) -> Iterator[Path]:
    """Files in whatever a class returns: a path, a list, a mapping; a folder stands for the files in it."""
    if isinstance(paths, Mapping):
        paths = list(paths.values())
    if isinstance(paths, list | tuple | set):
        for item in paths:
            yield from _expand(item)
        return
    if not isinstance(paths, str | Path):
        return
    path = Path(paths)
    if path.is_dir():
        yield from (file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith("."))
    elif path.is_file():
        yield path
        for suffix in COMPANIONS.get(path.suffix.lower(), ()):
            if path.with_suffix(suffix).is_file():
                yield path.with_suffix(suffix)


def _landed(fetched: list[Fetched], data_dir: Path) -> set[str]:
    """Downloads that are still under the name they were written to (pooch renames its temporary ones)."""
    return {_relative(f.path, data_dir) for f in fetched if f.path.is_file()}


def _relative(path: Path, data_dir: Path) -> str:
    return Path(os.path.relpath(path.resolve(), data_dir.resolve())).as_posix()


def _unreachable(error: BaseException | None) -> Unreachable | None:
    while error is not None and not isinstance(error, Unreachable):
        error = error.__cause__ or error.__context__
    return error


def _explain(error: Exception, dataset: str, subject: str, offline: bool) -> dict[str, str]:
    """A problem and a fix for whatever a loader raised; the traceback goes to the log."""
    traceback.print_exception(error, file=sys.stderr)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ToolkitError) and not (offline and "offline:" in cause.problem):
            return {"problem": f"{dataset} subject {subject}: {cause.problem}", "fix": cause.fix}
        cause = cause.__cause__ or cause.__context__
    if "accept licence" in str(error) or "accept=True" in str(error):
        return {"problem": f"{dataset} subject {subject}: its terms have not been accepted", "fix": "add --accept GPL-3.0"}
    if offline:
        return {
            "problem": f"{dataset} subject {subject}: not all of its files are in the data folder, and this is offline",
            "fix": "run once without --offline, or put the files there in MOABB's own layout",
        }
    return {
        "problem": f"{dataset} subject {subject}: {type(error).__name__}: {error}",
        "fix": "see .eegprep/log.txt in the data folder",
    }
