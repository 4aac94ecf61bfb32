"""Is every byte of a store there and unchanged, and can every window be made again from its sources?

Plain zarr shows a missing chunk as its fill value; here it is an error. The commit record of each subject holds the size and
SHA-256 of every file of its group.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from eegprep.corpus.reader import Corpus
from eegprep.download import fetch as downloads
from eegprep.errors import FetchError, StoreError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.sources.listing import Task
from eegprep.store import format as store
from eegprep.store import recordings as recordings_store
from eegprep.store.checks import Problem, Verification, check_file, check_group
from eegprep.store.commit import Commit, StoredFile, finished_files, read_node, read_root


def verify(
    path: str | Path,
    *,
    fast: bool = False,
    repair: bool = False,
    deep: bool = False,
    source: list[str] | None = None,
    data_dir: str | Path | None = None,
    offline: bool = False,
    progress: ProgressCallback | None = None,
) -> Verification:
    """Compare every file of a corpus or recordings store with its commit record, and every group with the root's.

    Args:
        path: the store.
        fast: sizes only; the default also hashes every byte.
        repair: make the groups with a problem again from their sources, and only those.
        deep: also make every group again in a temporary folder and compare bit for bit.
        source, data_dir, offline: where the sources are now; default is where the store was built from.

    Raises:
        StoreError: there is no store, or a repair is not possible.

    Example:
        >>> import eegprep
        >>> eegprep.verify("corpus.zarr").exit_code
        0
    """
    root = Path(path)
    result = _check(root, fast, progress)
    bad = sorted({problem.group for problem in result.problems if problem.group})
    repaired: tuple[str, ...] = ()
    if repair and result.problems:
        make = _maker(root, source, data_dir, offline)
        repaired = make(bad, root)
        result = _check(root, fast, progress)
    if deep and not result.problems:
        problems = _compare_again(root, _maker(root, source, data_dir, offline))
        result = Verification(root, result.checked, result.files, result.bytes, tuple(problems))
    return Verification(root, result.checked, result.files, result.bytes, result.problems, repaired)


def _check(root: Path, fast: bool, progress: ProgressCallback | None) -> Verification:
    node = read_root(root)
    if node["attributes"].get("format") not in (store.FORMAT, store.VIEW_FORMAT, recordings_store.FORMAT):
        raise StoreError(f"{root}: not a store of this software", "give a corpus or a recordings store")
    finished = finished_files(node, str(root))
    groups = _groups(root)
    problems = [*_lost_groups(node, finished, groups), *_unexpected_files(root, groups), *_datasets(root, finished)]
    files = size = 0
    for number, (dataset, subject) in enumerate(groups):
        if progress is not None:
            progress(number, len(groups), f"{dataset}/{subject}")
        name = f"{dataset}/{subject}"
        checked = check_group(root / name, name, fast, finished.get(f"{name}/zarr.json"))
        problems += checked.problems or _unlike_root(root, node, finished, name)
        files, size = files + checked.files, size + checked.bytes
    if progress is not None:
        progress(len(groups), len(groups), "")
    # only if all files are as they were: otherwise the reader would say the same again
    if not problems and node["attributes"]["format"] != recordings_store.FORMAT:
        problems += _as_readers_see_it(root)
    if not problems and node["attributes"]["format"] == store.VIEW_FORMAT:
        problems += _recordings_of_view(root, groups, fast)
    return Verification(root, len(groups), files, size, tuple(problems))


def _as_readers_see_it(root: Path) -> list[Problem]:
    """What keeps a corpus from being opened although every file is as it was committed: names or shapes in the root of version 1."""
    try:
        Corpus.open(root)
    except StoreError as error:
        return [Problem("", "altered", "zarr.json", error.problem)]
    return []


def _recordings_of_view(root: Path, groups: Iterable[tuple[str, str]], fast: bool) -> list[Problem]:
    """Recordings that a view refers to and that are not there, or not as they were when they were indexed."""
    problems = []
    for dataset, subject in groups:
        key = f"{dataset}/{subject}"
        task = Task.from_json(read_node(root / key / "zarr.json")["attributes"]["view"]["reading"])
        for file in task.files:
            try:
                downloads.check([file], Path(task.root), quick=fast)
            except FetchError as error:
                problems.append(Problem(key, "altered", file.name, error.problem))
    return problems


def _groups(root: Path) -> list[tuple[str, str]]:
    """(dataset, subject) of every folder with metadata; links are not followed, `_unexpected_files` names them."""
    return [
        (dataset.name, subject.name)
        for dataset in sorted(root.iterdir())
        if _is_folder(dataset)
        for subject in sorted(dataset.iterdir())
        if _is_folder(subject) and (subject / "zarr.json").exists()
    ]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")


def _datasets(root: Path, finished: Mapping[str, StoredFile]) -> list[Problem]:
    """The metadata of the data sets' groups, against what the root says of them."""
    names = []
    for name, record in finished.items():
        problem = check_file(root, name, record, False) if name.count("/") == 1 else None
        if problem is not None and problem[0] != "missing":  # what is missing is named with what does not belong there
            names.append(Problem("", problem[0], name, problem[1]))
    return names


