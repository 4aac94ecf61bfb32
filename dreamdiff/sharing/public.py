"""Public EEG-image pairs by name: their EEG from an archive, with checksums; and in words what only a form opens.

No picture is downloaded here: their terms are for whoever uses them to accept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eegprep.catalogue.manifests import Source, parse_source
from eegprep.catalogue.subjects import subject_tokens
from eegprep.download.archives import ensure_archive, plan_archive
from eegprep.download.fetch import PlanRow
from eegprep.errors import UsageError
from eegprep.folders import default_data_dir
from eegprep.recording import ProgressCallback
from eegprep.settings import suggest


@dataclass(frozen=True)
class PublicPairs:
    """A public set. source: its EEG, in an archive. kind: of `pairs import`. images: how to come by the pictures. cite: the paper."""

    name: str
    title: str
    source: str
    kind: str
    images: str
    cite: str


THINGS_IMAGES = (
    "its pictures are those of THINGS, for research only, in an archive with a password: read the terms on https://things-initiative.org, "
    "fill in the form there, and unpack the pictures into one folder"
)
PUBLIC = {
    item.name: item
    for item in (
        PublicPairs(
            "things-eeg1", "50 people, 63 channels, 1,854 concepts of THINGS in rapid sequences", "openneuro:ds003825", "things-eeg1", THINGS_IMAGES,
            "Grootswagers et al. (2022), Scientific Data 9:3",
        ),
        PublicPairs(
            "things-eeg2", "10 people, 63 channels, 1,654 + 200 concepts of THINGS", "nemar:nm000232", "bids", THINGS_IMAGES,
            "Gifford et al. (2022), NeuroImage 264:119754",
        ),
        PublicPairs(
            "alljoined1", "8 people, 64 channels, pictures of the Natural Scenes Dataset", "nemar:nm000133", "bids",
            "its pictures are those of the Natural Scenes Dataset: fill in the form on https://naturalscenesdataset.org, and keep them in one folder",
            "Xu et al. (2024), arXiv:2404.05553",
        ),
        PublicPairs(
            "alljoined-1.6m", "20 people, 32 channels of a consumer headset, pictures of THINGS", "nemar:nm000134", "bids", THINGS_IMAGES,
            "Alljoined-1.6M (2025)",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class FetchedPairs:
    """What is here. folder: the BIDS folder. licence: as the archive states it. steps: what to do next, one a line."""

    pairs: PublicPairs
    folder: Path
    people: tuple[str, ...]
    files: int
    bytes: int
    licence: str
    steps: tuple[str, ...]


def public_pairs(name: str) -> PublicPairs:
    """A public set by name.

    Raises:
        UsageError: there is none of that name.
    """
    if name.lower() not in PUBLIC:
        raise UsageError(f"there are no public pairs {name!r}{suggest(name, PUBLIC)}", f"use one of: {', '.join(PUBLIC)}")
    return PUBLIC[name.lower()]


def plan_pairs(name: str, data_dir: Path | None = None, subjects: str | None = None) -> PlanRow:
    """Size and licence of the EEG; asks the archive for its listing and downloads nothing else."""
    return plan_archive(_source(public_pairs(name), subjects), data_dir or default_data_dir())


def fetch_pairs(
    name: str, *, subjects: str | None = None, data_dir: Path | None = None, accept: Iterable[str] = (), offline: bool = False,
    progress: ProgressCallback | None = None,
) -> FetchedPairs:  # fmt: skip
    """Bring the EEG of a public set into the data folder: originals, resumed, compared with the published checksums.

    Args:
        subjects: for instance "1-3"; everybody by default. accept: licences that were read and accepted.

    Raises:
        LicenceError: not accepted yet. FetchError: offline, or a download failed.
    """
    pairs = public_pairs(name)
    source = _source(pairs, subjects)
    here = ensure_archive(source, data_dir or default_data_dir(), offline=offline, accept=accept, progress=progress)
    files = {file.name: file.bytes for own in here.files.values() for file in own}
    return FetchedPairs(
        pairs, here.root, tuple(here.files), len(files), sum(files.values()), here.source.licence, (
            f"pictures: {pairs.images}",
            f"pairs: dreamdiff pairs import {here.root} --kind {pairs.kind} --images PICTURES --out pairs.zarr",
            "leaks of a split: dreamdiff pairs audit pairs.zarr --split concept",
            f"cite: {pairs.cite}",
        ),
    )  # fmt: skip


def _source(pairs: PublicPairs, subjects: str | None) -> Source:
    # pictures of 100 ms follow each other: the copy at 250 Hz is enough for most, and the original is what papers used
    source = parse_source(pairs.source)
    source = source.model_copy(update={"options": {"copy": "originals"}}) if source.kind == "nemar" else source
    return source if subjects is None else source.model_copy(update={"subjects": subject_tokens(subjects)})
