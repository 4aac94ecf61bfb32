"""Small documents of a server in memory: listings, descriptions, indices. Retried, over TLS, and never larger than expected."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import requests

from eegprep.download.transfer import LOOPBACK, TIMEOUT_S
from eegprep.errors import FetchError
from eegprep.offline import is_offline

ATTEMPTS = 4
MOST_BYTES = 256 << 20  # the manifest of a data set of 100,000 files has 40 MB


def mirrored(url: str) -> str:
    """The address to ask instead, see `mirrors`."""
    for beginning, other in mirrors().items():
        if url.startswith(beginning):
            return other + url[len(beginning) :]
    return url


def mirrors() -> dict[str, str]:
    """`EEGPREP_MIRRORS="https://a.org/=https://b.org/a/;..."`: URL beginnings and what to put in their place."""
    pairs = (item.partition("=") for item in os.environ.get("EEGPREP_MIRRORS", "").split(";") if item.strip())
    return {beginning.strip(): other.strip() for beginning, _, other in pairs}


def read_url(
    url: str, *, most: int = MOST_BYTES, missing: bool = False, sleep: Callable[[float], None] = time.sleep
) -> bytes | None:
    """The bytes of a document.

    Args:
        missing: None for a document that is not there (403 and 404: a public store that may not be listed answers so), else an error.
        sleep: waits between attempts, s.

    Raises:
        FetchError: offline, not there, not encrypted, too large, or no answer.
    """
    if is_offline():
        raise FetchError(f"{url}: offline", "leave out --offline")
    address, reason = mirrored(url), ""
    if not address.startswith("https://") and urlsplit(address).hostname not in LOOPBACK:
        raise FetchError(f"{address}: is not encrypted", "use an address that begins with https://")
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(2.0 ** (attempt - 1))
        try:
            with requests.get(address, stream=True, timeout=TIMEOUT_S) as answer:
                if answer.status_code in (403, 404) and missing:
                    return None
                if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
                    reason = f"the server answered {answer.status_code} {answer.reason}"
                    continue
                if answer.status_code != 200:
                    raise FetchError(
                        f"{url}: the server answered {answer.status_code} {answer.reason}", "check the id of the data set"
                    )
                content = b""
                for piece in answer.iter_content(1 << 20):
                    content += piece
                    if len(content) > most:
                        raise FetchError(f"{url}: more than {most:,} bytes", "tell us which data set that is")
                return content
        except requests.RequestException as error:
            reason = " ".join(str(error).split())[:160]
    raise FetchError(f"{url}: {reason} ({ATTEMPTS} attempts)", "check the network connection, then run the same command again")


def read_json(url: str, *, missing: bool = False) -> Any:
    """A JSON document, or None where it is missing and may be."""
    content = read_url(url, missing=missing)
    if content is None:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise FetchError(f"{url}: not JSON", "try again later; a proxy may have answered instead") from None
