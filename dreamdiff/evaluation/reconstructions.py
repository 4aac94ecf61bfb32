"""Measures a folder of reconstructions with the suite, beside an oracle, a random vector and another picture.

The folder is what `dreamdiff generate` writes, whatever model made it; pictures of other people's systems count too when they carry its file names.
Shapes: N trials, S samples, H W pixels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dreamdiff.alignment.targets import load_target
from dreamdiff.arrays import Array, Ints
from dreamdiff.devices import choose_device, used
from dreamdiff.diffusion.frozen_generator import resized
from dreamdiff.diffusion.vector_generator import load_vector_generator
from dreamdiff.evaluation.evaluate import choose_trials
from dreamdiff.evaluation.scorer import EvaluateConfig, load_networks
from dreamdiff.metrics.layers import load_layers
from dreamdiff.metrics.measurement import Measurement, units
from dreamdiff.metrics.reconstruction import CHOICES, suite
from dreamdiff.origin import portable, portable_settings
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.encoding import read_each
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.frame import not_computed, pairs_identity, report_page
from eegprep.errors import DataError, ToolkitError
from eegprep.provenance import software_versions
from eegprep.recording import ProgressCallback
from eegprep.sealed import write_sealed
from eegprep.words import count

FORMAT, VERSION = "dreamdiff-reconstructions", 1
PAGE = "report.html"
MADE = "the reconstructions"
ORACLE, RANDOM, OTHER = "oracle: the true vector", "a random vector: of a training picture", "another shown picture"
_NAME = re.compile(r"trial-(\d{6})_seed-(\d+)\.png")


@dataclass(frozen=True)
class Reconstructions:
    """Numbers of each row: the reconstructions, what bounds them, and what they have to beat."""

    identity: Mapping[str, Any]
    rows: dict[str, tuple[Measurement, ...]]
    not_computed: dict[str, str]
    audit: Audit

    def table(self) -> list[dict[str, object]]:
        """One row per number."""
        return [
            {"row": name, "name": m.name, "value": m.value, "interval": m.between(), "floor": m.floor, "n": m.n, "seed": m.seed}
            for name, measurements in self.rows.items()
            for m in measurements
        ]

    def to_json(self) -> Mapping[str, object]:
        """The content of report.json."""
        return {
            "format": FORMAT, "version": VERSION, "identity": self.identity, "choices": list(CHOICES),
            "rows": {name: [m.to_json() for m in measurements] for name, measurements in self.rows.items()},
            "not_computed": self.not_computed, "audit": self.audit.to_dict(),
        }  # fmt: skip


def measure_reconstructions(
    folder: Path, pairs: str | Path, out: Path, config: EvaluateConfig | None = None, *, weights: Path | None = None, adapter: str | None = None,
    images: Path | None = None, progress: ProgressCallback | None = None,
) -> Reconstructions:  # fmt: skip
    """Measure what `dreamdiff generate` made of the trials of a part of a split, and write report.json and report.html.

    Args:
        folder: with `trial-NNNNNN_seed-N.png`. weights: folder of weight files for AlexNet, Inception and SwAV.
        adapter: of the frozen generator (`config.sd`) that draws the oracle's vectors.

    Raises:
        DataError: no picture of a trial of this part, or trials with other numbers of samples.
    """
    config = config or EvaluateConfig()
    store = Pairs.open(pairs, images=images)
    parts, part = choose_trials(store, config)
    chosen, made = read_reconstructions(folder, store, part)
    size = made.shape[2]
    networks = load_networks(config, None)
    layers, missing = load_layers(weights)
    device = choose_device(config.device)
    layers = {name: layer.to(device) for name, layer in layers.items()}
    clip = networks.clip
    if clip is None:
        missing["clip"] = networks.left_out.get("clip", "no CLIP was given (--clip)")
    truth = store.load_images(store.image[chosen], size=size)
    image_N, people = store.image[chosen], len(np.unique(store.person[chosen]))
    groups = units(store.labels[chosen], store.person[chosen], image_N)
    systems: dict[str, Array] = {MADE: made}
    drawn, why = bounds(store, parts["train"], chosen, made.shape[1], size, config, adapter, progress)
    systems |= drawn
    missing |= why
    # a rotation by one person's pictures: nobody keeps their own
    order = np.roll(np.arange(len(chosen)), 1)
    systems[OTHER] = np.repeat(truth[order][:, None], made.shape[1], axis=1)
    rows: dict[str, tuple[Measurement, ...]] = {}
    for number, (name, pictures) in enumerate(systems.items()):
        if progress is not None:
            progress(number, len(systems), name)
        outcome, reasons = suite(
            pictures, truth, image_N, people, layers=layers, seed=config.seed, groups_N=groups,
            clip=None if clip is None else lambda some: np.asarray(clip.encode_images(list(some)), float), clip_name=config.clip if config.clip != "auto" else "embedded",
        )  # fmt: skip
        rows[name] = tuple(outcome)
        missing |= reasons
    identity = {
        "reconstructions": {"path": portable(folder, out), "samples": made.shape[1], "pixels": size},
        "pairs": pairs_identity(store, out),
        "split": {"name": config.split, "n_train": len(parts["train"]), "n_evaluated": len(chosen), "n_part": len(part), "people": people},
        "networks": networks.files | {name: dict(layer.files) for name, layer in layers.items()},
        "config": portable_settings(config.model_dump(mode="json"), out), **used(device, config.precision), "software": software_versions(),
    }  # fmt: skip
    report = store.audit(config.split.rpartition("/")[0] or "default", parts=(parts["train"], chosen))
    result = Reconstructions(identity, rows, missing, report)
    out.mkdir(parents=True, exist_ok=True)
    write_sealed(out / "report.json", result.to_json())
    _write_page(out / PAGE, result, store, {name: pictures[:, 0] for name, pictures in systems.items()}, truth)
    return result


def read_reconstructions(folder: Path, store: Pairs, part: Ints) -> tuple[Ints, Array]:
    """Positions of the trials of `part` that have pictures, and these: (N, S, H, W, 3), samples in the order of their seeds.

    Raises:
        DataError: none, or another number of samples for some.
    """
    place = {int(number): int(position) for position, number in zip(part, store.indices[part], strict=True)}
    files: dict[int, list[tuple[int, Path]]] = {}
    for path in sorted(folder.glob("trial-*.png")) or sorted((folder / "images").glob("trial-*.png")):
        match = _NAME.fullmatch(path.name)
        if match is not None and int(match[1]) in place:
            files.setdefault(place[int(match[1])], []).append((int(match[2]), path))
    if not files:
        raise DataError(
            f"{folder}: 0 pictures trial-NNNNNN_seed-N.png of the {len(part)} trials of this part",
            "make them with `dreamdiff generate --select test`, or choose the part with --split",
        )
    counts = sorted({len(one) for one in files.values()})
    if len(counts) > 1:
        raise DataError(f"{folder}: trials with {counts[0]} and with {counts[-1]} samples", "generate the same number for all")
    chosen = np.array(sorted(files))
    pictures = [[np.asarray(_opened(path)) for _, path in sorted(files[position])] for position in chosen]
    if len({picture.shape for one in pictures for picture in one}) > 1:
        raise DataError(f"{folder}: pictures of several sizes", "generate all at one size")
    return chosen, np.array(pictures)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def bounds(
    store: Pairs,
    train: Ints,
    chosen: Ints,
    samples: int,
    size: int,
    config: EvaluateConfig,
    adapter: str | None,
    progress: ProgressCallback | None,
) -> tuple[dict[str, Array], dict[str, str]]:
    """Pictures of the frozen generator from the true vector and from that of a random training picture; or why there are none."""
    try:
        generator = load_vector_generator("embedded" if config.sd == "auto" else config.sd, adapter, offline=True)
        target = load_target(generator.reads.name, device=choose_device(config.device), offline=True)
    except ToolkitError as error:
        return {}, dict.fromkeys((ORACLE, RANDOM), error.problem)
    generator.to(choose_device(config.device))
    rng = np.random.default_rng(config.seed)
    shown, member = np.unique(store.image[chosen], return_inverse=True)
    train_images = np.unique(store.image[train])
    random = rng.choice(train_images, size=len(chosen))
    drawn, place = np.unique(random, return_inverse=True)
    entries: dict[str, Array] = {}
    for name, numbers, rows in ((ORACLE, shown, member.reshape(-1)), (RANDOM, drawn, place.reshape(-1))):
        vectors = torch.from_numpy(target.compute(read_each(store, list(numbers)), [store.image_sha256[k] for k in numbers]))[
            rows
        ]
        parts = []
        jobs = [(row, sample) for row in range(len(chosen)) for sample in range(samples)]
        for start in range(0, len(jobs), config.batch_size):
            some = jobs[start : start + config.batch_size]
            dice = [
                torch.Generator().manual_seed(1_000_003 * config.seed + 1009 * int(store.indices[chosen[row]]) + sample)
                for row, sample in some
            ]
            parts.append(generator(vectors[[row for row, _ in some]], dice, steps=config.steps, guidance=config.guidance))
            if progress is not None:
                progress(start + len(some), len(jobs), name)
        pictures = resized(np.concatenate(parts), size)
        entries[name] = pictures.reshape(len(chosen), samples, *pictures.shape[1:])
    return entries, {}


def _write_page(file: Path, result: Reconstructions, store: Pairs, pictures: dict[str, Array], truth: Array) -> None:
    split = result.identity["split"]
    lead = f"{count(split['n_evaluated'], 'trial')} of {count(split['people'], 'person')}, split {split['name']}"
    page = report_page("Reconstructions", lead, store.provenance, result.audit, split["name"])
    page.text("Figures under these names can be compared only where five choices agree; each number's name holds them:")
    page.table([{"choice": choice} for choice in CHOICES])
    names = list(dict.fromkeys(m.name for measurements in result.rows.values() for m in measurements))
    page.heading("Numbers")
    page.text(
        "In brackets: 95 % intervals. Best-of rows were chosen by looking at the shown picture. A judge whose vectors the generator reads flatters its pictures."
    )
    page.table([{"number": name, **{row: _cell(result.rows[row], name) for row in result.rows}} for name in names])
    not_computed(page, result.not_computed)
    page.heading("Pictures")
    page.text("The first trials in the order of the store, first sample; nothing was picked.")
    page.sets([(truth[k], "shown"), *((made[k], name) for name, made in pictures.items())] for k in range(min(8, len(truth))))
    page.write(file)


def _cell(measurements: Sequence[Measurement], name: str) -> str:
    m = next((one for one in measurements if one.name == name), None)
    return "" if m is None else f"{m.value:.3f} {m.interval('.3f')}"
