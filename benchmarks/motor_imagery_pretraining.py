"""The section `pretraining` of benchmarks/motor_imagery.py: two halves of the people, pre-trained without labels on one, tested on the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from motor_imagery import (
    RATE,
    STANDARD,
    Cells,
    Method,
    Trials,
    electrode_rows,
    encoder_features,
    features,
    fitted,
    folds,
    logistic,
    per_person,
)

import eegprep
from dreamdiff.estimators.classifier import EEGClassifier
from dreamdiff.estimators.steps import IMAGERY_BANDS, LogPower


def pretraining(folder: Path, out: Path, trials: Trials, cells: Cells, steps: int, seeds: Sequence[int], draws: int) -> None:
    """Two halves of the people: pre-trained without labels on one, probed and fine-tuned on the other, then the other way round."""
    import torch

    from dreamdiff.encoders.positions import PositionsConfig, PositionsEncoder

    corpus = corpus_of(folder, out, len(trials.channels))
    rows = electrode_rows(trials, "central")
    central = trials.cut(STANDARD, rows)
    halves = [trials.people[::2], trials.people[1::2]]
    for seed in seeds:
        runs = [
            pretrained(corpus.select(subjects=half), out / f"pretrained-{seed}-{n}-{steps}", central, steps, seed)
            for n, half in enumerate(halves)
        ]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            random = PositionsEncoder(PositionsConfig())
        power = Method(lambda t: LogPower(RATE, IMAGERY_BANDS).fit_transform, lambda t: logistic())
        # the encoder of one half is tested on the other
        kinds = {"frozen pre-trained, positions": runs[::-1], "frozen random, positions": [random, random]}
        for kind, encoders in kinds.items():
            pair = [Method(encoder_features(encoder), lambda t: logistic()) for encoder in encoders]
            cells.get(f"halves, seed {seed}: {kind}", lambda pair=pair: by_halves(central, halves, pair))
        cells.get(
            f"halves, seed {seed}: log power of the same electrodes",
            lambda power=power: by_halves(central, halves, [power, power]),
        )
        for people in (2, 5, 99):
            for kind in ("pre-trained", "scratch"):
                starts = runs if kind == "pre-trained" else ["scratch", "scratch"]
                cells.get(
                    f"halves, seed {seed}: labels of {people if people < 99 else 'all'} people, {kind}, tuned",
                    lambda starts=starts, people=people, seed=seed: tuned(central, halves, starts, people, draws, seed),
                )


def corpus_of(folder: Path, out: Path, channels: int) -> eegprep.Corpus:
    """All recordings of the folder in windows of 3 s, 4-38 Hz, for training without labels."""
    store = out / "corpus.zarr"
    eegprep.build(f"files:{folder}/*/*.edf", store, low=4, high=38, resample=RATE, window=240, stride=240, channels=channels)
    return eegprep.Corpus.open(store)


def pretrained(corpus: object, run: Path, trials: Trials, steps: int, seed: int, settings: Sequence[str] = ()) -> Path:
    """A run of `train msm --preset positions` on these electrodes, with other settings where given."""
    from dreamdiff.pretraining.positions_task import POSITIONS_PRESETS, PositionsPretrainConfig, pretrain_positions
    from eegprep.settings import resolve

    config = resolve(
        PositionsPretrainConfig, presets=POSITIONS_PRESETS, preset="positions", base={"electrodes": list(trials.channels)},
        assignments=[f"loop.max_steps={steps}", f"loop.seed={seed}", "data.validation=none", "loop.validate_steps=100000", *settings],
    )  # fmt: skip
    pretrain_positions(corpus, run, config)
    return run


def tuned(
    trials: Trials, halves: Sequence[Sequence[str]], starts: Sequence[object], people: int, draws: int, seed: int
) -> dict[str, float]:
    """Labels of `people` of the pre-training half, tested on everybody of the other half."""
    scores: dict[str, list[float]] = {}
    for draw in range(1 if people == 99 else draws):
        for number, half in enumerate(halves):
            chosen = np.random.default_rng([draw, number]).permutation(half)[:people]
            train, test = np.isin(trials.person_N, chosen), np.isin(trials.person_N, halves[1 - number])
            model = EEGClassifier(
                starts[number],
                sfreq=RATE,
                channels=list(trials.channels),
                epochs=max(10, 60 // min(people, 6)),
                seed=seed,
                shift=0.1,
            )
            model.fit(trials.x_NCT[train], trials.y_N[train], groups=trials.person_N[train])
            guess_N = np.full(len(trials.y_N), -1)
            for person in halves[1 - number]:
                mine = trials.person_N == person
                guess_N[mine] = model.predict(trials.x_NCT[mine])
            for person, value in per_person(trials, guess_N, test).items():
                scores.setdefault(person, []).append(value)
    return {person: float(np.mean(values)) for person, values in scores.items()}


def by_halves(trials: Trials, halves: Sequence[Sequence[str]], methods_of_half: Sequence[Method]) -> dict[str, float]:
    """Each half by 4 folds of its own people, with the method that belongs to it."""
    scores: dict[str, float] = {}
    for half, method in zip(halves, methods_of_half, strict=True):
        keep = np.isin(trials.person_N, half)
        part = Trials(trials.x_NCT[keep], trials.y_N[keep], trials.person_N[keep], trials.run_N[keep], trials.channels)
        made = features(part, method)
        guess_N = np.empty_like(part.y_N)
        for fold in folds(part.people, 0, 4):
            test = np.isin(part.person_N, fold)
            guess_N[test] = fitted(method, part, made[~test], part.y_N[~test], part.person_N[~test]).predict(made[test])
        scores.update(per_person(part, guess_N))
    return scores
