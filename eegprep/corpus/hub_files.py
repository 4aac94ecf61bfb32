"""Corpora in data set repositories of the Hugging Face Hub: `hf://datasets/owner/name[@revision][/path]`, read by ranges.

The revision is turned into a commit when a corpus is opened: what is read later, in other processes too, is of that version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from obstore.store import from_url

from eegprep.corpus.objects import ObjectFiles
from eegprep.download import hub
from eegprep.download.hub import HubName
from eegprep.errors import StoreError, UsageError

MANIFEST = "manifest.json"  # see sharing.manifest


def hub_files(url: str, options: Mapping[str, Any]) -> HubFiles:
    """Where the bytes of a corpus on the Hub come from.

    Raises:
        UsageError: an address of another form. FetchError: offline, or the repository or revision is not there.
    """
    name = hub.dataset_name(url)
    if name is None:
        raise UsageError(f"{url}: not an address of a data set", "write hf://datasets/OWNER/NAME[@REVISION][/PATH]")
    name = hub.pinned(name)
    if not name.path:  # what was published from here says where the store is
        name = replace(name, path=_store_in(name, options))
    return HubFiles(str(name), options)


def _store_in(name: HubName, options: Mapping[str, Any]) -> str:
    try:
        return str(json.loads(HubFiles(str(name), options).metadata(MANIFEST))["store"])
    except (StoreError, ValueError, KeyError, TypeError):
        return ""  # the repository is the store


class HubFiles(ObjectFiles):
    """Files of one commit."""

    def _open(self) -> Any:
        name = hub.dataset_name(self.url)
        assert name is not None
        hub.require_online(name)
        token = hub.token()
        address = hub.file_url(name)
        client: dict[str, Any] = {"timeout": "30s", "connect_timeout": "10s", "allow_http": address.startswith("http://")}
        if token:
            client["default_headers"] = {"authorization": f"Bearer {token}"}
        return from_url(address, **{"client_options": client, **self.options})
