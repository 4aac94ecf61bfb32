"""The store that a step writes: made, or checked, before its jobs run, and finished after them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from eegprep.errors import StoreError
from eegprep.provenance import plain_json
from eegprep.settings import differences
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
        """Make the store, or check that what is there is one of the same kind and settings."""

    def changes(self) -> list[str]:
        """In which settings a store that is there with subjects differs, as `--low 5 there, 1 here`; raises where it is of another kind."""

    def at(self, out: Path) -> Target:
        """The same store in another place."""

    def finish(self, left_out: Mapping[str, LeftOutSubject] | None, changed: bool, compared: Container[str] = ()) -> None:
        """Write what belongs to the whole store and clear what killed runs left.

        Args:
            left_out: subjects without one usable recording; None leaves those that the store names as they are.
            changed: whether a job ran. compared: groups whose metadata this run has compared with the root.
        """


@dataclass(frozen=True)
class RecordingsTarget:
    """A recordings store. inherited: what an earlier step left out, which no later one can see."""

    out: Path
    stage: str
    settings: Mapping[str, Any]
    inherited: Mapping[str, LeftOutSubject] = field(default_factory=dict)

    def create(self) -> None:
        refuse_changes(self.out, self.changes())
        recordings_store.create_recordings(self.out, self.stage, self.settings)

    def changes(self) -> list[str]:
        node = usable_root(self.out, "a recordings store", "choose another output")
        attributes = {} if node is None else node["attributes"]
        if attributes.get("format") != recordings_store.FORMAT or attributes.get("stage") != self.stage:
            return []  # `create` says what it is
        return (
            differences(attributes["recipe"], plain_json(self.settings), options=True)
            if recordings_store.subjects(self.out)
            else []
        )

    def at(self, out: Path) -> RecordingsTarget:
        return replace(self, out=out)

    def finish(self, left_out: Mapping[str, LeftOutSubject] | None, changed: bool, compared: Container[str] = ()) -> None:
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
        refuse_changes(self.out, self.changes())
        node = usable_root(self.out)
        if node is None and self.out.is_dir():
            refuse_others(self.out, self.names)
        if node is not None and not recordings_store.subjects(self.out):
            root.set_recipe(self.out, self.settings, self.fingerprint)  # nothing was made with the other one
        shape: dict[str, Any] = {"channels": self.channels, "samples": self.samples, "kind": self.kind}
        root.create_corpus(self.out, self.settings, self.fingerprint, **shape)

    def changes(self) -> list[str]:
        node = usable_root(self.out)
        if node is None or not recordings_store.subjects(self.out):
            return []
        stored = check_corpus_attributes(node["attributes"], str(self.out), views=self.kind == VIEW_FORMAT)
        if stored["fingerprint"] == self.fingerprint:
            return []
        different = differences(stored["recipe"], plain_json(self.settings), options=True)
        return different or ["made by a version whose same settings give other numbers"]

    def at(self, out: Path) -> CorpusTarget:
        return replace(self, out=out)

    def finish(self, left_out: Mapping[str, LeftOutSubject] | None, changed: bool, compared: Container[str] = ()) -> None:
        if left_out is not None:
            content = plain_json(left_out_to_json({**self.inherited, **left_out}))
            node = read_root(self.out)
            # as JSON on both sides: tuples become lists on the way to disk
            same = node["attributes"].get("left_out") == content
            if same and not changed and "consolidated_metadata" in node and is_as_finished(self.out, node, compared):
                return  # nothing was done, and an earlier run finished
            if not same:
                root.set_attributes(self.out, left_out=content)
        root.finish_corpus(self.out)


def refuse_changes(out: Path, changes: Sequence[str]) -> None:
    """A finished store is never replaced by a slip: another setting is refused, with both values."""
    if changes:
        raise StoreError(
            f"{out}: was made with other settings ({'; '.join(changes)})",
            "give the settings it was made with, or another --out, or add --rebuild to make it again (in Python: rebuild=True)",
        )


def refuse_others(out: Path, names: Container[str]) -> None:
    """Subjects in a store that a run with other settings does not name would keep the old ones, and the store would be a mixture."""
    others = [f"{dataset}/{subject}" for dataset, subject in recordings_store.subjects(out)]
    others = [name for name in others if name not in names]
    if others:
        raise StoreError(
            f"{out}: holds {len(others)} subjects made with another recipe that this command does not name ({others[0]}, ...)",
            "name them too, so that they are made again, or choose another --out",
        )


def left_out_to_json(subjects: Mapping[str, LeftOutSubject]) -> Mapping[str, Any]:
    """The attribute `left_out` of a root."""
    return {name: subject.to_json() for name, subject in sorted(subjects.items())}
