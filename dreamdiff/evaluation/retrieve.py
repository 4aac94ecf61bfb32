"""`dreamdiff retrieve`: is the shown picture among the nearest of a gallery? With the protocol in the name of every number.

    retrieval/split=default-test/gallery=test-57/repetitions=2/selection=last/person=seen/top-1

Repetitions are averaged as vectors, within a person, in groups that share no trial.
Shapes: N trials, G gallery pictures, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from dreamdiff.alignment.data import pairs_for
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import learned_from
from dreamdiff.alignment.targets import load_target
from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.aligned import PictureVectors, certify_aligned, check_target
from dreamdiff.certificates.carriers import carriers_of
from dreamdiff.certificates.check import images_digest, model_digest
from dreamdiff.certificates.judging import CATEGORY, VectorJudge
from dreamdiff.certificates.records import Certificate, write_predictions
from dreamdiff.devices import choose_device, used
from dreamdiff.estimators.carriers import Carriers
from dreamdiff.evaluation.retrieve_page import Found, write_page
from dreamdiff.lineage.seen import Entry, overlaps
from dreamdiff.metrics.measurement import Measurement, mean_measurement, units
from dreamdiff.metrics.similarity import retrieval
from dreamdiff.origin import generator_name, picture_origin, portable, portable_settings, space_name, without_folders
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.centres import centre_measurements, concept_centres
from dreamdiff.protocols.config import RetrieveConfig
from dreamdiff.protocols.epochs import Optimism, optimism, vectors_by
from dreamdiff.protocols.frame import pairs_identity
from dreamdiff.protocols.ranking import group_sizes, hits_at, mean_average_precision, person_states
from dreamdiff.protocols.recovery import csls, recovered
from dreamdiff.untrusted.arrays import load_npz
from eegprep.errors import CheckpointError, DataError, ToolkitError, UsageError
from eegprep.provenance import software_versions
from eegprep.recording import ProgressCallback
from eegprep.sealed import write_sealed

FORMAT, VERSION = "dreamdiff-retrieval", 1
PAGE = "report.html"


@dataclass(frozen=True)
class Retrieval:
    """What was found: numbers, the certificate, the audit of the split, and which seconds and electrodes carry the category."""

    identity: dict[str, Any]
    measurements: tuple[Measurement, ...]
    certificate: Certificate
    audit: Audit
    left_out: dict[str, str]
    predictions: dict[str, str]
    carriers: Carriers | None = None
    epochs: Optimism | None = None

    @property
    def first_line(self) -> str:
        """The part that earns the accuracy; a leak of the split, or that the model is a control, comes before it."""
        if self.identity["model"]["training"].get("permuted"):
            return f"A CONTROL, trained on permuted pictures, which must be at chance: {self.certificate.sentence}"
        if self.audit.verdict == "leaks":
            return f"NOT EVIDENCE OF DECODING: {self.audit.leaks[0]}; {self.certificate.sentence}"
        return self.certificate.sentence

    def to_json(self) -> dict[str, Any]:
        """The content of report.json."""
        return {
            "format": FORMAT, "version": VERSION, "first_line": self.first_line, "identity": self.identity,
            "measurements": [m.to_json() for m in self.measurements], "certificate": self.certificate.to_json(),
            "not_computed": self.left_out, "audit": self.audit.to_dict(), "predictions": self.predictions,
            "carriers": None if self.carriers is None else self.carriers.to_json(),
            "epochs": None if self.epochs is None else self.epochs.to_json(),
        }  # fmt: skip


def retrieve(
    model: str | Path, pairs: str | Path | Pairs, out: Path, config: RetrieveConfig | None = None, *,
    progress: ProgressCallback | None = None, offline: bool = False, strict_rate: bool = False,
    say: Callable[[str], None] | None = None,
) -> Retrieval:  # fmt: skip
    """Encode the trials of a part of a split, judge the vectors, and write report.json, report.html, and predictions.npz beside them.

    Args:
        model: run of `dreamdiff train align` or `dreamdiff adapt`. strict_rate, say: see `alignment.data.pairs_for`.

    Raises:
        DataError: the part holds no trials. ModelError: trials, people or targets that do not fit the model.
    """
    config = config or RetrieveConfig()
    aligned = AlignedEncoder.from_pretrained(model).to(choose_device(config.device))
    store = pairs_for(aligned.config.front, pairs, strict_rate=strict_rate, say=say)
    number = aligned.target_number(int(config.target) if config.target.isdigit() else config.target)
    train, test, split = part_of(store, config.split)
    train = learned_from(aligned, store, train)
    target = load_target(aligned.target_names[number], device=choose_device(config.device), offline=offline)
    check_target(aligned, target, number)
    pictures = PictureVectors.of(store, target, train, test)
    certificate, vectors_ND = certify_aligned(
        aligned, store, train, test, pictures, target=number, seed=config.seed, progress=progress
    )
    judge = pictures.judge(len(store.classes), space_name(aligned.target_names[number]))
    states = person_states(aligned.config.training, aligned.front.people, store.subjects)
    state_N = np.asarray(states, object)[store.person[test]]
    person = " and ".join(dict.fromkeys(state_N.tolist()))
    selection = str(aligned.config.training.get("select", "last"))
    trained = "/training=permuted" if aligned.config.training.get("permuted") else ""
    left_out: dict[str, str] = {}
    measurements: list[Measurement] = []
    gallery_GD, gallery = gallery_of(config.gallery, pictures, judge)
    last: list[Ints] = []
    centres: tuple[Ints, Array, str] | None = None
    if not np.isin(store.labels[test], store.labels[train]).all():
        try:
            centres = concept_centres(store, target, judge, train, test, None if config.centres is None else Path(config.centres))
        except ToolkitError as error:
            left_out["concept-centres"] = error.problem
    if config.ways is not None and config.ways > len(gallery_GD):
        raise UsageError(f"ways is {config.ways}, the gallery has {len(gallery_GD)} pictures", f"give at most {len(gallery_GD)}")
    gallery = gallery if config.ways is None else f"{config.ways}-of-{gallery}"
    labels_N, person_N = store.labels[test], store.person[test]
    facts = (vectors_ND, gallery_GD, judge, pictures.picture_N, labels_N)
    for state in dict.fromkeys(state_N.tolist()):
        of_state = np.flatnonzero(state_N == state)
        for repetitions in group_sizes(config.repetitions, most_repetitions(store, test[of_state])):
            named = f"split={split.replace('/', '-')}/gallery={gallery}/repetitions={repetitions}/selection={selection}{trained}/person={state}"
            rows = [of_state[group] for group in groups_of(store, test[of_state], repetitions, config.seed)]
            if not rows:
                left_out[f"retrieval/{named}"] = "no picture was shown that often to one person"
                continue
            last = rows
            measurements += judged(named, rows, *facts, person_N, config.ways, config.seed)
            if centres is not None and config.ways is None:
                first = np.array([group[0] for group in rows])
                mean_RD = judge.directions(np.stack([vectors_ND[group].mean(0) for group in rows]))
                drawn = units(labels_N[first], person_N[first], pictures.picture_N[first])
                measurements += centre_measurements(named, mean_RD, labels_N[first], *centres, drawn, judge.space, config.seed)
            together = groups_of(store, test[of_state], "all", config.seed, people=True)
            if repetitions == "all" and len(together) < len(rows):
                across = [of_state[group] for group in together]
                measurements += judged(
                    f"{named}/averaged=people", across, *facts, np.zeros_like(person_N), config.ways, config.seed
                )
            if repetitions == "all" and state != "seen" and config.ways is None:
                measurements += transductive(f"{named}+orthogonal-recovery-transductive", rows, *facts, person_N, config.seed)
    everything = groups_of(store, test, "all", config.seed)
    epochs = epoch_choice(
        Path(model), aligned, store, test, number, everything, gallery_GD, judge, pictures.picture_N, config.seed
    )
    report = store.audit(split.rpartition("/")[0] or "default", parts=(train, test))
    carried = carriers_of(store, train, test, seed=config.seed, progress=progress)
    if isinstance(carried, str):
        left_out["which part carries it"] = carried
    training = dict(aligned.config.training)
    seen = cast("Sequence[Entry]", training.pop("seen", None) or [{"kind": "unknown", "where": Path(model).name}])
    origin = picture_origin(
        training, model=generator_name(Path(model).resolve()), generator="", eeg=store.provenance, licence=store.licence
    )
    identity = {
        "origin": {**origin.model_dump(mode="json"), "sentence": origin.sentence},
        "model": {
            "path": portable(model, out), "sha256": model_digest(Path(model)), "encoder": aligned.config.training.get("encoder"),
            "target": str(portable_settings({"target": aligned.target_names[number]}, out)["target"]), "training": portable_settings(training, out),
        },
        "pairs": {**pairs_identity(store, out), "images_sha256": images_digest(store, test)},
        "split": {"name": split, "n_train": len(train), "n_evaluated": len(test)},
        "person": person, "selection": selection, "config": portable_settings(config.model_dump(mode="json"), out),
        **used(choose_device(config.device), "fp32"), "software": software_versions(),
        "warnings": [without_folders(text) for text in overlaps(seen, store, test).sentences],
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    predictions = write_predictions(out, store.indices[test], certificate, measurements)
    result = Retrieval(
        identity,
        tuple(measurements),
        certificate,
        report,
        left_out,
        predictions,
        None if isinstance(carried, str) else carried,
        epochs,
    )
    write_sealed(out / "report.json", result.to_json())
    write_page(
        out / PAGE, first_line=result.first_line, identity=identity, measurements=measurements, certificate=certificate, audit=report,
        store=store, gallery=pictures.gallery, neighbours=nearest(last, vectors_ND, gallery_GD, judge, pictures.picture_N, test),
        carried=result.carriers,
    )  # fmt: skip
    return result


def nearest(
    rows: Sequence[Ints], vectors_ND: Array, gallery_GD: Array, judge: VectorJudge, picture_N: Ints, test: Ints
) -> Found | None:
    """What each group's mean vector lies nearest to; None without groups or without a choice."""
    if not rows or len(gallery_GD) < 2:
        return None
    first = np.array([group[0] for group in rows])
    mean_RD = judge.directions(np.stack([vectors_ND[group].mean(0) for group in rows]))
    return Found.of(mean_RD, gallery_GD, picture_N[first], [len(group) for group in rows], test[first])


