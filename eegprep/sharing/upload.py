"""Sends files to a repository of the Hub, as one commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eegprep.download import hub
from eegprep.download.hub import HubName
from eegprep.errors import LicenceError, UsageError
from eegprep.sharing.manifest import Files

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pushed:
    """What is there now. commit: names this version for ever."""

    name: HubName
    url: str
    commit: str
    files: int
    bytes: int
    private: bool
    licence: str

    def to_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "repository": self.name.repo, "kind": self.name.kind, "url": self.url, "commit": self.commit, "files": self.files, "bytes": self.bytes,
            "private": self.private, "licence": self.licence,
        }  # fmt: skip


def repository(text: str, kind: hub.Kind) -> HubName:
    """OWNER/NAME of a repository to publish to.

    Raises:
        UsageError: another form.
    """
    if re.fullmatch(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*", text) is None:
        raise UsageError(f"--to {text!r} is not of the form OWNER/NAME", "write for instance --to my-lab/eeg-corpus")
    return HubName(kind, text)


def size_of(files: Files) -> int:
    """Bytes of all files."""
    return sum(len(content) if isinstance(content, bytes) else content.stat().st_size for content in files.values())


def upload(files: Files, name: HubName, *, private: bool, licence: str, message: str, say: Say | None = None) -> Pushed:
    """Create the repository where it is not there, and make these files its content, in one commit.

    A killed upload leaves the repository as it was; what arrived of large files is not sent again.

    Args:
        private: for a repository that only its owner can read; one that is public already is refused.
        licence: of what is published, as the Hub names it.

    Raises:
        FetchError: offline, no permission, or a broken connection. LicenceError: `private`, and the repository is public.
    """
    hub.require_online(name)
    size = size_of(files)
    if say:
        say(f"{name}: {len(files)} files, {size / 1e6:.1f} MB")
    commit = hub.asked(name, lambda: _send(files, name, private, message))
    url = f"{hub.endpoint()}/{'datasets/' if name.kind == 'dataset' else ''}{name.repo}"
    return Pushed(name, url, commit, len(files), size, private, licence)


def _send(files: Files, name: HubName, private: bool, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    client = hub.api()
    client.create_repo(name.repo, repo_type=name.kind, private=private, exist_ok=True)
    info = client.repo_info(name.repo, repo_type=name.kind)
    if private and not info.private:
        raise LicenceError(
            f"{name}: is a public repository, and this may only go into a private one",
            "make it private on its page, or name another --to",
        )
    there = {sibling.rfilename for sibling in info.siblings or ()}
    operations: list[Any] = [CommitOperationAdd(file, content) for file, content in files.items()]
    operations += [CommitOperationDelete(file) for file in sorted(there - files.keys() - {".gitattributes"})]
    # parent_commit: somebody who publishes there at the same time is not overwritten unseen
    commit = client.create_commit(
        name.repo, operations, commit_message=message, repo_type=name.kind, parent_commit=str(info.sha) if info.sha else None
    )
    return str(commit.oid)
