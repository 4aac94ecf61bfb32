"""A new person on top of a model of others: `dreamdiff adapt`.

    --unlabelled N   whitening from N trials, nothing else: no label, no picture is read
    --minutes M      whitening from the first M minutes of training trials, then all weights tuned on them at a low rate
    (neither)        the same with all training trials

The person's channel map starts at the mean of the others'. What the person's picture vectors are comes from the model's own targets.
Shapes: N trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.data import pairs_for, person_covariance
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align_data, identity_of, images_of, load_vectors
from dreamdiff.alignment.task import AlignTask
from dreamdiff.alignment.tuning import choose_what_trains
from dreamdiff.encoders.weights import weights_digest
from dreamdiff.lineage.seen import seen_in_pairs
from dreamdiff.pairs.reader import Pairs
from dreamdiff.run_folder import weights_folder
from dreamdiff.training.loop import fit
from eegprep.errors import DataError, ModelError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.settings import resolve

VIEWS, LEAST_EPOCHS = 40, 4  # ours: a trial is seen 40 / n times where a person gave n of each category, at least 4 times


@dataclass(frozen=True)
class Adapted:
    """What was done. trials, minutes: of the person's, that were read. labelled: whether their pictures were."""

    run_dir: Path
    people: tuple[str, ...]
    trials: int
    minutes: float | None
    labelled: bool
    finished: bool = True


def adapt(
    model: str | Path, pairs: str | Path | Pairs, out: str | Path, config: AlignConfig | None = None, *,
    minutes: float | None = None, unlabelled: int | None = None, progress: ProgressCallback | None = None, offline: bool = False,
    strict_rate: bool = False, say: Callable[[str], None] | None = None,
) -> Adapted:  # fmt: skip
    """Write a model that knows the people of `pairs` as well; a run folder like that of `align`. Run again to continue.

    Args:
        model: run of `align` or of `adapt`. pairs: trials of new people (or further trials of known ones).
        config: default the preset `adapt` with as many epochs as the number of trials asks for.
        minutes: use training trials of the first minutes of each person only. unlabelled: whiten from so many trials, and stop there.
        strict_rate, say: see `data.pairs_for`.

    Raises:
        UsageError: minutes and unlabelled together. DataError: too few trials, or no times for minutes. ModelError: other trials than
            the model reads, or image encoders that are not the model's.
    """
    if minutes is not None and unlabelled is not None:
        raise UsageError(f"--minutes {minutes:g} and --unlabelled {unlabelled} were both given", "give one of them")
    aligned = AlignedEncoder.from_pretrained(model)
    store = pairs_for(aligned.config.front, pairs, strict_rate=strict_rate, say=say)
    config = config or resolve(AlignConfig, presets=ALIGN_PRESETS, preset="adapt")
    parts = store.parts(config.split)
    chosen = chosen_trials(store, parts["train"], minutes, unlabelled)
    people = tuple(store.subjects[number] for number in np.unique(store.person[parts["train"]]))
    for name in people:
        of_person = chosen[store.person[chosen] == store.subjects.index(name)]
        if len(of_person) < 2:
            raise DataError(
                f"{store.path}: {name} has {len(of_person)} trials (at least 2 are needed to whiten)", "give more minutes"
            )
        aligned.add_person(name, person_covariance(aligned.front, store, of_person))
    spent = minutes_of(store, chosen)
    content = {
        "pairs": store.fingerprint, "pairs_content": store.content_sha256, "trials": len(chosen), "minutes": spent,
        "labelled": unlabelled is None, "people": list(people),
    }  # fmt: skip
    if unlabelled is None:
        content["trial_numbers"] = [int(number) for number in store.indices[chosen]]
    earlier = cast("Sequence[object]", aligned.config.training.get("adapted", []))
    seen = [*cast("Sequence[object]", aligned.config.training.get("seen", [])), seen_in_pairs(store, chosen)]
    training = {**aligned.config.training, "adapted": [*earlier, content], "seen": seen}
    aligned.config = aligned.config.model_copy(update={"training": training})
    out = Path(out)
    if unlabelled is not None:
        _refuse_other(out)
        aligned.save_pretrained(out)
        return Adapted(out, people, len(chosen), spent, labelled=False)
    task = _task(aligned, store, {**parts, "train": chosen}, config, out, model, progress, offline)
    result = fit(task, task.config.loop, task.config.optim, out, progress=progress)
    return Adapted(out, people, len(chosen), spent, labelled=True, finished=result.finished)