def part_of(store: Pairs, name: str) -> tuple[Ints, Ints, str]:
    """Training positions, positions to judge, and the full name of the part."""
    split, _, part = name.rpartition("/")
    parts = store.split(split or "default")
    if part not in parts or len(parts[part]) == 0:
        raise DataError(
            f"{store.path}: split {name!r} has no trials (parts: {', '.join(f'{k} {len(v)}' for k, v in parts.items())})",
            "use --split test, val, or NAME/test",
        )
    return parts["train"], parts[part], f"{split or 'default'}/{part}"


def gallery_of(source: str, pictures: PictureVectors, judge: VectorJudge) -> tuple[Array, str]:
    """Directions of the gallery, the test pictures first, and its name."""
    if source == "test":
        return judge.gallery_GD, f"test-{len(judge.gallery_GD)}"
    try:
        further = np.asarray(load_npz(Path(source))["vectors"], float)
    except (CheckpointError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--gallery {source}: not an npz file with `vectors` ({getattr(error, 'problem', error)})",
            "use --gallery test, or write numpy.savez(FILE, vectors=v)",
        ) from None
    width = pictures.gallery_GD.shape[1]
    if further.ndim != 2 or further.shape[1] != width:
        raise UsageError(
            f"--gallery {source}: vectors of shape {further.shape}, the target has {width}", "give vectors of the target"
        )
    both = np.concatenate([judge.gallery_GD, judge.directions(further)])
    return both, f"test-{len(judge.gallery_GD)}-and-{len(further)}"


