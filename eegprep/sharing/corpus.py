"""A corpus as a data set repository: the store, a card, Croissant metadata, citations, and the verdict on its licences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from eegprep.catalogue import moabb as catalogue
from eegprep.errors import StoreError
from eegprep.inspection.store_facts import StoreFacts, gather
from eegprep.inspection.verify import verify
from eegprep.provenance import installed_version
from eegprep.sharing.card import front_matter, licence_section, section, table
from eegprep.sharing.croissant import croissant
from eegprep.sharing.licences import Link, Verdict, judge, links_of
from eegprep.sharing.manifest import CARD, CROISSANT, MANIFEST, Files, as_json, files_of, manifest_of
from eegprep.sharing.upload import Pushed, Say, repository, upload
from eegprep.store.format import VIEW_FORMAT
from eegprep.words import count


def push_corpus(
    store: str | Path,
    to: str,
    *,
    private: bool = False,
    non_commercial: bool = False,
    licences: Mapping[str, str] | None = None,
    title: str = "",
    say: Say | None = None,
) -> Pushed:
    """Publish a corpus as `hf://datasets/OWNER/NAME`, which `Corpus.open` and `WindowStream` read by ranges.

    Args:
        to: OWNER/NAME. private: only its owner can read it. non_commercial: under terms of non-commercial use.
        licences: data set -> licence, for those whose recordings say nothing.
        title: of the card; default the name of the store.

    Raises:
        LicenceError: a licence that forbids it, by name. StoreError: the store is not whole. FetchError: the upload failed.

    Example:
        >>> import eegprep
        >>> eegprep.push_corpus("corpus.zarr", "my-lab/corpus")  # doctest: +SKIP
    """
    name = repository(to, "dataset")
    files, verdict = corpus_repository(Path(store), to, private, non_commercial, licences or {}, title)
    return upload(files, name, private=private, licence=verdict.licence, message=f"Corpus {Path(store).name}", say=say)


def corpus_repository(
    store: Path, to: str, private: bool, non_commercial: bool, licences: Mapping[str, str], title: str = ""
) -> tuple[Files, Verdict]:
    """All files of the repository, and the verdict."""
    facts = gather(store)
    if facts.root.get("format") == VIEW_FORMAT:
        raise StoreError(
            f"{store}: is a view, whose recordings lie elsewhere", "make a corpus of the same sources with `eegprep build`"
        )
    verdict = judge(chain_of(facts, licences), private=private, non_commercial=non_commercial)
    named = sorted(
        {f"{listed.dataset}/{listed.subject}" for listed in facts.recordings if listed.record.made and listed.record.made.header}
    )
    if named and not private:
        raise StoreError(
            f"{store}: keeps dates or subject information of {len(named)} people ({', '.join(named[:3])}), which --keep-private asked for",
            "build it again without --keep-private, or publish with --private",
        )
    if verify(store, fast=True).problems:
        raise StoreError(f"{store}: is not whole", f"run `eegprep verify {store} --repair`, then publish")
    files: dict[str, Path | bytes] = {f"{store.name}/{name}": path for name, path in files_of(store).items()}
    return repository_files(
        files, to, store=store.name, verdict=verdict, title=title or store.stem, facts=_facts(facts), body=_body(facts, to, store.name),
        citations=citations(facts), kind="corpus", tags=["eeg", "eegprep", "zarr"],
    ), verdict  # fmt: skip


def repository_files(
    files: dict[str, Path | bytes], to: str, *, store: str, verdict: Verdict, title: str, facts: Sequence[str], body: Sequence[str],
    citations: Sequence[str], kind: str, tags: Sequence[str],
) -> Files:  # fmt: skip
    """A data set repository: the files of a store with manifest, Croissant metadata and card."""
    content = manifest_of(files, store=store, kind=kind, licence=verdict.licence)
    description = f"{title}: {', '.join(facts)}"
    described = croissant(
        name=title, description=description, url=f"https://huggingface.co/datasets/{to}", licence=verdict.licence, citations=citations,
        identifier=content["sha256"], date=datetime.now(UTC).date().isoformat(), files=content["files"], keywords=tags,
        creators=[to.split("/", maxsplit=1)[0]],
    )  # fmt: skip
    head = front_matter({"license": verdict.licence, "pretty_name": title, "tags": [*tags, "croissant"]})
    card = "\n".join(
        [
            head, f"# {title}\n", f"{description}.\n", *body, licence_section(verdict),
            section("Cite", "\n".join(f"- {citation}" for citation in citations), "and the software: https://pypi.org/project/eeg-dreamdiff/"),
            section("Files", f"`{MANIFEST}` names all {len(content['files'])} files with size and SHA-256; `{CROISSANT}` is Croissant metadata."),
        ]
    )  # fmt: skip
    return {**files, MANIFEST: as_json(content), CROISSANT: as_json(described), CARD: card.encode()}


def chain_of(facts: StoreFacts, stated: Mapping[str, str]) -> list[Link]:
    """The licences of all recordings, by data set."""
    chain = []
    for dataset in facts.datasets:
        for licence in sorted({listed.record.licence for listed in facts.of(dataset)}):
            chain += links_of("recordings", dataset, licence, stated)
    return chain


def citations(facts: StoreFacts) -> list[str]:
    """What has to be cited, a line for each data set."""
    lines = []
    for dataset in sorted(facts.datasets):
        own = facts.of(dataset)
        if not own:
            continue
        entry = next((entry for entry in catalogue.entries() if entry.name == dataset), None)
        text = facts.citations.get(dataset) or (entry.title if entry else "")
        dois = sorted({listed.record.doi for listed in own if listed.record.doi})
        lines.append(": ".join(part for part in (dataset, text) if part) + "".join(f" https://doi.org/{doi}" for doi in dois))
    return lines


def _facts(facts: StoreFacts) -> list[str]:
    return [
        count(sum(listed.windows for listed in facts.recordings), "window"), count(len({listed.person for listed in facts.recordings}), "person"),
        count(len(facts.recordings), "recording"), count(len({listed.dataset for listed in facts.recordings}), "data set"),
    ]  # fmt: skip


def _body(facts: StoreFacts, to: str, name: str) -> list[str]:
    root = facts.root
    rows = []
    for dataset in facts.datasets:
        own = facts.of(dataset)
        if own:
            rows.append(
                {
                    "data set": dataset, "people": len({listed.person for listed in own}), "recordings": len(own),
                    "windows": sum(listed.windows for listed in own), "hours": f"{sum(listed.hours for listed in own):.1f}",
                    "rates (Hz)": ", ".join(f"{rate:g}" for rate in sorted({listed.record.sfreq for listed in own})),
                    "licence": ", ".join(sorted({listed.record.licence for listed in own})),
                }
            )  # fmt: skip
    use = (
        f'```python\nimport eegprep\n\ncorpus = eegprep.Corpus.open("hf://datasets/{to}")\n'
        f"corpus.read([0, 1])  # (2, {root.get('channels')}, {root.get('samples')}) float32, uV\n```"
    )
    recipe = json.dumps(root.get("recipe"), indent=2, ensure_ascii=False, default=str)
    left = len(facts.left_out)
    return [
        section("Use", use, f"Windows are float32 in uV. The store is `{name}/`, zarr format 3: plain zarr reads it as well."),
        section("Data", table(rows), f"{left} recordings were left out by the quality gates; the store says which, and why." if left else ""),
        section("How it was made", f"eeg-dreamdiff {installed_version('eeg-dreamdiff')}; fingerprint `{root.get('fingerprint')}`", f"```json\n{recipe}\n```"),
        section(
            "Limits",
            "People are named by the ids of their data sets. What the corpus keeps of a header is what `eegprep inspect` shows: no names, dates or birthdays "
            "unless they were kept on purpose. It is no medical product.",
        ),
    ]  # fmt: skip