def _task(
    aligned: AlignedEncoder, store: Pairs, parts: Mapping[str, np.ndarray], config: AlignConfig, out: Path, model: str | Path,
    progress: ProgressCallback | None, offline: bool,
) -> AlignTask:  # fmt: skip
    numbers, row = images_of(store, np.concatenate([parts["train"], parts["val"]]))
    spaces, vectors, remarks = load_vectors(store, numbers, aligned.target_names, config, out, progress, offline)
    for target, here in zip(aligned.config.targets, spaces, strict=True):
        if not here.name.startswith("vectors:") and target.fingerprint != here.fingerprint:
            raise ModelError(
                f"target {target.name!r} has fingerprint {here.fingerprint[:12]} here, the model was aligned to "
                f"{target.fingerprint[:12]}",
                "use the same weights and preprocessing as in the alignment",
            )
    # a number that the person chose is kept
    if "epochs" not in config.loop.model_fields_set:
        epochs = float(epochs_for(store, parts["train"]))
        config = config.model_copy(update={"loop": config.loop.model_copy(update={"epochs": epochs})})
    choose_what_trains(aligned, config.tune, config.lora_rank)
    aligned.log_scale.requires_grad_(True)
    data = align_data(store, parts, row, vectors, aligned, config, progress)
    identity = {
        "task": "adapt", "config": identity_of(config), "pairs": store.fingerprint, "pairs_content": store.content_sha256,
        "targets": [s.model_dump() for s in spaces],
        "model": weights_digest(weights_folder(Path(model))), "trials": len(parts["train"]),
    }  # fmt: skip
    return AlignTask(config, data, aligned, identity, out, remarks)


def epochs_for(pairs: Pairs, positions: np.ndarray) -> int:
    """Fewer epochs for more trials of a category and person."""
    cells = len(np.unique(np.stack([pairs.person[positions], pairs.labels[positions]]), axis=1).T)
    return max(LEAST_EPOCHS, round(VIEWS * cells / max(len(positions), 1)))


def chosen_trials(pairs: Pairs, train: np.ndarray, minutes: float | None, unlabelled: int | None) -> np.ndarray:
    """Training trials that may be read: the first `unlabelled` of each person, or those of the first minutes, or all.

    Raises:
        DataError: minutes of pairs that hold no times. UsageError: less than one trial or no time at all.
    """
    if unlabelled is not None and unlabelled < 2:
        raise UsageError(f"--unlabelled {unlabelled} is too few to whiten (at least 2)", "give more trials")
    if minutes is not None and minutes <= 0:
        raise UsageError(f"--minutes {minutes:g} is no time", "give a number above 0")
    if minutes is None and unlabelled is None:
        return train
    kept = []
    for person in np.unique(pairs.person[train]):
        of_person = train[pairs.person[train] == person]
        clock = recorded_minutes(pairs, of_person)
        if clock is None and minutes is not None:
            raise DataError(f"{pairs.path}: {pairs.subjects[person]} has no onset times", "use --unlabelled N, or all trials")
        # without times the order of the store is the best guess at the order of recording
        order = np.argsort(of_person if clock is None else clock, kind="stable")
        of_person = of_person[order]
        if unlabelled is not None:
            kept.append(of_person[:unlabelled])
        else:
            assert clock is not None and minutes is not None
            kept.append(of_person[clock[order] <= minutes])
    return np.sort(np.concatenate(kept)) if kept else train[:0]


def recorded_minutes(pairs: Pairs, positions: np.ndarray) -> np.ndarray | None:
    """Minutes of recording until each of one person's trials has ended, sessions one after another; None without times."""
    onset, session = pairs.onset[positions], pairs.session[positions]
    if np.isnan(onset).any():
        return None
    everybody = pairs.onset[pairs.person == pairs.person[positions[0]]] if len(positions) else onset
    of_session = pairs.session[pairs.person == pairs.person[positions[0]]] if len(positions) else session
    out, before = np.empty(len(positions)), 0.0
    for number in np.unique(of_session):
        here, times = session == number, everybody[of_session == number]
        out[here] = before + onset[here] - np.nanmin(times)
        # what lies between sessions is no recording time
        before += float(np.nanmax(times) - np.nanmin(times))
    return out / 60


def minutes_of(pairs: Pairs, positions: np.ndarray) -> float | None:
    """The longest recording that these trials take of one person, minutes; None without times."""
    longest = 0.0
    for person in np.unique(pairs.person[positions]):
        result = recorded_minutes(pairs, positions[pairs.person[positions] == person])
        if result is None:
            return None
        longest = max(longest, float(result.max(initial=0.0)))
    return round(longest, 3)


def _refuse_other(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise UsageError(f"{out}: the folder holds something else than a model", "choose a new folder for --out")