def transductive(
    protocol: str, rows: Sequence[Ints], vectors_ND: Array, gallery_GD: Array, judge: VectorJudge, picture_N: Ints, label_N: Ints,
    person_N: Ints, seed: int,
) -> list[Measurement]:  # fmt: skip
    """Top-1 and top-5 after each person's vectors were turned onto the gallery by their own matches: all judged trials are used together."""
    mean = judge.directions(np.stack([vectors_ND[group].mean(0) for group in rows]))
    first = np.array([group[0] for group in rows])
    scores_NG = np.empty((len(rows), len(gallery_GD)))
    for person in np.unique(person_N[first]):
        of_person = np.flatnonzero(person_N[first] == person)
        scores_NG[of_person] = csls(recovered(mean[of_person], gallery_GD), gallery_GD)
    drawn = units(label_N[first], person_N[first], picture_N[first])
    what = f"CSLS after an orthogonal map that is guessed from all judged trials of a person together, in {judge.space} space"
    return [
        mean_measurement(
            f"retrieval/{protocol}/top-{k}", what, hits_at(scores_NG, picture_N[first], k)[:, None], seed=seed, floor=k / len(gallery_GD), groups_N=drawn
        )
        for k in (1, 5)
        if k < len(gallery_GD)
    ]  # fmt: skip


