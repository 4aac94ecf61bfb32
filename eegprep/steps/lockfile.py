"""A lock file: every data set, subject, run, file hash, setting and library version of a build, as a manifest that repeats it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eegprep.atomic import write_text
from eegprep.catalogue.manifests import ARCHIVES, MANIFEST_ENDINGS, Manifest, Source, shipped_folder
from eegprep.errors import UsageError
from eegprep.provenance import installed
from eegprep.recording import Finding
from eegprep.signals.recipe import Recipe
from eegprep.sources.listing import Task
from eegprep.store import recordings as recordings_store

_SOFTWARE = ("eeg-dreamdiff", "mne", "mne-bids", "moabb", "numcodecs", "numpy", "scipy", "zarr")


def write_lock(path: Path, tasks: Sequence[Task], manifest: Manifest, recipe: Recipe, corpus: Path) -> None:
    """Write the lock file of a finished build.

    Args:
        tasks: the subjects that were built, with their files.
        manifest, recipe: what was asked for, and with which settings.
        corpus: the result, for the names of the runs.
    """
    lines = [f"# {corpus.name}: repeat with `eegprep build {path.name} --out ...`"]
    if manifest.title:
        lines.append(f"title = {_text(manifest.title)}")
    if manifest.target_windows:
        lines += [f"target_windows = {manifest.target_windows}", f"seed = {manifest.seed}"]
    for dataset in dict.fromkeys(task.source.dataset for task in tasks):
        own = [task for task in tasks if task.source.dataset == dataset]
        for source in _sources(own):
            lines += ["", *_source_lines(source, [task for task in own if _names(source, task)], corpus, path)]
    lines += ["", "[recipe]", *_table(recipe.model_dump(mode="json"))]
    lines += ["", "[software]", *_table(installed(*_SOFTWARE))]
    write_text(path, "\n".join(lines) + "\n")


def _sources(tasks: Sequence[Task]) -> list[Source]:
    """The sources that tasks came from, each once."""
    return list({(source.spec, source.files): source for task in tasks for source in (task.source, *task.also)}.values())


def _names(source: Source, task: Task) -> bool:
    return any((source.spec, source.files) == (other.spec, other.files) for other in (task.source, *task.also))


def check_lock_name(path: Path) -> None:
    """A lock file is a manifest, and is read as one by its name.

    Raises:
        UsageError: it would not be.
    """
    if path.suffix not in MANIFEST_ENDINGS:
        raise UsageError(f"--lock {path}: a lock file is a manifest", f"name it {path.with_suffix('.toml').name}")


def _portable(source: Source, path: Path) -> str:
    """The source as another machine can find it: relative to the package or to the lock file."""
    if source.kind in ("moabb", *ARCHIVES):
        return source.spec
    target, package = Path(source.target), shipped_folder()
    # the sample recordings lie inside the package, wherever it is installed
    if target.is_relative_to(package):
        return f"{source.kind}:{target.relative_to(package).as_posix()}"
    # an absolute path would tie the lock file to one machine, and name its user
    return f"{source.kind}:{Path(os.path.relpath(target, path.resolve().parent)).as_posix()}"


def _source_lines(source: Source, tasks: Sequence[Task], corpus: Path, path: Path) -> list[str]:
    fields = {
        "spec": _portable(source, path),
        "dataset": source.dataset,
        "subjects": [task.subject for task in tasks],
        "pattern": source.pattern,
        "person_family": source.person_family,
        "licence": source.licence,
        "doi": source.doi,
        "citation": source.citation,
        "max_per_subject": source.max_per_subject,
        "files": list(source.files),
        "scale": source.scale,
        "bad": "" if source.bad == "keep" else source.bad,
        "sfreq": source.sfreq,
        "unit": source.unit,
        "channel_names": list(source.channel_names),
    }
    lines = ["[[source]]", *_table({key: value for key, value in fields.items() if value not in ("", None, [])})]
    if source.options:
        inside = ", ".join(f"{key} = {json.dumps(value)}" for key, value in source.options.items())
        lines.append(f"options = {{ {inside} }}")
    for task in tasks:
        group = recordings_store.read_group(corpus, source.dataset, task.subject)
        runs = [record.name for record in group.recordings] if group else []
        lines.append(f"# subject {task.subject}: {', '.join(runs) or 'no usable recording'}")
    lines.append("[source.sha256]")
    return [*lines, *(f"{_text(file.name)} = {_text(file.sha256)}" for task in tasks for file in task.files)]


def _table(values: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} = {_text(value) if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
        if value is not None
    ]


def _text(value: str) -> str:
    return json.dumps(value)  # a JSON string is a TOML basic string


def changed_software(manifest: Manifest) -> list[Finding]:
    """What is installed in another version than when the lock file was made: noted, because results may differ."""
    now = installed(*_SOFTWARE)
    return [
        Finding(
            "software", package, None, now.get(package, "missing"), version, "noted", f"{version} when the lock file was made"
        )
        for package, version in sorted(manifest.software.items())
        if now.get(package) != version
    ]
