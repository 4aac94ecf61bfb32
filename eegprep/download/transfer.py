"""One URL becomes one file: resumed, retried, over TLS, and never something else under the file's name.

What a server says is not believed. A file is taken only when its length was confirmed a second time (by a known size or
checksum, or by asking for what comes after its end), when it does not look like a web page, and when formats that tell their own
length (zip, EDF, BDF, BrainVision is text and does not) agree with it.

A killed download leaves `.NAME.partial` and `.NAME.partial.json` (which URL and which version of it); the next call goes on from
there, if the server still has that very version, or if a known checksum will tell in the end.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError

from eegprep.atomic import fsync_folder, partial_path, write_json
from eegprep.download.content import content_problem, page_title
from eegprep.errors import FetchError
from eegprep.provenance import sha256_file

CHUNK = 1 << 20  # bytes

ATTEMPTS = 6  # in a row without a new byte

WHOLE_ATTEMPTS = 2  # of files that came whole and were wrong

TIMEOUT_S = (15.0, 90.0)  # to connect, between two chunks

LONGEST_WAIT_S = 120.0

LOOPBACK = ("127.0.0.1", "localhost", "::1")

# called with (bytes here, bytes in total or 0, file name)
ByteProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Fetched:
    """A file that arrived."""

    path: Path
    url: str
    bytes: int
    sha256: str
    tls: bool


class Unreachable(FetchError):
    """A host that gave no answer at all, in any attempt: asking it for the next file would only cost minutes."""


class _Retry(Exception):
    """Worth another attempt; `restart` when what is here cannot be continued, `whole` when a whole file came and was wrong."""

    def __init__(self, reason: str, *, restart: bool = False, whole: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.restart, self.whole, self.wait = restart or whole, whole, wait


def download(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    plain_http: bool = False,
    progress: ByteProgress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring `url` to `destination`, or raise FetchError and leave no file of that name.

    Args:
        sha256, size: what it must be, where that is known.
        plain_http: allow http:// when https:// does not answer; addresses of this machine are always allowed.
        sleep: waits between attempts, s.
    """
    with requests.Session() as session:
        session.verify = True
        session.headers["Accept-Encoding"] = "identity"  # so that lengths are those of the file
        session.headers["User-Agent"] = "eeg-dreamdiff (https://pypi.org/project/eeg-dreamdiff)"
        job = _Job(session, url, destination, sha256, size, plain_http, progress, sleep)
        return job.run()


