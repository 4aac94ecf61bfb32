"""Models by their names on the Hugging Face Hub, beside folders: `hf:owner/name@revision`, or `owner/name` where no folder is called so.

What comes is configuration and safetensors, nothing else, compared with the SHA-256 manifest that was published with it.
"""

from __future__ import annotations

import os
from pathlib import Path

from dreamdiff.untrusted.tensors import sha256_once
from eegprep.download import hub
from eegprep.download.hub import HubName
from eegprep.errors import UsageError
from eegprep.folders import cache_folder
from eegprep.sharing.manifest import check_manifest

PATTERNS = ("*.json", "*.safetensors", "*.md")  # never a pickle


def model_folder(
    source: str | os.PathLike[str], *, revision: str | None = None, offline: bool = False,
    cache_dir: str | Path | None = None, token: str | bool | None = None,
) -> Path:  # fmt: skip
    """The folder of a model on this machine; one that is named by its repository is downloaded into the Hub's cache first.

    Args:
        source: a folder, `hf:owner/name[@revision]`, or `owner/name` where neither that folder nor a folder `owner` is here.
        revision: branch, tag or commit of a repository. offline: use only what is in the cache.

    Raises:
        FetchError: it cannot be had. CheckpointError: a file is not what was published. UsageError: a revision of a folder.
    """
    text = os.fspath(source)
    name = hub.model_name(text)
    if name is None:
        if revision is not None:
            raise UsageError(
                f"{text}: a folder has no revision {revision!r}", "leave out revision, or name a repository OWNER/NAME"
            )
        return Path(text)
    if revision is not None:
        name = HubName("model", name.repo, revision)
    folder = hub.snapshot(name, PATTERNS, offline=offline, cache_dir=cache_dir, token=token)
    check_manifest(folder, digest=sha256_once, partial=True)
    return folder


def pairs_folder(source: str, *, offline: bool = False) -> Path:
    """EEG-image pairs of `hf://datasets/owner/name[@revision][/path]` as a folder: downloaded once, into the user's cache.

    Raises:
        FetchError: they cannot be had. CheckpointError: a file is not what was published.
    """
    name = hub.dataset_name(source)
    if name is None:
        raise UsageError(f"{source}: not an address of a data set", "write hf://datasets/OWNER/NAME[@REVISION][/PATH]")
    offline = offline or hub.hub_offline()
    pinned = name if offline else hub.pinned(name)
    # plain files: a store does not follow links, which the Hub's own cache is made of
    place = cache_folder("hub", f"{name.repo.replace('/', '--')}@{pinned.revision or 'main'}")
    folder = place if offline and place.is_dir() else hub.snapshot(pinned, ("*",), folder=place, offline=offline)
    check_manifest(folder, digest=sha256_once)
    if name.path:
        return folder / name.path
    stores = sorted(path.parent for path in folder.glob("*/zarr.json"))
    return stores[0] if len(stores) == 1 else folder
