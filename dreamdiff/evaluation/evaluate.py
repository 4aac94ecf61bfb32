"""Generated images and the images that were shown -> a report: numbers with intervals and floors, controls, audit, and what made them.

Legend: N trials, S samples per trial, K classes of a classifier, C categories or channels, D features, H W pixels.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from dreamdiff.arrays import Array, Ints
from dreamdiff.baselines.features import Problem, extract_features
from dreamdiff.baselines.run import chosen_baselines, run_baseline
from dreamdiff.certificates.carriers import carriers_of
from dreamdiff.certificates.check import images_digest, model_digest
from dreamdiff.certificates.records import write_predictions
from dreamdiff.devices import used
from dreamdiff.diffusion.clip import ClipTarget
from dreamdiff.diffusion.frozen_generator import FrozenGenerator
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.diffusion.pipeline_folder import pipeline_folder
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.estimators.carriers import Carriers
from dreamdiff.evaluation.certifying import certify_evaluation
from dreamdiff.evaluation.decoding_controls import DecodingControls, decoding_controls
from dreamdiff.evaluation.generation_controls import GenerationControl, generation_controls
from dreamdiff.evaluation.result import BaselineResult, Evaluation, Material
from dreamdiff.evaluation.scorer import ImageScorer, Networks, clip_width, load_networks
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.generation.files import generate_to_folder
from dreamdiff.generation.generate import generator_for, load_pipeline, render
from dreamdiff.lineage.seen import Entry, overlaps
from dreamdiff.metrics import accuracy
from dreamdiff.metrics import similarity as metrics
from dreamdiff.metrics.measurement import Measurement
from dreamdiff.origin import found_again, picture_origin, portable, portable_settings
from dreamdiff.pairs.audit import Audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import EvaluateConfig
from eegprep.errors import DataError, ModelError, ToolkitError
from eegprep.provenance import fingerprint, installed
from eegprep.recording import ProgressCallback
from eegprep.sealed import write_sealed


def evaluate(
    model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig | None = None, *, images: Path | None = None,
    progress: ProgressCallback | None = None, strict_rate: bool = False, say: Callable[[str], None] | None = None,
) -> Evaluation:  # fmt: skip
    """Generate for the trials of a part of a split, measure, control and audit. Images that are there already are kept.

    Args:
        model: run of `dreamdiff train finetune`, or a pipeline folder.
        pairs: store. images: folder of its image files, if they have moved.
        out: folder; generated images go to `images/`.
        strict_rate: refuse another sampling rate than the model's. say: is told what is not as it was for training.

    Raises:
        DataError: the part holds no trials. ModelError, StoreError: what does not fit.
    """
    config = config or EvaluateConfig()
    generate_config = GenerateConfig(
        steps=config.steps, samples=config.samples, seed=config.seed, scheduler=config.scheduler, guidance=config.guidance,
        batch_size=config.batch_size, device=config.device, precision=config.precision,
    )  # fmt: skip
    pipeline = load_pipeline(model, generate_config)
    store, _ = Pairs.open(pairs, images=images).at_model_rate(
        pipeline.details.signal, pipeline.encoder.config.window, strict=strict_rate
    )
    parts, chosen = choose_trials(store, config)
    networks = load_networks(config, clip_width(pipeline))
    generate_to_folder(
        model, pairs, out / "images", generate_config, trials=[int(i) for i in store.indices[chosen]], images=images, strict_rate=strict_rate, say=say,
        progress=progress,
    )  # fmt: skip
    size = pipeline.image_size
    made = read_images(out / "images", store.indices[chosen], generate_config, size)
    scorer = make_scorer(store, parts["train"], chosen, size, networks, config)
    measured = scorer.measure(made)
    vectors = eeg_vectors(pipeline, store, chosen)
    neighbours = None
    if vectors is not None and scorer.clip_GD is not None and vectors.shape[1] == scorer.clip_GD.shape[1]:
        measured += scorer.retrieval(vectors)
        neighbours = np.argsort(-metrics.cosine_similarity(vectors[:, None], scorer.clip_GD)[:, 0], axis=1)[:, :5]
    else:
        scorer.not_computed["retrieval"] = "the model has no CLIP head, or the CLIP that judges has another width"
    report = store.audit(split_name(config.split)[0], parts=(parts["train"], chosen))
    decoding: DecodingControls | None = None
    generation: tuple[GenerationControl, ...] = ()
    carried: Carriers | None = None
    if config.controls:
        asked = carriers_of(store, parts["train"], chosen, seed=config.seed, progress=progress)
        if isinstance(asked, str):
            scorer.not_computed["which part carries it"] = asked
        else:
            carried = asked
        decoding = run_decoding_controls(store, parts["train"], chosen, report, config.seed, progress)
        generation = tuple(run_generation_controls(pipeline, store, chosen, scorer, networks, generate_config, config, progress))
    baselines = (
        tuple(
            run_baselines(store, parts["train"], chosen, scorer, pipeline, config, progress, folder=pipeline_folder(Path(model)))
        )
        if config.baselines
        else ()
    )
    some = evenly(chosen, store.labels, config.certificate_trials, config.seed)
    certificate = certify_evaluation(
        pipeline, store, parts["train"], chosen, some, scorer, generate_config, seed=config.seed, progress=progress
    )
    judged = scorer.judge_scores(made) if scorer.judge is not None else None
    material = Material(
        scorer.truth_NHWC,
        made,
        scorer.labels_N,
        store.classes,
        _names(store, chosen),
        _quality(scorer, made),
        judged,
        neighbours,
        scorer.shown_GHWC,
        scorer.image_N,
        scorer.person_N,
    )
    result = Evaluation(
        identity(model, pipeline, store, parts, chosen, networks, config, out), tuple(measured), scorer.not_computed, report, decoding,
        generation, material, None if judged is None else accuracy.confusion(judged, scorer.labels_N), baselines,
        certificate, None, carried,
    )  # fmt: skip
    result = replace(result, predictions=write_predictions(out, store.indices[chosen], certificate, result.figures()))
    write_sealed(out / "report.json", result.to_json())
    return result


def split_name(text: str) -> tuple[str, str]:
    """`test` -> (default, test); `block/test` -> (block, test)."""
    name, _, part = text.rpartition("/")
    return name or "default", part


def choose_trials(store: Pairs, config: EvaluateConfig) -> tuple[dict[str, Ints], Ints]:
    """Positions of all parts, and those to evaluate: all of the part, or `trials` of them, evenly from all classes."""
    name, part = split_name(config.split)
    parts = store.split(name)  # a name means the same trials here as in training
    if part not in parts or len(parts[part]) == 0:
        raise DataError(
            f"{store.path}: split {config.split!r} has no trials (parts: {', '.join(f'{k} {len(v)}' for k, v in parts.items())})",
            "use --split test, val, or NAME/test",
        )
    return parts, evenly(parts[part], store.labels, config.trials, config.seed)


def evenly(positions: Ints, labels_N: Array, limit: int | None, seed: int) -> Ints:
    """At most `limit` positions, one from each class in turn, in the order of the store."""
    if limit is None or limit >= len(positions):
        return np.asarray(positions)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(positions)
    turn = np.zeros(len(shuffled), int)
    for label in np.unique(labels_N[shuffled]):
        here = labels_N[shuffled] == label
        # the first of each class, then the second of each, and so on
        turn[here] = np.arange(here.sum())
    return np.sort(shuffled[np.argsort(turn, kind="stable")][:limit])


def make_scorer(store: Pairs, train: Ints, chosen: Ints, size: int, networks: Networks, config: EvaluateConfig) -> ImageScorer:
    """A scorer for these trials, at `size` pixels; the centroid judge sees images of training trials, and of classes that have none others.

    A class that training never shows gets its centre from pictures that no judged trial showed; where there are none, from the shown ones.
    """
    shown, member = np.unique(store.image[chosen], return_inverse=True)
    train_images, labels, centres = centre_images(store, train, shown)
    return ImageScorer(
        store.load_images(shown, size=size), member, store.labels[chosen], store.classes, networks,
        reference_MHWC=store.load_images(train_images, size=size), reference_labels_M=labels, config=config,
        person_N=store.person[chosen], centres=centres,
    )  # fmt: skip


def centre_images(store: Pairs, train: Ints, shown: Ints) -> tuple[Ints, Ints, str]:
    """Images that class centres are made of, their labels, and a remark on held-out classes (empty where there are none)."""
    train_images, first = np.unique(store.image[train], return_index=True)
    labels = store.labels[train][first]
    missing = np.setdiff1d(np.arange(len(store.classes)), labels)
    if len(missing) == 0:
        return train_images, labels, ""
    images, where = np.unique(store.image, return_index=True)
    of_image = store.labels[where]
    more: list[Ints] = []
    unseen = 0
    for label in missing:
        of_class = images[of_image == label]
        others = np.setdiff1d(of_class, shown)
        unseen += len(others) > 0
        more.append(others if len(others) else of_class)
    added = np.concatenate(more)
    remark = (
        f"; centres of {len(missing)} classes without training images: {unseen} from pictures that no judged trial showed, "
        f"{sum(len(part) > 0 for part in more) - unseen} from the shown ones"
    )
    return (
        np.concatenate([train_images, added]),
        np.concatenate([labels, np.repeat(missing, [len(part) for part in more])]),
        remark,
    )


def read_images(folder: Path, numbers: Array, generate_config: GenerateConfig, size: int) -> Array:
    """(N, S, H, W, 3) of the PNG files that `generate` wrote."""
    out = np.empty((len(numbers), generate_config.samples, size, size, 3), np.uint8)
    for row, number in enumerate(numbers):
        for sample in range(generate_config.samples):
            with Image.open(folder / f"trial-{int(number):06d}_seed-{generate_config.seed + sample}.png") as image:
                out[row, sample] = np.asarray(image.convert("RGB"))
    return out


def eeg_vectors(pipeline: DreamDiffusionPipeline, store: Pairs, chosen: Ints) -> Array | None:
    """(N, D): h(y) of the trials, or None without a CLIP head."""
    if clip_width(pipeline) is None:
        return None
    parts, batch = [], 32 if pipeline.device.type == "cpu" else 256
    for start in range(0, len(chosen), batch):
        vectors = pipeline.encode(store.eeg(chosen[start : start + batch])).clip_BD
        assert vectors is not None
        parts.append(vectors.float().cpu().numpy())
    return np.concatenate(parts)


def run_decoding_controls(
    store: Pairs, train: Ints, test: Ints, report: Audit, seed: int, progress: ProgressCallback | None
) -> DecodingControls:
    """Decoding controls of a store: `extract_features` with its rate, its first sample and its real channels."""
    attributes = store.attributes[store.subjects[0]]
    # rows beyond them repeat channels, and would count twice
    channels = min(int(store.attributes[name].get("n_channels", store.eeg_shape[0])) for name in store.subjects)
    features = extract_features(
        store.eeg, store.trials, train, sfreq=float(attributes.get("sfreq") or 512.0), t0=float(attributes.get("t0") or 0.0),
        real_channels=min(channels, store.eeg_shape[0]),
    )  # fmt: skip
    return decoding_controls(
        features, store.trials, train, test, classes=len(store.classes), audit=report, seed=seed, progress=progress
    )


def run_generation_controls(
    pipeline: DreamDiffusionPipeline, store: Pairs, chosen: Ints, scorer: ImageScorer, networks: Networks, generate_config: GenerateConfig,
    config: EvaluateConfig, progress: ProgressCallback | None,
) -> list[GenerationControl]:  # fmt: skip
    """Images from altered EEG for some of the trials, one sample each, and from the EEG as it is for comparison."""
    some = evenly(chosen, store.labels, config.control_trials, config.seed)
    if len(np.unique(store.labels[some])) < 2 or networks.classifier is None:
        scorer.not_computed["generation controls"] = "they need a classifier and at least 2 classes"
        return []
    own = scorer.only(np.searchsorted(chosen, some))
    eeg = store.eeg(some)

    def generate(signal_NCT: Array) -> Array:
        parts = []
        for start in range(0, len(signal_NCT), generate_config.batch_size):
            rows = range(start, min(start + generate_config.batch_size, len(signal_NCT)))
            generators = [generator_for(int(store.indices[some[row]]), generate_config.seed) for row in rows]
            parts.append(render(pipeline, signal_NCT[start : start + generate_config.batch_size], generators, generate_config))
        return np.concatenate(parts)[:, None]

    def score(images_NSHWC: Array) -> list[Measurement]:
        return [*own.accuracies(images_NSHWC), own.similarity(images_NSHWC)]

    real = GenerationControl("eeg", "the EEG of the trial itself", "the result, on these trials", tuple(score(generate(eeg))))
    return [real, *generation_controls(generate, score, eeg, store.labels[some], seed=config.seed, progress=progress)]


def run_baselines(
    store: Pairs, train: Ints, chosen: Ints, scorer: ImageScorer, pipeline: DreamDiffusionPipeline, config: EvaluateConfig,
    progress: ProgressCallback | None, *, folder: Path | None = None,
) -> list[BaselineResult]:  # fmt: skip
    """Baselines on the same trials with the same scorer; those whose parts are not there are listed as not computed.

    folder: of the pipeline, from which it names its base model.
    """
    names = chosen_baselines(config.baselines)
    problem = Problem(store, train, chosen, pipeline.image_size, samples=config.samples, seed=config.seed, steps=config.steps)
    source = str(pipeline.details.training.get("sd", "")) if config.sd == "auto" else config.sd
    if config.sd == "auto" and folder is not None:
        source = found_again(source, folder)
    generator, missing = frozen_generator(source, scorer.networks.clip, pipeline.device)
    if missing:
        scorer.not_computed["frozen generator"] = missing
    return measure_baselines(names, problem, scorer, generator, config, pipeline.device, progress)


def frozen_generator(source: str, clip: ClipTarget | None, device: torch.device) -> tuple[FrozenGenerator | None, str]:
    """The generator that baselines draw with, or why there is none; no reason where nobody named one."""
    if clip is None or not source:
        return None, ""
    try:
        return FrozenGenerator(load_stable_diffusion(source, offline=True).to(device), clip), ""
    except ToolkitError as error:
        return None, error.problem


def measure_baselines(
    names: Sequence[str], problem: Problem, scorer: ImageScorer, generator: FrozenGenerator | None, config: EvaluateConfig,
    device: torch.device, progress: ProgressCallback | None,
) -> list[BaselineResult]:  # fmt: skip
    """Each baseline, made and measured; those whose parts are missing go to the scorer's `not_computed`."""
    results = []
    for name in names:
        try:
            made = run_baseline(
                name,
                problem,
                generator=generator,
                clip=scorer.networks.clip,
                epochs=config.baseline_epochs,
                device=device,
                progress=progress,
            )
        except ModelError as error:
            scorer.not_computed[f"baseline {name}"] = error.problem
            continue
        results.append(BaselineResult(made.name, made.told, tuple(scorer.measure(made.images_NSHWC))))
    return results


