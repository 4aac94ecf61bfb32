"""What a model of others is worth for somebody new, by how much it is told of them: four named rows on the same trials.

    nothing            the model as it is; whitening is that of everybody else
    whitening          from n unlabelled trials of the person
    recovery           an orthogonal map guessed from all judged trials together, without a label: transductive, and said so
    labels             whitening and tuning on the first m minutes of labelled trials

and one control: the first row with the pictures dealt out again, which must be at chance. Repetitions of a picture in one person are averaged.
Shapes: N trials, R groups of repetitions, G gallery pictures, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from dreamdiff.alignment.adapt import adapt
from dreamdiff.alignment.config import AlignConfig
from dreamdiff.alignment.data import pairs_for
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import learned_from
from dreamdiff.alignment.targets import load_target
from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.aligned import PictureVectors, check_target
from dreamdiff.certificates.check import images_digest, model_digest
from dreamdiff.certificates.judging import VectorJudge
from dreamdiff.devices import choose_device, used
from dreamdiff.evaluation.retrieve import groups_of, part_of
from dreamdiff.lineage.seen import Entry, overlaps
from dreamdiff.metrics.measurement import Measurement, mean_measurement, units
from dreamdiff.origin import portable, portable_settings, space_name
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import RetrieveConfig
from dreamdiff.protocols.epochs import vectors_by
from dreamdiff.protocols.frame import not_computed, pairs_identity, report_page
from dreamdiff.protocols.ranking import hits_at, person_states
from dreamdiff.protocols.recovery import csls, recovered
from eegprep.errors import DataError
from eegprep.provenance import software_versions
from eegprep.recording import ProgressCallback
from eegprep.sealed import write_sealed
from eegprep.words import count

FORMAT, VERSION = "dreamdiff-new-person", 1
PAGE = "report.html"
NOTHING, RECOVERY, PERMUTED = "nothing", "orthogonal-recovery-transductive", "nothing, pictures permuted"
TOLD = {
    NOTHING: "no trial of the person",
    RECOVERY: "all judged trials together, no label: transductive, to be set beside the other rows and never among them",
    PERMUTED: "control: the first row with the shown pictures dealt out again; must be at chance",
}


@dataclass(frozen=True)
class NewPerson:
    """Rows by name, each with what was told of the person and its numbers."""

    identity: Mapping[str, object]
    rows: Mapping[str, tuple[Measurement, ...]]
    told: Mapping[str, str]
    not_computed: Mapping[str, str]
    audit: Audit

    def table(self) -> list[dict[str, object]]:
        """One line a row: what was told, top 1 and top 5 with intervals."""
        result = []
        for name, measurements in self.rows.items():
            cells = {m.name.rsplit("/", 1)[-1]: f"{m.value:.1%} {m.interval()}" for m in measurements}
            result.append(
                {
                    "row": name,
                    "told of the person": self.told[name],
                    **cells,
                    "n": measurements[0].n,
                    "chance": f"{measurements[0].floor:.1%}",
                }
            )
        return result

    def to_json(self) -> Mapping[str, object]:
        """The content of report.json."""
        return {
            "format": FORMAT, "version": VERSION, "identity": self.identity, "not_computed": self.not_computed, "audit": self.audit.to_dict(),
            "rows": {name: {"told": self.told[name], "measurements": [m.to_json() for m in measurements]} for name, measurements in self.rows.items()},
        }  # fmt: skip


def new_person(
    model: str | Path, pairs: str | Path, out: Path, config: RetrieveConfig | None = None, *, unlabelled: int | None = 100, minutes: float | None = 5.0,
    tuning: AlignConfig | None = None, progress: ProgressCallback | None = None, offline: bool = False, strict_rate: bool = False,
) -> NewPerson:  # fmt: skip
    """Measure all rows, and write report.json, report.html and the two adapted models into `out`.

    Args:
        model: run of `train align` on others. pairs: of people that it has not seen, with training trials to adapt on.
        unlabelled: trials for whitening. minutes: of labelled recording; a row is left out, with its reason, where they are not there.
        tuning: see `alignment.adapt`.

    Raises:
        DataError: the model knows one of the people; the part holds no trials.
    """
    config = config or RetrieveConfig()
    device = choose_device(config.device)
    aligned = AlignedEncoder.from_pretrained(model).to(device)
    store = pairs_for(aligned.config.front, pairs, strict_rate=strict_rate)
    known = [
        name
        for name, state in zip(
            store.subjects, person_states(aligned.config.training, aligned.front.people, store.subjects), strict=True
        )
        if state != "new"
    ]
    if known:
        raise DataError(f"{store.path}: the model knows {known[0]}", "give pairs of people that were not in its training")
    number = aligned.target_number(int(config.target) if config.target.isdigit() else config.target)
    train, test, split = part_of(store, config.split)
    target = load_target(aligned.target_names[number], device=device, offline=offline)
    check_target(aligned, target, number)
    pictures = PictureVectors.of(store, target, learned_from(aligned, store, train), test)
    judge = pictures.judge(len(store.classes), space_name(aligned.target_names[number]))
    groups = groups_of(store, test, "all", config.seed)
    judged = _Judged(store, test, groups, pictures.picture_N, judge, config.seed)
    missing: dict[str, str] = {}
    description, rows = dict(TOLD), {}
    base_ND = vectors_by(aligned, store, test, number)(aligned)
    rows[NOTHING] = judged.measured(NOTHING, judged.scores(base_ND))
    ways: list[tuple[str, str, float | None, int | None]] = (
        [] if unlabelled is None else [(f"whitening-{unlabelled}-unlabelled", "whitened", None, unlabelled)]
    )
    ways += [] if minutes is None else [(f"labels-{minutes:g}-minutes", "labelled", minutes, None)]
    for name, folder, of_minutes, of_trials in ways:
        try:
            done = adapt(
                model,
                pairs,
                out / folder,
                tuning,
                minutes=of_minutes,
                unlabelled=of_trials,
                progress=progress,
                offline=offline,
                strict_rate=strict_rate,
            )
        except DataError as error:
            missing[name] = error.problem
            continue
        adapted = AlignedEncoder.from_pretrained(out / folder).to(device)
        rows[name] = judged.measured(name, judged.scores(vectors_by(adapted, store, test, number)(adapted)))
        spent = "" if done.minutes is None else f", {done.minutes:.1f} minutes of recording"
        description[name] = f"{done.trials} training trials{spent}, {'with' if done.labelled else 'without'} labels"
    rows[RECOVERY] = judged.measured(RECOVERY, judged.transductive(base_ND))
    rows[PERMUTED] = judged.measured(PERMUTED, judged.scores(base_ND), permuted=True)
    ordered = {
        name: rows[name]
        for name in (
            NOTHING,
            *(n for n in rows if n.startswith("whitening")),
            RECOVERY,
            *(n for n in rows if n.startswith("labels")),
            PERMUTED,
        )
    }
    seen = cast("Sequence[Entry]", aligned.config.training.get("seen") or [{"kind": "unknown", "where": Path(model).name}])
    identity = {
        "model": {"path": portable(model, out), "sha256": model_digest(Path(model)), "target": aligned.target_names[number]},
        "pairs": {**pairs_identity(store, out), "images_sha256": images_digest(store, test)},
        "split": {"name": split, "n_train": len(train), "n_evaluated": len(test)}, "gallery": len(judge.gallery_GD), "people": len(store.subjects),
        "repetitions": "all", "selection": str(aligned.config.training.get("select", "last")), "config": portable_settings(config.model_dump(mode="json"), out),
        **used(device, "fp32"), "software": software_versions(), "warnings": list(overlaps(seen, store, test).sentences),
    }  # fmt: skip
    result = NewPerson(
        identity, ordered, description, missing, store.audit(split.rpartition("/")[0] or "default", parts=(train, test))
    )
    out.mkdir(parents=True, exist_ok=True)
    write_sealed(out / "report.json", dict(result.to_json()))
    _write_page(out / PAGE, result, store)
    return result


@dataclass(frozen=True)
class _Judged:
    """The judged trials, in groups of one person's repetitions of a picture, and the gallery."""

    store: Pairs
    test: Ints
    groups: Sequence[Ints]
    picture_N: Ints
    judge: VectorJudge
    seed: int

    @property
    def first_R(self) -> Ints:
        """One trial of each group."""
        return np.array([group[0] for group in self.groups])

    def means(self, vectors_ND: Array) -> Array:
        """(R, D) directions of the mean vectors."""
        return self.judge.directions(np.stack([vectors_ND[group].mean(0) for group in self.groups]))

    def scores(self, vectors_ND: Array) -> Array:
        """(R, G) cosines."""
        return np.asarray(self.means(vectors_ND) @ self.judge.gallery_GD.T)

    def transductive(self, vectors_ND: Array) -> Array:
        """(R, G) after each person's vectors were turned onto the gallery by their own matches."""
        mean_RD, person_R = self.means(vectors_ND), self.store.person[self.test][self.first_R]
        out_RG = np.empty((len(mean_RD), len(self.judge.gallery_GD)))
        for person in np.unique(person_R):
            of_person = person_R == person
            out_RG[of_person] = csls(recovered(mean_RD[of_person], self.judge.gallery_GD), self.judge.gallery_GD)
        return out_RG

    def measured(self, row: str, scores_RG: Array, *, permuted: bool = False) -> tuple[Measurement, ...]:
        """Top 1 and top 5."""
        truth_R = self.picture_N[self.first_R]
        if permuted:
            deal = np.random.default_rng(self.seed).permutation(len(self.judge.gallery_GD))
            truth_R = deal[truth_R]
        trials = self.test[self.first_R]
        drawn = units(self.store.labels[trials], self.store.person[trials], self.picture_N[self.first_R])
        gallery = scores_RG.shape[1]
        return tuple(
            mean_measurement(
                f"new-person/{row.replace(', ', '-').replace(' ', '-')}/gallery={gallery}/repetitions=all/top-{k}",
                f"top {k} of {gallery} pictures by the mean of all repetitions, in {self.judge.space} space",
                hits_at(scores_RG, truth_R, k)[:, None], seed=self.seed, floor=k / gallery, groups_N=drawn,
            )
            for k in (1, 5)
            if k < gallery
        )  # fmt: skip


def _write_page(file: Path, result: NewPerson, store: Pairs) -> None:
    split = cast("Mapping[str, str]", result.identity["split"])["name"]
    lead = f"{count(len(store.subjects), 'person')} whom the model has not seen"
    page = report_page("A new person, by what is known of them", lead, store.provenance, result.audit, split)
    page.text(
        "All rows are measured on the same trials; repetitions of a picture in one person are averaged. In brackets: 95 % intervals, categories, people and pictures "
        "drawn again. The transductive row uses all judged trials at once."
    )
    page.table(result.table())
    not_computed(page, result.not_computed)
    for warning in cast("Sequence[str]", result.identity["warnings"]):
        page.text(warning, "warning")
    page.write(file)
