"""`dreamdiff push`: a model, EEG-image pairs or a corpus to a repository of the Hub, after a verdict on its whole chain of licences."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamdiff.sharing.card import model_card, read_reports
from dreamdiff.sharing.chain import chain_of
from dreamdiff.sharing.models import prepared
from dreamdiff.sharing.pairs import pairs_repository
from eegprep.errors import UsageError, missing_path
from eegprep.sealed import read_object
from eegprep.sharing.corpus import push_corpus
from eegprep.sharing.licences import judge
from eegprep.sharing.manifest import CARD, MANIFEST, as_json, manifest_of
from eegprep.sharing.upload import Pushed, Say, repository, upload

REPORT_FILES = ("report.json", "report.html", "predictions.npz")


def push_to_hub(
    what: Any,
    to: str,
    *,
    reports: Sequence[str | Path] = (),
    private: bool = False,
    non_commercial: bool = False,
    licences: Mapping[str, str] | None = None,
    say: Say | None = None,
) -> Pushed:
    """Publish a run or folder of a model, a model itself, EEG-image pairs or a corpus.

    Args:
        what: a folder, or an object with `save_pretrained`.
        to: OWNER/NAME of the repository, which is made where it is not there.
        reports: of `dreamdiff evaluate` and `retrieve` on this very model; they are checked, and their numbers stand in the card.
        private: a repository that only its owner can read. non_commercial: under terms of non-commercial use.
        licences: name -> licence, for parts of the chain that state none.

    Raises:
        LicenceError: a part of the chain forbids it, by name. DataError: a report that does not hold.
        FetchError: offline, or the upload failed; the repository is then as it was.

    Example:
        >>> import dreamdiff
        >>> dreamdiff.push_to_hub("aligned", "my-lab/eeg-to-clip", reports=["retrieved"])  # doctest: +SKIP
    """
    if hasattr(what, "save_pretrained"):
        with tempfile.TemporaryDirectory(prefix="dreamdiff-publish-") as scratch:
            folder = Path(scratch) / to.rsplit("/", maxsplit=1)[-1]
            what.save_pretrained(folder)
            return push_to_hub(
                folder, to, reports=reports, private=private, non_commercial=non_commercial, licences=licences, say=say
            )
    folder = Path(what)
    if not folder.exists():
        raise missing_path(folder)
    store = (read_object(folder / "zarr.json") or {}).get("attributes")
    if isinstance(store, dict):
        if reports:
            raise UsageError("reports belong to models, and this is a store", "leave out the reports")
        if store.get("format") != "dreamdiff-pairs":
            return push_corpus(folder, to, private=private, non_commercial=non_commercial, licences=licences, say=say)
        files, verdict = pairs_repository(folder, to, private, non_commercial, licences or {})
        return upload(
            files, repository(to, "dataset"), private=private, licence=verdict.licence, message=f"Pairs {folder.name}", say=say
        )
    return _push_model(folder, to, reports, private, non_commercial, licences or {}, say)


def _push_model(
    folder: Path,
    to: str,
    reports: Sequence[str | Path],
    private: bool,
    non_commercial: bool,
    licences: Mapping[str, str],
    say: Say | None,
) -> Pushed:
    name = repository(to, "model")
    with prepared(folder) as model:
        chain = chain_of(model.seen, training=model.training, targets=model.targets, generator=model.generator, stated=licences)
        verdict = judge(chain, private=private, non_commercial=non_commercial)
        checked = read_reports([Path(report) for report in reports], model)
        files: dict[str, Path | bytes] = dict(model.files)
        for report in checked:
            files |= {f"{report.name}/{file}": report.folder / file for file in REPORT_FILES if (report.folder / file).is_file()}
        content = manifest_of(files, kind=model.kind, licence=verdict.licence, evaluated=model.digest)
        files |= {MANIFEST: as_json(content), CARD: model_card(model, verdict, checked, to).encode()}
        return upload(files, name, private=private, licence=verdict.licence, message=f"{model.kind} {model.name}", say=say)
