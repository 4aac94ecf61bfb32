"""The store that a step writes: made, or checked, before its jobs run, and finished after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from eegprep.errors import StoreError
from eegprep.provenance import plain_json
from eegprep.signals.recipe import Recipe, recipe_fingerprint
from eegprep.store import recordings as recordings_store
from eegprep.store import root
from eegprep.store.commit import is_as_finished, read_root
from eegprep.store.format import FORMAT, VIEW_FORMAT, check_corpus_attributes
from eegprep.store.records import LeftOutSubject
from eegprep.store.recovery import usable_root


class Target(Protocol):
    """What a step needs to know of the store that it writes."""

    @property
    def out(self) -> Path: ...

    def create(self) -> None:
        """Make the store, or check that what is there is one of the same kind."""

    def finish(self, left_out: Mapping[str, LeftOutSubject] | None, changed: bool) -> None:
        """Write what belongs to the whole store and clear what killed runs left.

        Args:
            left_out: subjects without one usable recording; None leaves those that the store names as they are.
            changed: whether a job ran.
        """


@dataclass(frozen=True)
class RecordingsTarget:
    """A recordings store. inherited: what an earlier step left out, which no later one can see."""

    out: Path
    stage: str
    settings: Mapping[str, Any]
    inherited: Mapping[str, LeftOutSubject] = field(default_factory=dict)

    def create(self) -> None:
        recordings_store.create_recordings(self.out, self.stage, self.settings)

    def finish(self, left_out: Mapping[str, LeftOutSubject] | None, changed: bool) -> None:
        values = {} if left_out is None else {"left_out": left_out_to_json({**self.inherited, **left_out})}
        recordings_store.finish_recordings(self.out, **values)


@dataclass(frozen=True)
class CorpusTarget:
    """A corpus. names: the subjects that this run makes; inherited: as in `RecordingsTarget`."""

    out: Path
    settings: Mapping[str, Any]
    fingerprint: str
    channels: int
    samples: int
    names: frozenset[str]
    inherited: Mapping[str, LeftOutSubject] = field(default_factory=dict)
    kind: str = FORMAT

    @classmethod
    def of(
        cls,
        out: Path,
        recipe: Recipe,
        names: Iterable[str],
        inherited: Mapping[str, LeftOutSubject] | None = None,
        *,
        kind: str = FORMAT,
    ) -> CorpusTarget:
        """The corpus of a recipe, or a view of that kind."""
        settings, fingerprint = recipe.model_dump(mode="json"), recipe_fingerprint(recipe)
        return cls(out, settings, fingerprint, recipe.channels, recipe.window, frozenset(names), inherited or {}, kind)

    def create(self) -> None:
        shape: dict[str, Any] = {"channels": self.channels, "samples": self.samples, "kind": self.kind}
        node = usable_root(self.out)
        if node is None:
            if self.out.is_dir():
                self._check_same_recipe()
            root.create_corpus(self.out, self.settings, self.fingerprint, **shape)
            return
        stored = check_corpus_attributes(node["attributes"], str(self.out), views=self.kind == VIEW_FORMAT)["fingerprint"]
        root.create_corpus(self.out, {}, stored, **shape)  # checks the shape, which no recipe may change
        if stored != self.fingerprint:
            self._check_same_recipe()
            root.set_recipe(self.out, self.settings, self.fingerprint)

    def finish(self, left_out: Mapping[str, LeftOutSubject] | None, changed: bool) -> None:
        if left_out is not None:
            content = plain_json(left_out_to_json({**self.inherited, **left_out}))
            node = read_root(self.out)
            same = node["attributes"].get("left_out") == content
            if same and not changed and "consolidated_metadata" in node and is_as_finished(self.out, node):
                return  # nothing was done, and an earlier run finished
            if not same:
                root.set_attributes(self.out, left_out=content)
        root.finish_corpus(self.out)

    def _check_same_recipe(self) -> None:
        """Subjects in the corpus that this run does not name would keep the old recipe, and the corpus would be a mixture."""
        others = [f"{dataset}/{subject}" for dataset, subject in recordings_store.subjects(self.out)]
        others = [name for name in others if name not in self.names]
        if others:
            raise StoreError(
                f"{self.out}: holds {len(others)} subjects made with another recipe that this command does not name ({others[0]}, ...)",
                "name them too, so that they are made again, or choose another --out",
            )


def left_out_to_json(subjects: Mapping[str, LeftOutSubject]) -> Mapping[str, Any]:
    """The attribute `left_out` of a root."""
    return {name: subject.to_json() for name, subject in sorted(subjects.items())}
