"""Remembers what a store was built from."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from eegprep.atomic import write_json


@dataclass(frozen=True)
class Choice:
    """What a command chooses for all of its sources.

    subjects: ids and ranges. dataset: name of the data set, instead of the sources' own. scale: factor for all values.
    """

    subjects: str | None = None
    dataset: str | None = None
    scale: float | None = None


@dataclass(frozen=True)
class StoreOrigin:
    """What a store was made from. Kept in the user's cache, not in the store: it holds paths of this machine."""

    command: str
    source: tuple[str, ...]
    subjects: str | None = None
    data_dir: str = ""
    offline: bool = False
    keep_private: bool = False
    dataset: str | None = None
    scale: float | None = None

    @property
    def choice(self) -> Choice:
        """What was chosen for all sources."""
        return Choice(self.subjects, self.dataset, self.scale)

    @staticmethod
    def _file(root: Path) -> Path:
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:24]
        return Path(platformdirs.user_cache_dir("eeg-dreamdiff", appauthor=False)) / "origins" / f"{name}.json"

    def remember(self, root: Path) -> None:
        """Note it; a cache that cannot be written only means that `--repair` needs `--source`."""
        content = {**vars(self), "source": list(self.source)}
        file = self._file(root)
        with suppress(OSError, ValueError):
            if file.is_file() and json.loads(file.read_text()) == content:
                return
        with suppress(OSError):
            write_json(file, content)

    @classmethod
    def recall(cls, root: Path) -> StoreOrigin | None:
        try:
            content = json.loads(cls._file(root).read_text())
            return cls(**{**content, "source": tuple(content["source"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None
