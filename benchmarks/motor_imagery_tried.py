"""The section `tried` of benchmarks/motor_imagery.py: targets, masks, and labels of another task, each judged in the same four ways.

Two halves of the people as in the section `pretraining`: trained on one half, judged on the other, then the other way round. Every
variant gets the same steps. It is judged by its frozen probe, by few labels (fine-tuned), and by what is left of the probe when
electrodes fall away, without training anything again: features are centred per person, so an absent electrode's are 0, the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from motor_imagery import RATE, STANDARD, Cells, Trials, electrode_rows, folds, logistic, per_person, read, summary
from motor_imagery_pretraining import corpus_of, pretrained, tuned

from dreamdiff.encoders.positions import PositionsConfig, PositionsEncoder
from dreamdiff.estimators.classifier import EEGClassifier
from dreamdiff.estimators.features import EEGFeatures
from dreamdiff.estimators.steps import IMAGERY_BANDS, LogPower

VARIANTS: dict[str, tuple[str, ...]] = {
    "log power, masks 4.5 cm, 50 %": (),
    "samples": ("model.target=samples",),
    "latent": ("model.target=latent",),
    "log power, masks 3 cm x 3 tokens, 55 %": ("model.mask.radius_cm=3", "model.mask.span=3", "model.mask.share=0.55"),
}
SUPERVISED = "labels of another task (rest against imagery)"
RANDOM, POWER, WIDE = "random", "log-power map", "log power, pre-trained on all electrodes"
TEN_TWENTY = ("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz", "P4", "P8", "O1", "O2")
EIGHT = ("Fz", "C3", "Cz", "C4", "P3", "Pz", "P4", "Oz")

Features = Callable[[Trials], np.ndarray]


def tried(folder: Path, out: Path, whole: Trials, cells: Cells, steps: int, seeds: Sequence[int], draws: int) -> None:
    """All variants, and a line for each that compares it with a random encoder, with log power, and with scratch."""
    central = whole.cut(STANDARD, electrode_rows(whole, "central"))
    wide = whole.cut(STANDARD)
    halves = [whole.people[::2], whole.people[1::2]]
    corpus = corpus_of(folder, out, len(whole.channels))
    power = [power_features] * 2
    for seed in seeds:
        random = [encoder_of(_random(seed))] * 2
        scratch = cells.get(
            f"tried, seed {seed}: scratch, labels of 2 people",
            lambda seed=seed: tuned(central, halves, ["scratch"] * 2, 2, draws, seed),
        )
        floor = cells.get(f"tried, seed {seed}: {RANDOM}, frozen", lambda r=random: probe(central, halves, r)[0])
        best = cells.get(f"tried: {POWER}, 21 electrodes", lambda: probe(central, halves, power)[0])
        for name in (*VARIANTS, SUPERVISED):
            runs = [_trained(name, corpus, out, central, folder, half, n, steps, seed) for n, half in enumerate(halves)]
            found = cells.get(f"tried, seed {seed}: {name}, frozen", lambda r=runs: probe(central, halves, _others(r))[0])
            few = cells.get(
                f"tried, seed {seed}: {name}, labels of 2 people", lambda r=runs, s=seed: tuned(central, halves, r, 2, draws, s)
            )
            print(f"    {name}, frozen, to random: {summary(found, floor)}; to log power: {summary(found, best)}")
            print(f"    {name}, fine-tuned, to scratch: {summary(few, scratch)}")
            _fewer(cells, f"tried, seed {seed}: {name}", wide, halves, _others(runs))
        _fewer(cells, f"tried, seed {seed}: {RANDOM}", wide, halves, random)
    seed = seeds[0]
    runs = [
        pretrained(corpus.select(subjects=h), out / f"wide-{seed}-{n}-{steps}", wide, steps, seed) for n, h in enumerate(halves)
    ]
    _fewer(cells, f"tried, seed {seed}: {WIDE}", wide, halves, _others(runs))
    _fewer(cells, f"tried: {POWER}", wide, halves, power)


def caps(channels: Sequence[str]) -> dict[int, list[int] | None]:
    """Electrodes that are left: all, every second one by name, the 10-20 system, eight of it."""
    named = sorted(range(len(channels)), key=lambda i: channels[i])
    return {
        64: None, 32: sorted(named[::2]), 19: [channels.index(n) for n in TEN_TWENTY], 8: [channels.index(n) for n in EIGHT],
    }  # fmt: skip


def encoder_of(model: object) -> Features:
    """Features of a frozen encoder, electrode by electrode: (N, C x D)."""
    return lambda t: EEGFeatures(model, sfreq=RATE, channels=list(t.channels)).fit_transform(t.x_NCT, groups=t.person_N)


def power_features(trials: Trials) -> np.ndarray:
    """The log-power map, electrode by electrode: (N, C x bands)."""
    maps = LogPower(RATE, IMAGERY_BANDS).fit_transform(trials.x_NCT, groups=trials.person_N)
    count = len(trials.channels)
    return maps.reshape(len(maps), -1, count).swapaxes(1, 2).reshape(len(maps), -1)


def probe(
    trials: Trials,
    halves: Sequence[Sequence[str]],
    features: Sequence[Features],
    caps_of: Sequence[Sequence[int] | None] = (None,),
) -> list[dict[str, float]]:
    """Balanced accuracy per person: a linear classifier by 4 folds of people within each half, on that half's features.

    caps_of: electrodes that test people have, None for all; training people have all, and nothing is fitted again.
    """
    scores: list[dict[str, float]] = [{} for _ in caps_of]
    for half, make in zip(halves, features, strict=True):
        keep = np.isin(trials.person_N, half)
        part = Trials(trials.x_NCT[keep], trials.y_N[keep], trials.person_N[keep], trials.run_N[keep], trials.channels)
        full_ND = make(part)
        seen = [full_ND if rows is None else _spread(make, part, rows, full_ND.shape) for rows in caps_of]
        guesses = [np.empty_like(part.y_N) for _ in caps_of]
        for fold in folds(part.people, 0, 4):
            test = np.isin(part.person_N, fold)
            model = logistic().fit(full_ND[~test], part.y_N[~test])
            for guess_N, seen_ND in zip(guesses, seen, strict=True):
                guess_N[test] = model.predict(seen_ND[test])
        for score, guess_N in zip(scores, guesses, strict=True):
            score.update(per_person(part, guess_N))
    return scores


def _spread(make: Features, part: Trials, rows: Sequence[int], shape: tuple[int, ...]) -> np.ndarray:
    some = replace(part, x_NCT=part.x_NCT[:, rows], channels=tuple(part.channels[i] for i in rows))
    out = np.zeros((shape[0], len(part.channels), shape[1] // len(part.channels)))
    out[:, rows] = make(some).reshape(shape[0], len(rows), -1)
    return out.reshape(shape)


def _fewer(cells: Cells, name: str, wide: Trials, halves: Sequence[Sequence[str]], features: Sequence[Features]) -> None:
    """64 electrodes in training, fewer at the test."""
    known = caps(wide.channels)
    names = [f"{name}, {count} of 64 electrodes at the test" for count in known]
    found = [] if all(one in cells.cells for one in names) else probe(wide, halves, features, list(known.values()))
    for number, one in enumerate(names):
        cells.get(one, lambda n=number: found[n])


def _others(runs: Sequence[object]) -> list[Features]:
    """The encoder of one half is judged on the other."""
    return [encoder_of(run) for run in runs[::-1]]


def _random(seed: int) -> PositionsEncoder:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PositionsEncoder(PositionsConfig())


def _trained(
    name: str, corpus: object, out: Path, central: Trials, folder: Path, half: Sequence[str], number: int, steps: int, seed: int
) -> object:
    """A run without labels, or an encoder trained with labels of another task, on one half of the people."""
    if name != SUPERVISED:
        kind = list(VARIANTS).index(name)
        run = out / f"tried-{kind}-{seed}-{number}-{steps}"
        return pretrained(corpus.select(subjects=half), run, central, steps, seed, VARIANTS[name])  # type: ignore[attr-defined]
    run = out / f"tried-supervised-{seed}-{number}-{steps}"
    if not (run / "config.json").is_file():
        told = read(folder, {"T0": 0, "T1": 1, "T2": 1}).cut(STANDARD, electrode_rows(central, "central"))
        keep = np.isin(told.person_N, half)
        epochs = max(1, round(steps * 64 / keep.sum()))
        model = EEGClassifier("scratch", sfreq=RATE, channels=list(told.channels), epochs=epochs, lr_encoder=1e-3, seed=seed)
        model.fit(told.x_NCT[keep], told.y_N[keep], groups=told.person_N[keep]).network_.encoder.save_pretrained(run)
    return run
