"""Alignment on simulated pairs: seconds and memory to 0.9 of the final accuracy.

    python benchmarks/align.py                    pairs and pre-trained encoder are made in a temporary folder
    python benchmarks/align.py --pairs PAIRS --msm RUN --json FILE

`few_labels.py` beside it measures what few labels give with and without pre-training.

Pairs are those of `pairs simulate --sources linear --snr -6 --people 2 --trials 20` (the 0.1 kind) unless given. Accuracy: 40-way, nearest mean
direction of a category's training pictures, test trials only; test trials take no part in anything else. Seconds are from opened
pairs to trained weights, whitening and image vectors included; each system runs in a process of its own, so that memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig, FrontChoice
from dreamdiff.alignment.data import front_config, front_end_of, person_numbers
from dreamdiff.alignment.prepare import prepare
from dreamdiff.alignment.targets import load_target
from dreamdiff.alignment.unlabelled import pretrain_on_pairs
from dreamdiff.certificates.aligned import PictureVectors
from dreamdiff.certificates.closed_form import ridge_vectors
from dreamdiff.certificates.judging import CATEGORY, VectorJudge
from dreamdiff.encoders.frontend import FrontEnd, trial_covariance
from dreamdiff.pairs.reader import Pairs
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from dreamdiff.training.loop import fit
from eegprep.settings import resolve

SYSTEMS = ("ridge", "ridge, whitened", "conv", "scratch", "msm", "plain PyTorch")


class Bench:
    """Pairs, their picture vectors, and the judge."""

    def __init__(self, pairs: str | Pairs, target: str = "embedded") -> None:
        self.store = pairs if isinstance(pairs, Pairs) else Pairs.open(pairs)
        parts = self.store.split()
        self.train, self.test = parts["train"], parts["test"]
        self.pictures = PictureVectors.of(self.store, load_target(target), self.train, self.test)
        self.judge: VectorJudge = self.pictures.judge(len(self.store.classes), target)
        self.truth = self.store.labels[self.test]

    def hits(self, vectors_ND: np.ndarray) -> np.ndarray:
        """(N,) whether each test trial's category is right."""
        return np.asarray(self.judge.predict(vectors_ND)[CATEGORY] == self.truth)


def learned(
    bench: Bench, encoder: str, msm: str, *assignments: str, preset: str = "default", curve_too: bool = True
) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    """Hits at the end, (seconds, accuracy) after each epoch, and seconds in all; judging takes no part in the seconds."""
    source = {"conv": "conv", "scratch": "random:tiny", "msm": f"msm:{msm}"}[encoder]
    config = resolve(
        AlignConfig,
        presets=ALIGN_PRESETS,
        preset=preset,
        assignments=["loop.device=cpu", "loop.checkpoint_minutes=60", *assignments],
    )
    curve: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        began, judged = time.perf_counter(), 0.0
        task = prepare(bench.store, Path(folder) / "run", config, encoder=source)
        names = [bench.store.subjects[p] for p in bench.store.person[bench.test]]

        def validate(device: torch.device) -> dict[str, float]:
            nonlocal judged
            at = time.perf_counter()
            vectors = task.model.encode(bench.store.eeg(bench.test), names).numpy()
            curve.append((at - began - judged, float(bench.hits(vectors).mean())))
            judged += time.perf_counter() - at
            return {}

        task.validate = validate if curve_too else lambda device: {}  # type: ignore[method-assign]
        fit(task, config.loop, config.optim, Path(folder) / "run")
        seconds = time.perf_counter() - began - judged
        hits = bench.hits(task.model.encode(bench.store.eeg(bench.test), names).numpy())
    return hits, curve, seconds


