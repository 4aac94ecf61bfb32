"""A new person with few labels, on simulated pairs: what pre-training and other people's models are worth.

    python benchmarks/few_labels.py --out FOLDER                     both curves; FOLDER keeps pairs and models for the next call
    python benchmarks/few_labels.py --out FOLDER --counts 1,5 --people 3 --minutes 1,5 --json FILE

`--others` people lend their viewing EEG without labels (pre-training, together with the genuine recordings that ship with the
package) or with labels (`dreamdiff adapt`). `--people` further people are new: none of their trials takes part in pre-training. Each of
them is one seed: another head, another draw of labelled trials, another start of the networks.

    labels    n labelled trials a category: ridge, the paper's tokens from scratch and pre-trained, the convolution
    minutes   the first minutes of the new person's recording: `adapt` on the others' convolution, beside the same trials alone

Accuracy: 40-way, single trials of drawings that no training trial showed; the nearest mean direction of a category's training drawings
(chance 2.5 %). Intervals are paired: whole drawings are resampled, those of all people together. Backgrounds of all simulated people come from the
genuine recordings that ship with the package, so pre-training has heard the new person's background, though not the new person's responses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from align import Bench, closed_form, learned

import eegprep
from dreamdiff.alignment.adapt import adapt, chosen_trials
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig, FrontChoice
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align, few_labels
from dreamdiff.alignment.unlabelled import unlabelled_corpus
from dreamdiff.certificates.records import paired_interval
from dreamdiff.encoders.frontend import FrontEndConfig, trial_covariance
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.simulation.config import SimulateConfig
from dreamdiff.simulation.simulate import simulate
from dreamdiff.whitening import inverse_root
from eegprep.corpus.export import from_arrays
from eegprep.settings import resolve

SYSTEMS = ("ridge, whitened", "scratch", "msm", "conv")


class World:
    """Pairs of everybody, and what the others lend. Everything is made once in `folder`."""

    def __init__(self, folder: Path, others: int, people: int, config: SimulateConfig, steps: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.pairs = simulate(folder / "pairs.zarr", config.model_copy(update={"people": others + people}))
        self.others, self.new = self.pairs.subjects[:others], self.pairs.subjects[others:]
        self.msm = folder / "msm"
        self._pretrain(steps)
        self.conv = folder / "others"
        align(self.pairs.select(subjects=self.others), self.conv, _settings(), encoder="conv", offline=True)
        self.benches = [Bench(self.pairs.select(subjects=[name])) for name in self.new]

    def _pretrain(self, steps: int) -> None:
        """Masked pre-training on the others' training trials and on the genuine recordings, both whitened per person; no label is read."""
        plan = resolve(
            PretrainConfig, presets=PRETRAIN_PRESETS, preset="trials", assignments=[f"loop.max_steps={steps}", "loop.device=cpu"]
        )
        windows = self.folder / "unlabelled.zarr"
        front = unlabelled_corpus(self.pairs.select(subjects=self.others), windows, FrontChoice(), patch=plan.model.encoder.patch)
        if "genuine" not in set(eegprep.Corpus.open(windows).subjects["dataset"]):
            eegprep.build(
                "sample.toml", self.folder / "genuine.zarr", offline=True, window=front.window, stride=front.window // 2,
                resample=front.rate, mode="spline",
            )  # fmt: skip
            genuine = eegprep.Corpus.open(self.folder / "genuine.zarr")
            subjects = [{"subject": name, "windows": _whitened(genuine, name, front)} for name in genuine.subjects["subject"]]
            from_arrays(windows, subjects, sfreq=front.rate, dataset="genuine", licence="ODC-BY-1.0", pad_to=front.channels)
        shape = {"channels": front.channels, "window": front.window, "scaling": "none"}
        encoder = plan.model.encoder.model_copy(update=shape)
        plan = plan.model_copy(update={"model": plan.model.model_copy(update={"encoder": encoder})})
        pretrain(windows, self.msm, plan)


def _whitened(genuine: eegprep.Corpus, subject: str, front: FrontEndConfig) -> np.ndarray:
    """(N, C, W) windows of a person, whitened as trials are."""
    mine = genuine.select(subjects=[subject])
    windows_NCW = mine.read(np.arange(len(mine)))
    covariance_CC = trial_covariance(torch.from_numpy(windows_NCW)).numpy()
    return (inverse_root(covariance_CC, front.shrink) @ windows_NCW).astype(np.float32)


def _settings(*assignments: str, preset: str = "default") -> AlignConfig:
    always = ("loop.device=cpu", "loop.checkpoint_minutes=60")
    return resolve(AlignConfig, presets=ALIGN_PRESETS, preset=preset, assignments=[*always, *assignments])