def epoch_choice(
    run: Path, aligned: AlignedEncoder, store: Pairs, test: Ints, target: int, rows: Sequence[Ints], gallery_GD: Array, judge: VectorJudge,
    picture_N: Ints, seed: int,
) -> Optimism | None:  # fmt: skip
    """Last, validation-selected and best test epoch of a run, by top-1 of the means over all repetitions."""
    vectors = vectors_by(aligned, store, test, target)
    first = np.array([group[0] for group in rows])

    def values(weights: AlignedEncoder) -> Array:
        vectors_ND = vectors(weights)
        mean = judge.directions(np.stack([vectors_ND[group].mean(0) for group in rows]))
        return hits_at(mean @ gallery_GD.T, picture_N[first], 1)

    drawn = units(store.labels[test][first], store.person[test][first], picture_N[first])
    try:
        return optimism(run, aligned, values, drawn, seed=seed)
    except CheckpointError:  # adapters that were merged into the encoder at the end
        return None


def most_repetitions(store: Pairs, test: Ints) -> int:
    """How often a picture was shown to one person, at most."""
    return int(np.unique(np.stack([store.person[test], store.image[test]]), axis=1, return_counts=True)[1].max(initial=1))


def groups_of(store: Pairs, test: Ints, repetitions: str, seed: int, *, people: bool = False) -> list[Ints]:
    """Rows of `test` whose vectors are averaged: each group one person's (or everybody's) trials of one picture, no trial in two groups."""
    rng = np.random.default_rng(seed)
    person = np.zeros_like(store.person[test]) if people else store.person[test]
    _, member = np.unique(np.stack([person, store.image[test]]), axis=1, return_inverse=True)
    groups = []
    for number in range(int(member.max(initial=-1)) + 1):
        rows = rng.permutation(np.flatnonzero(member.reshape(-1) == number))
        size = len(rows) if repetitions == "all" else int(repetitions)
        groups += [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]
    return groups


def judged(
    protocol: str, rows: Sequence[Ints], vectors_ND: Array, gallery_GD: Array, judge: VectorJudge, picture_N: Ints, label_N: Ints,
    person_N: Ints, ways: int | None, seed: int,
) -> list[Measurement]:  # fmt: skip
    """Retrieval top-1, top-5 and mAP, and the category where it was taught."""
    mean = judge.directions(np.stack([vectors_ND[group].mean(0) for group in rows]))
    first = np.array([group[0] for group in rows])
    pictures, labels = picture_N[first], label_N[first]
    drawn = units(labels, person_N[first], pictures)
    result = []
    for k in (1, 5):
        if k < (ways or len(gallery_GD)):
            one = retrieval(mean, gallery_GD, pictures, ways=ways, top_k=k, seed=seed, groups_N=drawn, space=judge.space)
            result.append(_named(one, f"retrieval/{protocol}/top-{k}"))
    if ways is None:
        name = f"retrieval/{protocol}/mAP"
        result.append(
            mean_average_precision(mean @ gallery_GD.T, pictures, name=name, seed=seed, groups_N=drawn, space=judge.space)
        )
    truth = judge.truth(labels, pictures).get(CATEGORY)
    if truth is not None:
        predicted = judge.predict(np.stack([vectors_ND[group].mean(0) for group in rows]))[CATEGORY]
        keep = truth >= 0
        one = mean_measurement(
            f"category/{protocol}/top-1", judge.protocols()[CATEGORY], (predicted == truth)[keep].astype(float)[:, None], seed=seed,
            floor=judge.floors(labels)[CATEGORY], groups_N=drawn[:, keep],
        )  # fmt: skip
        result.append(one)
    return result


def _named(measurement: Measurement, name: str) -> Measurement:
    return Measurement(**{**vars(measurement), "name": name})
