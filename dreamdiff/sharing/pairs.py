"""EEG-image pairs as a data set repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamdiff.lineage.seen import data_set
from dreamdiff.pairs.reader import Pairs
from eegprep.download.hub import dataset_name
from eegprep.errors import StoreError
from eegprep.sharing.card import section, table
from eegprep.sharing.corpus import repository_files
from eegprep.sharing.licences import Verdict, judge, links_of
from eegprep.sharing.manifest import Files, files_of
from eegprep.words import count


def pairs_repository(
    store: Path, to: str, private: bool, non_commercial: bool, licences: Mapping[str, str]
) -> tuple[Files, Verdict]:
    """All files of the repository, and the verdict on the licences of EEG and images.

    Raises:
        StoreError: a view of a corpus that is on this machine only. LicenceError: a licence that forbids it.
    """
    pairs = Pairs.open(store)
    corpus = str(dict(pairs._root.attrs).get("corpus", {}).get("url", ""))  # type: ignore[call-overload, union-attr]
    if corpus and dataset_name(corpus) is None:
        raise StoreError(
            f"{store}: is a view of a corpus ({corpus}) and holds no EEG, so others could not read it",
            "publish the corpus (`dreamdiff push CORPUS --to OWNER/NAME`), make the view again from hf://datasets/OWNER/NAME, and publish that",
        )
    name = data_set(pairs) or store.resolve().name
    verdict = judge(links_of("recordings", name, pairs.licence, licences), private=private, non_commercial=non_commercial)
    files: dict[str, Path | bytes] = {f"{store.name}/{file}": path for file, path in files_of(store).items()}
    facts = [
        count(len(pairs), "trial"), count(len(pairs.subjects), "person"), count(len(pairs.classes), "category"), count(len(pairs.image_sha256), "image"),
        f"{pairs.provenance} EEG", *([f"EEG in {corpus}"] if corpus else []),
    ]  # fmt: skip
    return repository_files(
        files, to, store=store.name, verdict=verdict, title=store.resolve().stem, facts=facts, body=_body(pairs, to),
        citations=[], kind="pairs", tags=["eeg", "eeg-image-pairs", "zarr", *(["simulated-eeg"] if pairs.provenance == "simulated" else [])],
    ), verdict  # fmt: skip


def _body(pairs: Pairs, to: str) -> list[str]:
    use = f'```python\nimport dreamdiff\n\npairs = dreamdiff.Pairs.open("hf://datasets/{to}")\npairs.select(split="test").eeg([0, 1])\n```'
    rows: list[dict[str, Any]] = []
    for number, person in enumerate(pairs.subjects):
        facts, own = pairs.attributes[person], pairs.person == number
        rows.append(
            {
                "person": person, "trials": int(own.sum()), "rate (Hz)": f"{float(facts.get('sfreq') or 0):g}", "channels": facts.get("n_channels"),
                "sessions": len(np.unique(pairs.session[own])), "blocks": facts.get("blocks"),
            }
        )  # fmt: skip
    splits = [{"part": name, "trials": len(numbers)} for name, numbers in pairs._stored_splits.items()]
    simulated = pairs.provenance == "simulated"
    return [
        "> **The EEG is simulated.** It has a known answer, and says nothing about brains.\n" if simulated else "",
        section("Use", use), section("People", table(rows)), section("Splits", table(splits)),
        section(
            "Limits",
            "Run `dreamdiff pairs audit` on a split before training: it says what the split leaks. "
            "Images that are stored as references have to be brought by whoever uses them, under their own licence.",
        ),
    ]  # fmt: skip