def identity(
    model: str | Path, pipeline: DreamDiffusionPipeline, store: Pairs, parts: Mapping[str, Ints], chosen: Ints, networks: Networks,
    config: EvaluateConfig, out: Path,
) -> dict[str, object]:  # fmt: skip
    """What identifies the run: model, data, split, networks, settings, software; folders are named from `out`, where the report lies."""
    numbers = [int(i) for i in store.indices[chosen]]
    trained_on = pipeline.details.training
    warnings = []
    if (
        trained_on.get("pairs") not in (None, store.fingerprint)
        or trained_on.get("pairs_content", store.content_sha256) != store.content_sha256
    ):
        warnings.append("the model was trained on another store than the one it is judged on")
    elif trained_on.get("split") not in (None, split_name(config.split)[0]):
        warnings.append(
            f"the model was trained on split {trained_on.get('split')!r} and is judged on {config.split!r}: "
            "trials judged here may have been trained on"
        )
    entries = cast("Sequence[Entry]", trained_on.get("seen") or [{"kind": "unknown", "where": Path(model).name}])
    warnings += overlaps(entries, store, chosen).sentences
    if store.provenance == "simulated":
        warnings.append("the EEG is simulated: these numbers say that the software works, and nothing about brains")
    origin = picture_origin(
        trained_on, model=Path(model).resolve().name, generator=None, eeg=store.provenance, licence=store.licence
    )
    return {
        "model": {
            "path": Path(model).name, "folder": portable(model, out), "fingerprint": pipeline.fingerprint, "sha256": model_digest(Path(model)),
            "training": {name: value for name, value in trained_on.items() if name != "seen"},
        },
        "pairs": {
            "path": store.path.name, "fingerprint": store.fingerprint, "content": store.content_sha256, "provenance": store.provenance, "licence": store.licence,
            "people": len(store.subjects), "classes": len(store.classes), "folder": portable(store.path, out),
            "images_sha256": images_digest(store, chosen),
        },
        "split": {
            "name": config.split, **{f"n_{name}": len(rows) for name, rows in parts.items()}, "n_evaluated": len(numbers),
            "trials_sha256": fingerprint({"trials": numbers}),
        },
        "origin": {**origin.model_dump(mode="json"), "sentence": origin.sentence},
        "networks": networks.files,
        "config": portable_settings(config.model_dump(mode="json"), out),
        "warnings": warnings,
        "software": {
            "python": platform.python_version(),
            **installed("eeg-dreamdiff", "torch", "diffusers", "torchmetrics", "numpy"),
        },
        **used(pipeline.device, config.precision),
    }  # fmt: skip


def _names(store: Pairs, chosen: Ints) -> list[str]:
    return [f"{store.subjects[p]} trial {t}" for p, t in zip(store.person[chosen], store.trial[chosen], strict=True)]


def _quality(scorer: ImageScorer, made: Array) -> Array:
    """By what trials are ordered into best, median and worst: feature similarity, mean over samples."""
    return scorer.similarity(made).values_N