def plain(bench: Bench) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    """What somebody would write in an afternoon: the same whitening and convolution in a loop over tensors."""
    began, judged, curve = time.perf_counter(), 0.0, []
    store = bench.store
    config = front_config(store, FrontChoice(), rate=128.0, patch=1)
    front = FrontEnd(config, tuple(store.subjects))
    covariances = []
    for number in range(len(store.subjects)):
        mine = bench.train[store.person[bench.train] == number]
        covariances.append(trial_covariance(front.cut(torch.from_numpy(store.eeg(mine)))))
    front.fit(torch.stack(covariances))
    person = person_numbers(store, front.people)
    x, who = front_end_of(store, bench.train, front, person), torch.from_numpy(person[bench.train])
    target = torch.from_numpy(np.asarray(bench.judge.directions(bench.pictures.train_ND), np.float32))
    torch.manual_seed(0)
    people = nn.Parameter(torch.randn(len(store.subjects), 64, config.channels) / config.channels**0.5)
    body = nn.Sequential(
        nn.Conv1d(64, 40, 9, padding=4),
        nn.BatchNorm1d(40),
        nn.ELU(),
        nn.AvgPool1d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(40 * (config.window // 4), target.shape[1]),
    )
    weights = [people, *body.parameters()]
    epochs, batch = 12, 64
    steps = len(x) // batch
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * steps, pct_start=0.15)
    image = torch.from_numpy(store.image[bench.train].astype(np.int64))
    test, who_test = front_end_of(store, bench.test, front, person), torch.from_numpy(person[bench.test])
    hits = np.zeros(0)
    for _ in range(epochs):
        body.train()
        for rows in torch.randperm(len(x))[: steps * batch].view(steps, batch):
            z = F.normalize(body(people[who[rows]] @ x[rows]), dim=1)
            same = (image[rows][:, None] == image[rows][None]).float()
            same = same / same.sum(1, keepdim=True)
            score = z @ target[rows].T * 10
            loss = (
                -(same * (score.log_softmax(1) + score.log_softmax(0))).sum(1).mean() / 2 + (1 - (z * target[rows]).sum(1)).mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        at = time.perf_counter()
        body.eval()
        with torch.no_grad():
            found = F.normalize(body(people[who_test] @ test), dim=1).numpy()
        hits = np.asarray((found @ bench.judge.centres_KD.T).argmax(1) == bench.truth)
        curve.append((at - began - judged, float(hits.mean())))
        judged += time.perf_counter() - at
    return hits, curve, time.perf_counter() - began - judged


def closed_form(
    bench: Bench, whiten: bool, train: np.ndarray | None = None
) -> tuple[np.ndarray, list[tuple[float, float]], float]:
    """Ridge per person on the same stretch of time."""
    train = bench.train if train is None else train
    began = time.perf_counter()
    front = front_config(bench.store, FrontChoice(), rate=128.0, patch=1)
    place = {int(position): row for row, position in enumerate(bench.train)}
    targets = bench.pictures.train_ND[[place[int(position)] for position in train]]
    vectors = ridge_vectors(bench.store, front, train, bench.test, targets, whiten=whiten)
    seconds = time.perf_counter() - began
    hits = bench.hits(vectors)
    return hits, [(seconds, float(hits.mean()))], seconds


def one(system: str, pairs: str, msm: str) -> dict[str, Any]:
    """One system in this process."""
    bench = Bench(pairs)
    if system.startswith("ridge"):
        hits, curve, seconds = closed_form(bench, "whitened" in system)
    elif system == "plain PyTorch":
        hits, curve, seconds = plain(bench)
    else:
        hits, curve, seconds = learned(bench, system, msm)
    final = float(hits.mean())
    to = next((at for at, accuracy in curve if accuracy >= 0.9 * final), seconds)
    return {
        "system": system, "accuracy": final, "n": len(hits), "seconds_to_0.9": to, "seconds": seconds,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def speed(pairs: str, msm: str) -> list[dict[str, Any]]:
    """All systems, one process each."""
    rows = []
    print(f"{'system':18s} accuracy  to 0.9 of it   in all   memory")
    for system in SYSTEMS:
        command = [sys.executable, __file__, "--one", system, "--pairs", pairs, "--msm", msm]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{system:18s} {row['accuracy']:7.1%} {row['seconds_to_0.9']:9.1f} s {row['seconds']:10.1f} s {row['megabytes']:7.0f} MB",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs")
    parser.add_argument("--msm")
    parser.add_argument("--one", choices=SYSTEMS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.pairs, args.msm)))
        return
    with tempfile.TemporaryDirectory() as folder:
        pairs = args.pairs or str(Path(folder) / "pairs.zarr")
        if not args.pairs:
            simulate(pairs, SimulateConfig(sources="linear", snr=-6, people=2, trials=20))
        msm = args.msm or str(Path(folder) / "msm")
        if not args.msm:
            began = time.perf_counter()
            pretrain_on_pairs(pairs, msm)
            print(f"masked pre-training on the training trials, without labels: {time.perf_counter() - began:.0f} s")
        print(f"{pairs}; {os.cpu_count()} processors, {torch.get_num_threads()} threads")
        found = {"speed": speed(pairs, msm)}
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
