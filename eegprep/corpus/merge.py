"""Merges corpora into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eegprep import atomic
from eegprep.corpus.reader import Corpus
from eegprep.errors import StoreError, UsageError
from eegprep.locks import store_lock
from eegprep.provenance import fingerprint
from eegprep.recording import ProgressCallback
from eegprep.store.checks import whole_group
from eegprep.store.commit import Commit, group_node, publish_group, start_group, write_node
from eegprep.store.root import create_corpus, finish_corpus


def merge(stores: Sequence[str | Path], out: str | Path, *, progress: ProgressCallback | None = None) -> Corpus:
    """Bring the subjects of several corpora together. Files are copied as they are, and checked against their SHA-256.

    Args:
        stores: folders or addresses of corpora with windows of one shape.
        out: the corpus to create or resume.

    Returns:
        The merged corpus.

    Raises:
        StoreError: windows of different shapes, two different subjects of one name, or a damaged file.

    Example:
        >>> import eegprep
        >>> eegprep.merge(["corpus.zarr"], "merged.zarr").shape
        (148, 128, 512)
    """
    if not stores:
        raise UsageError("no corpora to merge", "name at least one")
    opened = [Corpus.open(store) for store in stores]
    shapes = {(corpus.channels, corpus.samples) for corpus in opened}
    if len(shapes) > 1:
        raise StoreError(f"the corpora hold windows of different shapes: {sorted(shapes)}", "merge corpora of one shape")
    _check_names(opened)
    recipes = {corpus.attributes["fingerprint"]: corpus.attributes["recipe"] for corpus in opened}
    # parts of one corpus stay that corpus; of several, all recipes are kept
    recipe = next(iter(recipes.values())) if len(recipes) == 1 else {"merged": dict(sorted(recipes.items()))}
    name = next(iter(recipes)) if len(recipes) == 1 else fingerprint(recipe)
    root = Path(out)
    with store_lock(root):
        create_corpus(root, recipe, name, channels=opened[0].channels, samples=opened[0].samples)
        jobs = [(corpus, key) for corpus in opened for key in corpus.keys]
        for done, (corpus, key) in enumerate(jobs, start=1):
            # the whole record: the key alone does not say whether the content behind it is the same
            if whole_group(root / key).get("commit") != corpus.attributes_of(key)["commit"]:
                _copy_group(corpus, key, root)
            if progress:
                progress(done, len(jobs), key)
        finish_corpus(root)
    return Corpus.open(root)


def _check_names(corpora: Sequence[Corpus]) -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for corpus in corpora:
        for key in corpus.keys:
            commit = corpus.attributes_of(key)["commit"]
            url, known = seen.setdefault(key, (corpus.url, commit))
            if known != commit:
                raise StoreError(
                    f"{key} is in {url} and in {corpus.url} with different content",
                    "leave one of them out, or build one under another name",
                )


def _copy_group(corpus: Corpus, key: str, root: Path) -> None:
    """Copy the files of a group as they are; each is compared with its record before anything gets its name."""
    where = f"{corpus.url}/{key}"
    attributes = corpus.attributes_of(key)
    commit = Commit.of(attributes, where)  # checks the names of all files before the first is read
    partial = start_group(root, key)
    try:
        for name, record in commit.files.items():
            content = corpus.file(f"{key}/{name}")
            problem = record.problem(content)
            if problem is not None:
                raise StoreError(
                    f"{where}/{name}: does not fit the commit record ({problem})",
                    "run `eegprep verify --repair` on that corpus first",
                )
            path = partial / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        write_node(partial, group_node(attributes))
        publish_group(root, key, partial)
    finally:
        atomic.remove(partial)
