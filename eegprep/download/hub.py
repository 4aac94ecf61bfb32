"""Repositories of the Hugging Face Hub: their names, the commit that a revision means now, and copies of them on this machine.

    hf:owner/name[@revision]                          a model
    hf://datasets/owner/name[@revision][/path]        a corpus or EEG-image pairs

`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to every program of the Hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from eegprep.errors import FetchError, LicenceError, UsageError
from eegprep.offline import is_offline

Kind = Literal["model", "dataset"]
ResultT = TypeVar("ResultT")

ENDPOINT = "https://huggingface.co"
_PART = r"[A-Za-z0-9][A-Za-z0-9_.\-]*"
_MODEL = re.compile(rf"(?:hf:)?({_PART}/{_PART})(?:@([^@\s]+))?")
_DATASET = re.compile(rf"hf:/{{1,2}}datasets/({_PART}/{_PART})(?:@([^@/\s]+))?(?:/(.*))?")  # a Path makes one slash of two
_YES = {"1", "true", "yes", "on"}


@dataclass(frozen=True)
class HubName:
    """A repository, or a folder in it. revision: branch, tag or commit; empty for the main branch."""

    kind: Kind
    repo: str
    revision: str = ""
    path: str = ""

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        if self.kind == "model":
            return f"hf:{self.repo}{at}"
        return f"hf://datasets/{self.repo}{at}" + (f"/{self.path}" if self.path else "")


def dataset_name(text: str) -> HubName | None:
    """A data set by its address, or None for any other text."""
    match = _DATASET.fullmatch(text)
    return None if match is None else HubName("dataset", match[1], match[2] or "", (match[3] or "").strip("/"))


def model_name(text: str) -> HubName | None:
    """A model by its name, or None for any other text; `owner/name` counts only where nothing here is called so.

    A name whose first part is a folder is the path of something that is missing, not a reason to ask the network.
    """
    match = _MODEL.fullmatch(text)
    if match is None:
        return None
    if not text.startswith("hf:") and (Path(text).exists() or Path(match[1].split("/")[0]).exists()):
        return None
    return HubName("model", match[1], match[2] or "")


def endpoint() -> str:
    """The Hub's address, or that of a mirror."""
    return (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")


def hub_offline() -> bool:
    """Whether nothing may be asked of the Hub."""
    return is_offline() or any(os.environ.get(name, "").lower() in _YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def require_online(name: HubName) -> None:
    """Raise FetchError while offline."""
    if hub_offline():
        raise FetchError(f"{name}: offline, and the Hub would have to be asked", "leave out --offline, and unset HF_HUB_OFFLINE")


def token() -> str | None:
    """The token of `HF_TOKEN`, or that of `hf auth login`."""
    from huggingface_hub import get_token

    return get_token()


def api() -> Any:
    """A client for the endpoint of the environment as it is now."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), library_name="eeg-dreamdiff")


def pinned(name: HubName) -> HubName:
    """The same repository at the commit that its revision means now, so that all that is read is of one version.

    Raises:
        FetchError: offline, no such repository or revision, or no permission.
    """
    if re.fullmatch(r"[0-9a-f]{40}", name.revision):
        return name
    require_online(name)
    info = asked(name, lambda: api().repo_info(name.repo, repo_type=name.kind, revision=name.revision or None))
    return replace(name, revision=str(info.sha))


def file_url(name: HubName) -> str:
    """Address under which the files of a folder in a repository are served; ranges are answered."""
    prefix = "datasets/" if name.kind == "dataset" else ""
    return f"{endpoint()}/{prefix}{name.repo}/resolve/{name.revision or 'main'}" + (f"/{name.path}" if name.path else "")


def snapshot(
    name: HubName, patterns: Sequence[str], *, folder: Path | None = None, offline: bool = False,
    cache_dir: str | Path | None = None, token: str | bool | None = None,
) -> Path:  # fmt: skip
    """Files of a repository on this machine: those that are missing are downloaded, and a broken download is continued.

    Args:
        patterns: which files; nothing else is brought.
        folder: where to, as plain files; default the Hub's own cache.
        offline: use what is in the cache.
    """
    from huggingface_hub import snapshot_download

    return Path(
        asked(
            name,
            lambda: snapshot_download(  # type: ignore[misc]
                name.repo, repo_type=name.kind, revision=name.revision or None, allow_patterns=list(patterns), local_dir=folder,
                local_files_only=offline or hub_offline(), endpoint=endpoint(), cache_dir=cache_dir, token=token,
            ),
        )
    )  # fmt: skip


def asked(name: HubName, request: Callable[[], ResultT]) -> ResultT:
    """What a request gives, with errors of the client in our words."""
    try:
        return request()
    except (UsageError, LicenceError):
        raise
    except Exception as error:  # the client raises many kinds, of its own, of HTTP libraries and of the operating system
        raise _explained(name, error) from None


def _explained(name: HubName, error: Exception) -> FetchError:
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError":
        return FetchError(
            f"{name}: its owner asks for a form to be filled in first",
            f"open {endpoint()}/{name.repo}, agree there, then run `hf auth login` and the same command again",
        )
    if kind == "RevisionNotFoundError":
        return FetchError(f"{name}: there is no such revision", "give a branch, tag or commit that its page lists")
    if kind == "RepositoryNotFoundError" or status in (401, 403):
        return FetchError(
            f"{name}: the Hub knows no such {name.kind}, or this account may not do that",
            "check the name; `hf auth login` says who you are",
        )
    if kind in ("LocalEntryNotFoundError", "OfflineModeIsEnabled") or (hub_offline() and isinstance(error, FetchError)):
        return FetchError(
            f"{name}: not in the Hub's cache on this machine, and the Hub was not or could not be asked",
            "run once with a network connection, without --offline and HF_HUB_OFFLINE",
        )
    reason = " ".join(f"{kind}: {error}".split())[:200]
    return FetchError(f"{name}: {reason}", "check the network connection, then run the same command again")