def adapted(bench: Bench, world: World, minutes: float | None) -> np.ndarray:
    """Hits of the others' convolution after `dreamdiff adapt` to this person; without minutes only whitened."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        plan = {"unlabelled": len(bench.train)} if minutes is None else {"minutes": minutes}
        adapt(world.conv, bench.store, run, _settings(preset="adapt"), **plan, offline=True)  # type: ignore[arg-type]
        return hits_of(bench, run)


def hits_of(bench: Bench, run: Path) -> np.ndarray:
    names = [bench.store.subjects[number] for number in bench.store.person[bench.test]]
    return bench.hits(AlignedEncoder.from_pretrained(run).encode(bench.store.eeg(bench.test), names).numpy())


def labels(world: World, counts: Sequence[int]) -> list[dict[str, Any]]:
    """n labelled trials a category of each new person."""
    print("\nlabelled trials a category of a new person; differences paired, 95 % over drawings")
    print(f"{'n':>3s} {''.join(f'{name:>17s}' for name in SYSTEMS)}   msm - scratch")
    rows = []
    for n in counts:
        found: dict[str, list[np.ndarray]] = {name: [] for name in SYSTEMS}
        for seed, bench in enumerate(world.benches):
            found["ridge, whitened"].append(closed_form(bench, True, few_labels(bench.store, bench.train, n, seed))[0])
            for name in SYSTEMS[1:]:
                # fewer than 10 trials a category are seen 20 times, others 12
                options = (f"labels={n}", f"labels_seed={seed}", f"loop.seed={2022 + seed}")
                preset = "few-labels" if n < 10 else "default"
                found[name].append(learned(bench, name, str(world.msm), *options, preset=preset, curve_too=False)[0])
        difference = paired(world, found["msm"], found["scratch"])
        rows.append({"n": n, **summary(found), "msm - scratch": difference})
        print(
            f"{n:3d} {''.join(f'{np.mean(np.concatenate(found[name])):17.1%}' for name in SYSTEMS)}   {_words(difference)}",
            flush=True,
        )
    return rows


def minutes_curve(world: World, minutes: Sequence[float]) -> list[dict[str, Any]]:
    """The first minutes of each new person's training trials."""
    print("\nminutes of a new person's recording")
    print(f"{'min':>4s} {'trials':>6s} {'others adapted':>15s} {'ridge alone':>12s} {'conv alone':>11s}   adapted - ridge alone")
    whitened = [adapted(bench, world, None) for bench in world.benches]
    rows: list[dict[str, Any]] = [{"minutes": 0, "whitened only": float(np.mean(np.concatenate(whitened)))}]
    print(f"   0 {0:6d} {rows[0]['whitened only']:15.1%}   (whitened by unlabelled trials, nothing else)", flush=True)
    for span in minutes:
        found: dict[str, list[np.ndarray]] = {"adapted": [], "ridge, whitened": [], "conv": []}
        trials = []
        for seed, bench in enumerate(world.benches):
            chosen = chosen_trials(bench.store, bench.train, span, None)
            trials.append(len(chosen))
            found["adapted"].append(adapted(bench, world, span))
            found["ridge, whitened"].append(closed_form(bench, True, chosen)[0])
            found["conv"].append(alone(bench, chosen, seed))
        difference = paired(world, found["adapted"], found["ridge, whitened"])
        rows.append({"minutes": span, "trials": float(np.mean(trials)), **summary(found), "adapted - ridge": difference})
        mean = {name: np.mean(np.concatenate(hits)) for name, hits in found.items()}
        print(
            f"{span:4g} {np.mean(trials):6.0f} {mean['adapted']:15.1%} {mean['ridge, whitened']:12.1%} {mean['conv']:11.1%}"
            f"   {_words(difference)}", flush=True,
        )  # fmt: skip
    return rows


def alone(bench: Bench, chosen: np.ndarray, seed: int) -> np.ndarray:
    """The convolution trained on these trials of the person only."""
    view = bench.store.select(indices=np.sort(np.concatenate([chosen, bench.store.split()["val"], bench.test])))
    few = len(chosen) < 10 * len(view.classes)
    with tempfile.TemporaryDirectory() as folder:
        plan = _settings(f"loop.seed={2022 + seed}", preset="few-labels" if few else "default")
        align(view, Path(folder) / "run", plan, encoder="conv", offline=True)
        return hits_of(bench, Path(folder) / "run")


def summary(found: Mapping[str, Sequence[np.ndarray]]) -> dict[str, Any]:
    """Mean over people, and each person's own."""
    return {
        name: {"mean": float(np.mean(np.concatenate(hits))), "people": [round(float(h.mean()), 4) for h in hits]}
        for name, hits in found.items()
    }


def paired(world: World, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean difference in hits and its 95 % interval, whole drawings resampled, those of all people together."""
    difference = np.concatenate(first).astype(float) - np.concatenate(second).astype(float)
    low, high = paired_interval(difference, np.concatenate([bench.store.image[bench.test] for bench in world.benches]), 0)
    return {"mean": float(difference.mean()), "low": low, "high": high, "n": len(difference)}


def _words(found: Mapping[str, float]) -> str:
    return f"{found['mean']:+.1%} [{found['low']:+.1%}, {found['high']:+.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for pairs and models; a temporary one when left out")
    parser.add_argument("--others", type=int, default=3)
    parser.add_argument("--people", type=int, default=3, help="new people, one seed each")
    parser.add_argument("--counts", default="1,2,5,10,20")
    parser.add_argument("--minutes", default="1,2,5,10,20")
    parser.add_argument("--sources", choices=("linear", "network"), default="network")
    parser.add_argument("--snr", type=float, default=-6.0)
    parser.add_argument("--steps", type=int, default=1500, help="of pre-training")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        began = time.perf_counter()
        dials: dict[str, Any] = {"sources": args.sources, "snr": args.snr, "trials": 28}
        if args.sources == "network":
            dials["sfreq"] = 128.0
        world = World(args.out or Path(temporary), args.others, args.people, SimulateConfig(**dials), args.steps)
        print(f"{args.sources} sources at {args.snr:g} dB; made in {time.perf_counter() - began:.0f} s", flush=True)
        tested = sum(len(bench.test) for bench in world.benches)
        print(f"{len(world.benches)} new people, {tested} test trials, chance {1 / len(world.pairs.classes):.1%}")
        found: dict[str, Any] = {"config": {**vars(args), "out": None, "json": None}}
        found["labels"] = labels(world, [int(n) for n in args.counts.split(",") if n])
        found["minutes"] = minutes_curve(world, [float(m) for m in args.minutes.split(",") if m])
        found["seconds"] = round(time.perf_counter() - began)
        print(f"{found['seconds']} s")
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
