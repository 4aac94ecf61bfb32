"""What the simulated twin of a design reaches: the table of `dreamdiff/simulation/twins.py`.

    python benchmarks/twins.py --out FOLDER        FOLDER keeps the simulated pairs (about 1.2 GB) for the next call

`pairs simulate` at its defaults, at 128 Hz. For each number of categories, of training trials a category and person, and of repetitions that
are averaged, channels are whitened per person and a ridge regression on time courses names the category of drawings that training
never showed. ACCURACY is the mean over people, seeds and draws of categories; SPREAD the standard deviation over people and seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dreamdiff.estimators.light import BIN, time_course
from dreamdiff.linear import RidgeDecoder
from dreamdiff.pairs.reader import Pairs
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from dreamdiff.simulation.twins import CATEGORIES, REPETITIONS, SFREQ, TRAINING
from dreamdiff.whitening import whiten_each

DRAWS = 4  # of categories, where there are fewer than all


def measure(pairs: Pairs, person: int, seed: int) -> np.ndarray:
    """(categories, training trials, repetitions) accuracy of one person; NaN where the design has too few repetitions."""
    rng = np.random.default_rng(seed)
    parts = {name: part[pairs.person[part] == person] for name, part in pairs.split().items()}
    sides = {}
    for name in ("train", "test"):
        eeg_NCT = pairs.eeg(parts[name])
        sides[name] = eeg_NCT - eeg_NCT.mean(2, keepdims=True)
    both = whiten_each(np.concatenate([sides["train"], sides["test"]]), np.zeros(sum(map(len, sides.values()))), "euclidean")
    features_ND = time_course(both, round(both.shape[2] / SFREQ / BIN))
    train_ND, test_ND = features_ND[: len(parts["train"])], features_ND[len(parts["train"]) :]
    train_N, test_N = pairs.labels[parts["train"]], pairs.labels[parts["test"]]
    image_N = pairs.image[parts["test"]]
    out = np.full((len(CATEGORIES), len(TRAINING), len(REPETITIONS)), np.nan)
    for a, count in enumerate(CATEGORIES):
        for b, trials in enumerate(TRAINING):
            hits: dict[int, list[float]] = {number: [] for number in REPETITIONS}
            for _ in range(1 if count == len(pairs.classes) else DRAWS):
                some = np.sort(rng.choice(len(pairs.classes), count, replace=False))
                rows = np.concatenate([rng.permutation(np.flatnonzero(train_N == label))[:trials] for label in some])
                decoder = RidgeDecoder().fit(train_ND[rows], train_N[rows])
                scores_NK = decoder.scores(test_ND)
                for number in REPETITIONS:
                    for image in np.unique(image_N[np.isin(test_N, some)]):
                        here = rng.permutation(np.flatnonzero(image_N == image))
                        groups = here[: len(here) // number * number].reshape(-1, number)
                        named = decoder.classes[scores_NK[groups].mean(1).argmax(1)]
                        hits[number] += (named == test_N[here[0]]).tolist()
            out[a, b] = [np.mean(hits[number]) if hits[number] else np.nan for number in REPETITIONS]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    found = []
    for seed in range(given.seeds):
        config = SimulateConfig(sfreq=SFREQ, people=2, trials=80, test_share=0.4, seed=seed)
        pairs = simulate(given.out / f"twin-{seed}.zarr", config)
        found += [measure(pairs, person, seed) for person in range(len(pairs.subjects))]
    table = np.nanmean(found, axis=0)
    print("ACCURACY = (")
    for count, of_count in zip(CATEGORIES, table, strict=True):
        rows = ", ".join("(" + ", ".join(f"{value:.3f}" for value in row) + ")" for row in of_count)
        print(f"    ({rows}),  # {count} categories")
    print(")")
    spread = np.nanmean(np.nanstd(found, axis=0), axis=(1, 2))
    print("SPREAD = (" + ", ".join(f"{value:.2f}" for value in spread) + ")")


if __name__ == "__main__":
    main()