class _Job:
    """The state of one download."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        destination: Path,
        sha256: str | None,
        size: int | None,
        plain_http: bool,
        progress: ByteProgress | None,
        sleep: Callable[[float], None],
    ) -> None:
        self.session, self.asked_url, self.destination = session, url, destination
        self.sha256, self.size, self.plain_http = sha256, size, plain_http
        self.progress, self.sleep = progress, sleep
        self.url = _https(url)
        self.partial = partial_path(destination)
        self.note = self.partial.with_name(self.partial.name + ".json")
        self.answered = False

    def run(self) -> Fetched:
        self.destination.parent.mkdir(parents=True, exist_ok=True)
        failures, wrong, reasons = 0, 0, []
        while True:
            before = self._here()
            try:
                self._transfer()
                return self._publish()
            except _Retry as problem:
                reason, restart, wait = str(problem), problem.restart, problem.wait
                wrong += problem.whole
            except requests.exceptions.SSLError as error:
                if self.plain_http and self._downgrade(error):
                    continue
                raise self._failed(
                    f"its TLS certificate is not valid ({_root_cause(error)})", "do not go on; tell its host"
                ) from None
            except requests.RequestException as error:  # other OSErrors are the disk's
                if self._downgrade(error):
                    continue
                reason, restart, wait = _root_cause(error), False, None
            if restart:
                self._forget()
            # a slow connection that breaks often but brings something each time is never given up
            failures = 1 if self._here() > before else failures + 1
            reasons.append(reason)
            if failures >= ATTEMPTS or wrong >= WHOLE_ATTEMPTS:
                hint = "run the same command again: what arrived is kept" if self._here() else "try again later, or use a mirror"
                failed = self._failed(f"{reason} ({len(reasons)} attempts)", hint)
                raise failed if self.answered else Unreachable(failed.problem, "check the network connection; " + hint)
            # what the server asks for, else twice as long each time
            self.sleep(min(LONGEST_WAIT_S, wait if wait is not None else 2.0 ** (failures - 1)))

    # -- one attempt ---------------------------------------------------------------------------------------------------------

    def _transfer(self) -> None:
        """Request what is missing until the end is confirmed."""
        offset, validator = self._resume_point()
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        # If-Range: a file that has changed since comes whole, with status 200
        if offset and validator:
            headers["If-Range"] = validator
        with self.session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            self.answered = True
            self._require_tls(response)
            total, append = self._judge(response, offset)
            if not append:
                self._forget()
                offset = 0
            # before the first byte: a file without its note could belong to any version
            write_json(self.note, {"url": self.url, "validator": _validator(response), "total": total})
            self._store(response, offset, total)
        here = self._here()
        if total is not None and here < total:
            raise _Retry(f"the connection ended after {here} of {total} bytes")
        if total is not None and here > total:
            raise _Retry(f"{here} bytes came where the server had announced {total}", restart=True)
        if self.sha256 is None and self.size is None:
            self._confirm_end()

    def _judge(self, response: requests.Response, offset: int) -> tuple[int | None, bool]:
        """(total size if announced, whether the body continues what is here)."""
        status = response.status_code
        if status == 416 and offset:
            total = _content_range(response)[1]
            if total == offset:
                return total, True
            raise _Retry(f"the server has {total} bytes, {offset} are here", restart=True)
        # errors that pass; all others of the client stay
        if status in (408, 425, 429) or status >= 500:
            raise _Retry(f"the server answered {status} {response.reason}", wait=_retry_after(response))
        if status >= 400:
            raise self._failed(
                f"the server answered {status} {response.reason}", "check the data set's own page, or use a mirror"
            )
        if "text/html" in response.headers.get("Content-Type", "").lower() and self.destination.suffix.lower() not in (
            ".html",
            ".htm",
        ):
            raise _Retry(f"a web page came instead of the file ({page_title(response)})", restart=True)
        length = response.headers.get("Content-Length", "")
        plain = response.headers.get("Content-Encoding", "identity") == "identity"  # else the length is that of the packed bytes
        total = int(length) if length.isdigit() and plain else None
        if status != 206:
            return self._check_size(total), False
        first, whole = _content_range(response)
        if first != offset:
            raise _Retry(f"the server continued at byte {first} instead of {offset}", restart=True)
        return self._check_size(whole if whole is not None else (None if total is None else total + offset)), True

    def _check_size(self, total: int | None) -> int | None:
        if self.size is not None and total is not None and total != self.size:
            raise _Retry(f"the server announces {total} bytes, the file has {self.size}", restart=True)
        return self.size if self.size is not None else total

    def _store(self, response: requests.Response, offset: int, total: int | None) -> None:
        if response.status_code == 416:
            return
        here = offset
        try:
            with self.partial.open("ab") as file:
                for chunk in _pieces(response):
                    file.write(chunk)
                    here += len(chunk)
                    if self.progress:
                        self.progress(here, total or 0, self.destination.name)
        except (HTTPError, requests.RequestException) as error:
            reason = f"the connection ended after {here} of {total or 'an unknown number of'} bytes"
            raise _Retry(f"{reason} ({_root_cause(error)})") from error

    def _confirm_end(self) -> None:
        """Ask for the bytes after the end: a server that announced too few has some."""
        here = self._here()
        try:
            headers = {"Range": f"bytes={here}-{here + CHUNK}"}
            with self.session.get(self.url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
                first, whole = _content_range(response)
                longer = response.status_code == 206 and first == here
                if longer or (response.status_code in (206, 416) and whole is not None and whole > here):
                    raise _Retry(f"the file is longer than the {here} bytes that were announced", restart=not longer)
                if whole is not None and whole < here:
                    raise _Retry(f"{here} bytes came, the server now says {whole}", restart=True)
        except requests.RequestException:
            return  # the file itself came whole; a server that refuses the question says nothing against it

    # -- the end -------------------------------------------------------------------------------------------------------------

    def _publish(self) -> Fetched:
        here = self._here()
        if self.size is not None and here != self.size:
            raise _Retry(f"{here} bytes came, the file has {self.size}", whole=True)
        # from the disk, not from what came through the wire: this is what will be read
        digest = sha256_file(self.partial)
        if self.sha256 is not None and digest != self.sha256:
            raise _Retry(f"its SHA-256 is {digest[:16]}..., published is {self.sha256[:16]}...", whole=True)
        if self.sha256 is None:
            problem = content_problem(self.partial, self.destination.name)
            if problem:
                raise _Retry(problem, whole=True)
        # to the disk before the rename, or a power cut could leave the name without the bytes
        with self.partial.open("rb") as file:
            os.fsync(file.fileno())
        self.partial.replace(self.destination)
        fsync_folder(self.destination.parent)
        self.note.unlink(missing_ok=True)
        return Fetched(self.destination, self.asked_url, here, digest, self.url.startswith("https:"))

    def _here(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _forget(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _resume_point(self) -> tuple[int, str]:
        """Bytes that may be kept, and the version they belong to. Without a version or a checksum, two could be mixed."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            validator = note["validator"] or ""
            usable = note["url"] == self.url and bool(validator or self.sha256)
        except (OSError, ValueError, KeyError, TypeError):
            validator, usable = "", False
        if not usable:
            self._forget()
        return self._here(), validator

    def _require_tls(self, response: requests.Response) -> None:
        """No step of a redirect may leave TLS unless that was allowed."""
        for url in [step.url for step in response.history] + [response.url]:
            if url.startswith("http:") and not self._may_be_plain(url):
                raise self._failed(
                    f"it leads to {url}, which is not encrypted", "add --accept plain-http if you trust the network"
                )

    def _may_be_plain(self, url: str) -> bool:
        return self.plain_http or urlsplit(url).hostname in LOOPBACK

    def _downgrade(self, error: Exception) -> bool:
        """Fall back to the http:// that was asked for, where allowed. True if there is something new to try."""
        if self.url == self.asked_url or not isinstance(error, requests.ConnectionError):
            return False
        if not self._may_be_plain(self.asked_url):
            raise self._failed(
                "its host offers no encrypted connection", "add --accept plain-http if you trust the network"
            ) from None
        self.url = self.asked_url
        return True

    def _failed(self, why: str, fix: str) -> FetchError:
        return FetchError(f"{self.asked_url}: {why}", fix)


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes in: what was received before a connection breaks is not lost with the rest of its block."""
    if response.headers.get("Content-Encoding", "identity") != "identity" or not hasattr(response.raw, "read1"):
        yield from response.iter_content(1 << 14)
        return
    while piece := response.raw.read1(CHUNK):
        yield piece


def _https(url: str) -> str:
    """The same address over TLS; this machine's own addresses stay as they are."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname in LOOPBACK or parts.port not in (None, 80):
        return url
    return urlunsplit(parts._replace(scheme="https", netloc=parts.hostname or parts.netloc))


def _validator(response: requests.Response) -> str:
    """What names this version of the file: a strong ETag, else the time of its last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """(first byte, total) of a Content-Range header."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    if match is None:
        return None, None
    return (int(match[1]) if match[1] else None), (None if match[2] == "*" else int(match[2]))


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _root_cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = str(error) or type(error).__name__
    return re.sub(r"\s+", " ", text)[:160]