def _unlike_root(root: Path, node: Mapping[str, Any], finished: Mapping[str, StoredFile], name: str) -> list[Problem]:
    """In version 1 the root has a copy of each group's metadata and no digest of it."""
    copies = node.get("consolidated_metadata")
    copy = copies["metadata"].get(name) if isinstance(copies, dict) and isinstance(copies.get("metadata"), dict) else None
    if finished or copy is None or copy == read_node(root / name / "zarr.json"):
        return []
    return [Problem(name, "altered", "zarr.json", "not the group whose metadata the root holds")]


def _lost_groups(node: Mapping[str, Any], finished: Mapping[str, StoredFile], groups: Iterable[tuple[str, str]]) -> list[Problem]:
    """Subjects that the store's own lists name and that are not there."""
    there = {f"{dataset}/{subject}" for dataset, subject in groups}
    people = node["attributes"].get("people", {})
    listed = {name for names in people.values() for name in names} if isinstance(people, dict) else set()
    listed |= {name.removesuffix("/zarr.json") for name in finished if name.count("/") == 2}
    return [Problem(name, "missing", "zarr.json", "the whole group is gone") for name in sorted(listed - there)]


def _unexpected_files(root: Path, groups: Iterable[tuple[str, str]]) -> list[Problem]:
    """Folders and files that belong to no group; hidden ones are leftovers of killed runs and do no harm."""
    known = {root / dataset / subject for dataset, subject in groups}
    datasets = {path.parent for path in known}
    strays = [path for path in root.iterdir() if path not in datasets and path.name != "zarr.json"]
    for dataset in datasets:
        strays += [path for path in dataset.iterdir() if path not in known and path.name != "zarr.json"]
        if not (dataset / "zarr.json").is_file():
            strays.append(dataset / "zarr.json")
    result = []
    for path in sorted(path for path in strays if not path.name.startswith(".")):
        name = path.relative_to(root).as_posix()
        if path.name == "zarr.json":
            result.append(Problem("", "missing", name, "the data set's group has no metadata"))
        elif path.is_symlink():
            result.append(Problem(name if name.count("/") == 1 else "", "altered", name, "is a link"))
        elif len(path.relative_to(root).parts) == 2 and path.is_dir():
            result.append(Problem(name, "uncommitted", name, "a subject's folder without a commit record"))
        else:
            result.append(Problem("", "extra", name, "does not belong to the store"))
    return result


Maker = Callable[[list[str] | None, Path], tuple[str, ...]]


def _maker(root: Path, source: list[str] | None, data_dir: str | Path | None, offline: bool) -> Maker:
    """A function that makes groups of the store again (None: all), into some folder."""
    from eegprep.steps.remake import remake  # not at the top: `build` is the larger module, and reading needs none of it

    def make(names: list[str] | None, into: Path) -> tuple[str, ...]:
        if names is not None and not names:
            raise StoreError(
                f"{root}: the damage is outside the subject folders",
                "delete the files listed above, or run the command that made the store again",
            )
        return remake(root, names, into, source=source, data_dir=data_dir, offline=offline)

    return make


def _compare_again(root: Path, make: Maker) -> list[Problem]:
    """Make everything again beside the store, and compare file by file."""
    # beside the store: the temporary folder of the system may be too small
    scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}.deep.", dir=root.parent))
    try:
        again = scratch / "again.zarr"
        make(None, again)
        problems = []
        for dataset, subject in recordings_store.subjects(root):
            name = f"{dataset}/{subject}"
            old, new = (_committed_files(place / dataset / subject) for place in (root, again))
            if new is None:
                problems.append(Problem(name, "different", "", "its sources give no windows now"))
                continue
            for file in sorted({*(old or {}), *new}):
                if (old or {}).get(file) != new.get(file):
                    problems.append(Problem(name, "different", file, "made again from its sources, it is not the same"))
        return problems
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _committed_files(folder: Path) -> dict[str, object] | None:
    if not (folder / "zarr.json").is_file():
        return None
    return dict(Commit.of(read_node(folder / "zarr.json")["attributes"], str(folder)).files)


def trace(path: str | Path, index: int) -> dict[str, object]:
    """Where window `index` of a corpus comes from: files with SHA-256, session, run, first sample, channels, band.

    Raises:
        UsageError: there is no such window.
    """
    corpus = Corpus.open(path)
    if not 0 <= index < len(corpus):
        raise UsageError(f"{path}: window {index} does not exist (it has {len(corpus)})", f"use 0 to {len(corpus) - 1}")
    record = corpus.record(index)
    key = corpus.keys[int(corpus.group_of([index])[0])]
    return {
        "group": key,
        "start": int(corpus.column("start")[index]),
        "label": corpus.labels[index],
        **{name: record[name] for name in ("session", "run", "sources", "sfreq", "band", "channels", "pad_map")},
    }
