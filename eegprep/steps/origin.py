"""Remembers what a store was built from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eegprep.atomic import write_json
from eegprep.folders import cache_folder
from eegprep.provenance import sha256
from eegprep.sealed import read_object


@dataclass(frozen=True)
class Choice:
    """What a command chooses for all of its sources.

    subjects: ids and ranges. dataset: name of the data set, instead of the sources' own. scale: factor for all values.
    bad, sfreq, unit, channel_names: see `readers.content.Reading`. subject_pattern, session_pattern: see `naming.read_name`.
    None where nothing was said.
    """

    subjects: str | None = None
    dataset: str | None = None
    scale: float | None = None
    bad: str | None = None
    sfreq: float | None = None
    unit: str | None = None
    channel_names: tuple[str, ...] | None = None
    subject_pattern: str | None = None
    session_pattern: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """All but the subjects, by name."""
        return {key: value for key, value in vars(self).items() if key != "subjects"}


def choose(
    subjects: str | None,
    dataset: str | None,
    scale: float | None,
    bad: str | None,
    sfreq: float | None,
    unit: str | None,
    channel_names: Sequence[str] | None,
    subject_pattern: str | None = None,
    session_pattern: str | None = None,
) -> Choice:
    """A `Choice` from the arguments of a step."""
    names = None if channel_names is None else tuple(channel_names)
    return Choice(subjects, dataset, scale, bad, sfreq, unit, names, subject_pattern, session_pattern)


@dataclass(frozen=True)
class StoreOrigin:
    """What a store was made from. Kept in the user's cache, not in the store: it holds paths of this machine."""

    command: str
    source: tuple[str, ...]
    data_dir: str = ""
    offline: bool = False
    keep_private: bool = False
    choice: Choice = field(default_factory=Choice)

    @staticmethod
    def _file(root: Path) -> Path:
        name = sha256(str(root.resolve()))[:24]
        return cache_folder("origins", f"{name}.json")

    def remember(self, root: Path) -> None:
        """Note it; a cache that cannot be written only means that `--repair` needs `--source`."""
        content = {**vars(self), "source": list(self.source), "choice": json.loads(json.dumps(vars(self.choice)))}
        file = self._file(root)
        # an unchanged note is not written again: builds that do nothing touch no disk
        if read_object(file) == content:
            return
        with suppress(OSError):
            write_json(file, content)

    @classmethod
    def recall(cls, root: Path) -> StoreOrigin | None:
        try:
            content = read_object(cls._file(root)) or {}
            choice = dict(content.pop("choice", {}))
            choice |= {key: content.pop(key) for key in ("subjects", "dataset", "scale") if key in content}  # as 0.1.0 noted them
            names = choice.get("channel_names")
            chosen = Choice(**{**choice, "channel_names": None if names is None else tuple(names)})
            return cls(**{**content, "source": tuple(content["source"]), "choice": chosen})
        except (OSError, ValueError, TypeError, KeyError):
            return None
