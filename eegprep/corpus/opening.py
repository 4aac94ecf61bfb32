"""Chooses where the bytes of a corpus come from, by its address."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegprep.corpus.files import Files, LocalFiles
from eegprep.corpus.hub_files import hub_files
from eegprep.corpus.objects import OBSTORE_SCHEMES, CachedFiles, FsspecFiles, ObjectFiles
from eegprep.errors import require_path


def open_files(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
    cache_limit: int = 20_000_000_000,
) -> Files:
    """Where the bytes of `url` come from.

    Args:
        url: a folder, file://, s3://, gs://, az://, https://, hf://datasets/OWNER/NAME[@REVISION][/PATH], or any other scheme that fsspec
            knows, such as memory://.
        options: for the object store, for instance {"endpoint": "http://localhost:5000", "skip_signature": True}.
        cache: folder for a read-through cache of what was fetched.
        cache_limit: bytes that the cache may take on the disk; whole shards that were not used for longest go first.
    """
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    if scheme == "file":
        require_path(url.removeprefix("file://"))
        return LocalFiles(Path(url.removeprefix("file://")))
    if scheme == "hf":
        files: Files = hub_files(url, options or {})
    else:
        files = ObjectFiles(url, options or {}) if scheme in OBSTORE_SCHEMES else FsspecFiles(url, options or {})
    return files if cache is None else CachedFiles(files, Path(cache), cache_limit)
