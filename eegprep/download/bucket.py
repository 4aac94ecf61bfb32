"""Lists a public S3 bucket without an account.

Protocol: ListObjectsV2 of the S3 REST API (AWS reference), unsigned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote
from xml.etree import ElementTree

from eegprep.download.documents import read_url
from eegprep.errors import FetchError


@dataclass(frozen=True)
class Object:
    """A file of a bucket. etag: the MD5 of its bytes, unless it was uploaded in parts ("...-N")."""

    key: str
    bytes: int
    etag: str


def list_objects(bucket: str, prefix: str, say: Callable[[int], None] | None = None) -> list[Object]:
    """Everything under a prefix.

    Args:
        bucket: address of the bucket, ending in "/". say: called with the number of objects so far.

    Raises:
        FetchError: no answer, or not one of an object store.
    """
    result: list[Object] = []
    token = ""
    while True:
        url = f"{bucket}?list-type=2&max-keys=1000&prefix={quote(prefix, safe='')}"
        content = read_url(url + (f"&continuation-token={quote(token, safe='')}" if token else ""))
        try:
            page = ElementTree.fromstring(content or b"")
        except ElementTree.ParseError:
            raise FetchError(
                f"{url}: not a listing of an object store", "try again later; a proxy may have answered instead"
            ) from None
        space = page.tag.partition("}")[0] + "}" if page.tag.startswith("{") else ""
        try:
            for entry in page.iter(f"{space}Contents"):
                key, size = str(entry.findtext(f"{space}Key")), int(str(entry.findtext(f"{space}Size")))
                result.append(Object(key, size, str(entry.findtext(f"{space}ETag") or "").strip('"')))
        except ValueError:
            raise FetchError(f"{url}: a listing with a size that is no number", "try again later") from None
        if say:
            say(len(result))
        next_token = page.findtext(f"{space}NextContinuationToken") or ""
        if page.findtext(f"{space}IsTruncated") != "true" or not next_token or next_token == token:
            return result
        token = next_token
