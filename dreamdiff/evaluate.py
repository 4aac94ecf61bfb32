"""Generated images and the images that were shown -> a report: numbers with intervals and floors, controls, audit, and what made them.

Legend: N trials, S samples per trial, K classes of a classifier, C categories or channels, D features, H W pixels.
"""

from __future__ import annotations

import copy
import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from eegprep import atomic
from eegprep.errors import DataError, ModelError, ToolkitError
from eegprep.recording import ProgressCallback
from eegprep.settings import Settings, fingerprint
from eegprep.splits import Audit, audit

from . import metrics
from .baselines import NAMES, FrozenGenerator, Problem, run_baseline
from .classifiers import (
    CentroidJudge,
    ImageClassifier,
    InceptionFeatures,
    Lpips,
    Reading,
    imagenet_indices,
    load_classifier,
    load_inception,
    load_lpips,
)
from .clip_target import ClipTarget, load_clip
from .config import GenerateConfig
from .controls import DecodingControls, GenerationControl, decoding_controls, extract_features, generation_controls
from .generate import generate_to_folder, generator_for, load_pipeline, render
from .latent_diffusion import load_stable_diffusion
from .metrics import Measurement
from .pairs import Pairs
from .pipeline import DreamDiffusionPipeline

Array = NDArray[Any]
Ints = NDArray[np.int64]
FORMAT, VERSION = "dreamdiff-evaluation", 1
SCHEMA = Path(__file__).parent / "templates" / "evaluate.schema.json"


class EvaluateConfig(Settings):
    """How a model is judged.

    split: a part of a split: `test`, or `NAME/test` as in `block/test`.
    samples: images per trial; every number is their mean, never the best.
    trials: at most so many trials, taken evenly from all classes.
    classifier, inception, lpips, clip: networks that judge; see `classifiers` and `load_clip`. clip `auto`: the embedded one where
        its width fits the model.
    control_trials: trials of the controls that need new images.
    baselines: names from `baselines.NAMES`, or "all", measured on the same trials; sd: their frozen generator, `auto` for the one that
        the model was trained from.
    """

    split: str = "test"
    samples: int = Field(default=3, ge=1)
    trials: int | None = Field(default=None, ge=2)
    steps: int = Field(default=20, ge=1)
    guidance: float | None = Field(default=None, ge=0)
    scheduler: str = "dpm-solver++"
    batch_size: int = Field(default=8, ge=1)
    seed: int = Field(default=0, ge=0)
    n_way: int = Field(default=50, ge=2)
    draws: int = Field(default=50, ge=1)
    classifier: str = "efficientnet-lite0"
    inception: str | None = None
    lpips: str | None = None
    clip: str = "auto"
    controls: bool = False
    control_trials: int = Field(default=40, ge=2)
    baselines: tuple[str, ...] = ()
    baseline_epochs: int = Field(default=30, ge=1)
    sd: str = "auto"


@dataclass(frozen=True)
class Networks:
    """The frozen networks that judge; None with the reason in `left_out`."""

    classifier: ImageClassifier | None = None
    inception: InceptionFeatures | None = None
    lpips: Lpips | None = None
    clip: ClipTarget | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """Network -> weight file -> SHA-256."""
        found = {name: getattr(self, name) for name in ("classifier", "inception", "lpips", "clip")}
        return {name: {"name": network.name, **network.files} for name, network in found.items() if network is not None}


def load_networks(config: EvaluateConfig, clip_width: int | None) -> Networks:
    """Load what can be loaded. A network that the person named must be there; a default may be missing, with its reason."""
    left_out: dict[str, str] = {}
    classifier = None
    try:
        classifier = load_classifier(config.classifier)
    except ModelError as error:
        if config.classifier != EvaluateConfig().classifier:
            raise
        left_out["classifier"] = str(error).replace("\n", "; ")
    if config.inception is None:
        left_out["inception"] = "FID, KID and IS need the Inception weights, which no package ships: give --inception FILE"
    if config.lpips is None:
        left_out["lpips"] = "LPIPS needs torchvision's AlexNet weights, which no package ships: give --lpips FILE"
    clip = None
    if config.clip == "auto":
        try:
            embedded = load_clip("embedded")
            clip = embedded if clip_width in (None, embedded.width) else None
        except ModelError as error:
            left_out["clip"] = str(error).replace("\n", "; ")
        if clip is None and "clip" not in left_out:
            left_out["clip"] = f"the model's CLIP vectors have width {clip_width}, the embedded CLIP has another: give --clip"
    elif config.clip != "none":
        clip = load_clip(config.clip, offline=True)
    return Networks(
        classifier,
        None if config.inception is None else load_inception(config.inception),
        None if config.lpips is None else load_lpips(config.lpips),
        clip,
        left_out,
    )


_KEPT: dict[tuple[str, ...], Array] = {}


def _features_once(classifier: ImageClassifier, images_MHWC: Array) -> Array:
    """(M, D) features of training images: the rows of a table ask for the same ones again, so the last are kept."""
    if not classifier.files:  # nothing says which weights these are
        return classifier.read(images_MHWC).features_ND
    digest = hashlib.sha256(images_MHWC.tobytes()).hexdigest()
    key = (classifier.name, *sorted(classifier.files.values()), digest)
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = classifier.read(images_MHWC).features_ND
    return _KEPT[key]


class ImageScorer:
    """All image metrics for one set of trials. What was shown is read once; `measure` takes any generated images for it.

    Args:
        shown_GHWC: the different images that were shown. image_N: which of them each trial showed.
        labels_N: category of each trial, in `classes`.
        reference_MHWC, reference_labels_M: training images, from which the centroid judge is made.
    """

    def __init__(
        self, shown_GHWC: Array, image_N: Array, labels_N: Array, classes: Sequence[str], networks: Networks, *,
        reference_MHWC: Array, reference_labels_M: Array, config: EvaluateConfig | None = None,
    ) -> None:  # fmt: skip
        self.config = config or EvaluateConfig()
        self.networks, self.classes = networks, list(classes)
        self.shown_GHWC, self.image_N, self.labels_N = shown_GHWC, np.asarray(image_N), np.asarray(labels_N)
        self.groups_N = self.image_N if len(np.unique(self.image_N)) < len(self.image_N) else None
        self.not_computed: dict[str, str] = dict(networks.left_out)
        self.imagenet = imagenet_indices(self.classes)
        self.seen: dict[str, Reading] = {}
        self.judge: CentroidJudge | None = None
        for name in ("classifier", "inception"):
            network = getattr(networks, name)
            if network is not None:
                self.seen[name] = network.read(shown_GHWC)
        self.clip_GD = None if networks.clip is None else np.asarray(networks.clip.encode_images(list(shown_GHWC)))
        if networks.classifier is not None:
            try:
                features = _features_once(networks.classifier, reference_MHWC)
                self.judge = CentroidJudge(features, reference_labels_M, len(self.classes))
            except DataError as error:
                self.not_computed["centroid judge"] = error.problem
        if self.imagenet is None:
            self.not_computed["shown categories by ImageNet classes"] = "some classes of the data are not among ImageNet's 1,000"

    def only(self, rows: Ints) -> ImageScorer:
        """The same scorer for some of its trials; what was read of the shown images is shared."""
        other = copy.copy(self)
        other.image_N, other.labels_N, other.groups_N = self.image_N[rows], self.labels_N[rows], None
        return other

    @property
    def truth_NHWC(self) -> Array:
        """What each trial showed."""
        return np.asarray(self.shown_GHWC[self.image_N])

    def measure(self, images_NSHWC: Array) -> list[Measurement]:
        """Every metric that can be computed; reasons for the others are in `not_computed`."""
        images, seed, groups = images_NSHWC, self.config.seed, self.groups_N
        found = [*self.accuracies(images), metrics.psnr(images, self.truth_NHWC, seed=seed, groups_N=groups)]
        if min(images.shape[2:4]) > 10:
            found.append(metrics.ssim(images, self.truth_NHWC, seed=seed, groups_N=groups))
        else:
            self.not_computed["ssim"] = f"images of {images.shape[3]} pixels are smaller than its window of 11"
        kinds: tuple[Literal["mse", "pcc"], ...] = ("mse", "pcc")
        for kind in kinds:
            self._identify(found, metrics.pixel_similarity(images, self.truth_NHWC, kind), kind)
        if self.networks.lpips is not None:
            found.append(metrics.lpips(images, self.truth_NHWC, self.networks.lpips, seed=seed, groups_N=groups))
        if self.networks.classifier is not None:
            space = "lite0" if self._lite0 else "classifier"
            scores = self._read("classifier", images).probabilities_NK.reshape(*images.shape[:2], -1)
            shown = self.seen["classifier"].probabilities_NK[self.image_N]
            self._try(
                found, f"{space}-score",
                lambda: metrics.inception_score(scores, shown, seed=seed, name=f"{space}-score", classifier=space),
            )  # fmt: skip
            features = self._read("classifier", images).features_ND.reshape(*images.shape[:2], -1)
            self._in_features(
                found, features, self.seen["classifier"].features_ND[self.image_N], "Lite0" if self._lite0 else "classifier"
            )
        if self.networks.clip is not None and self.clip_GD is not None:
            vectors = self.clip_of(images)
            self._in_features(found, vectors, self.clip_GD[self.image_N], "CLIP", sets=False)
        if self.networks.inception is not None:
            self._inception(found, images)
        return found

    def accuracies(self, images_NSHWC: Array) -> list[Measurement]:
        """The paper's n-way accuracy and the stricter forms; also the score of the generation controls."""
        if self.networks.classifier is None:
            return []
        config, groups = self.config, self.groups_N
        read = self._read("classifier", images_NSHWC)
        n, s = images_NSHWC.shape[:2]
        probabilities = read.probabilities_NK.reshape(n, s, -1)
        truth = self.seen["classifier"].probabilities_NK[self.image_N]
        name = self.networks.classifier.name
        found = [
            metrics.n_way_accuracy(
                probabilities,
                truth,
                n_way=config.n_way,
                top_k=k,
                draws=config.draws,
                seed=config.seed,
                classifier=name,
                groups_N=groups,
            )
            for k in (1, 5)
        ]
        many = len(self.classes) > 5
        if self.imagenet is not None and len(self.classes) > 1:
            within = probabilities[:, :, self.imagenet]
            found += [
                metrics.shown_classes_accuracy(
                    within, self.labels_N, top_k=k, seed=config.seed, judge=f"{name}, its own classes", groups_N=groups
                )
                for k in ((1, 5) if many else (1,))
            ]
        if self.judge is not None and len(self.classes) > 1:
            scores = self.judge_scores(images_NSHWC)
            judge = f"nearest centroid of training images in {name} features"
            by_centroid = [
                metrics.shown_classes_accuracy(scores, self.labels_N, top_k=k, seed=config.seed, judge=judge, groups_N=groups)
                for k in ((1, 5) if many else (1,))
            ]
            found += [_renamed(m, m.name.replace("shown", "centroid")) for m in by_centroid]
        return found

    def judge_scores(self, images_NSHWC: Array) -> Array:
        """(N, S, C): what the centroid judge says of each generated image."""
        assert self.judge is not None
        features = self._read("classifier", images_NSHWC).features_ND
        return self.judge.scores(features).reshape(*images_NSHWC.shape[:2], -1)

    def similarity(self, images_NSHWC: Array) -> Measurement:
        """How near the generated images are to the shown ones: in the classifier's features, else CLIP's, else PSNR."""
        if self.networks.classifier is not None:
            features = self._read("classifier", images_NSHWC).features_ND.reshape(*images_NSHWC.shape[:2], -1)
            truth, space = self.seen["classifier"].features_ND[self.image_N], "Lite0" if self._lite0 else "classifier"
            return metrics.feature_similarity(features, truth, space=space, seed=self.config.seed)
        if self.clip_GD is not None:
            return metrics.feature_similarity(
                self.clip_of(images_NSHWC), self.clip_GD[self.image_N], space="CLIP", seed=self.config.seed
            )
        return metrics.psnr(images_NSHWC, self.truth_NHWC, seed=self.config.seed)

    def clip_of(self, images_NSHWC: Array) -> Array:
        """(N, S, D) CLIP vectors of generated images."""
        assert self.networks.clip is not None
        n, s = images_NSHWC.shape[:2]
        return np.asarray(self.networks.clip.encode_images(list(_flat(images_NSHWC)))).reshape(n, s, -1)

    def retrieval(self, vectors_ND: Array) -> list[Measurement]:
        """EEG -> image among all different test images, and 200-way where there are that many; single trials and repetitions."""
        if self.clip_GD is None:
            return []
        gallery, truth = self._distinct()
        found: list[Measurement] = []
        for way in [None, 200] if len(gallery) > 200 else [None]:
            found += [
                metrics.retrieval(vectors_ND, gallery, truth, ways=way, top_k=k, seed=self.config.seed, groups_N=self.groups_N)
                for k in (1, 5)
                if k < (way or len(gallery))
            ]
        if self.groups_N is not None:
            mean, images = metrics.average_repetitions(vectors_ND, truth)
            for k in (1, 5):
                if k < len(gallery):
                    one = metrics.retrieval(mean, gallery, images, top_k=k, seed=self.config.seed)
                    found.append(
                        _renamed(one, f"{one.name}-mean-of-repetitions", "EEG vectors averaged over all trials of an image; ")
                    )
        return found

    def _distinct(self) -> tuple[Array, Ints]:
        assert self.clip_GD is not None
        used, truth = np.unique(self.image_N, return_inverse=True)
        return self.clip_GD[used], truth.astype(np.int64)

    @property
    def _lite0(self) -> bool:
        return self.networks.classifier is not None and self.networks.classifier.name == EvaluateConfig().classifier

    def _read(self, name: str, images_NSHWC: Array) -> Reading:
        """Reading of generated images, kept for the last set that was asked for."""
        key = (name, images_NSHWC.shape, hash(images_NSHWC.tobytes()))
        if getattr(self, "_last", (None,))[0] != key:
            self._last = (key, getattr(self.networks, name).read(_flat(images_NSHWC)))
        return self._last[1]

    def _in_features(
        self, found: list[Measurement], vectors_NSD: Array, truth_ND: Array, space: str, *, sets: bool = True
    ) -> None:
        seed, groups = self.config.seed, self.groups_N
        found.append(metrics.feature_similarity(vectors_NSD, truth_ND, space=space, seed=seed, groups_N=groups))
        similarity = metrics.cosine_similarity(vectors_NSD, truth_ND)
        self._identify(found, similarity, space)
        if sets:
            label = f"{space} features ({truth_ND.shape[1]:,})"
            name = space.lower()
            self._try(
                found,
                f"{name}-frechet",
                lambda: metrics.frechet_distance(vectors_NSD, truth_ND, name=f"{name}-frechet", space=label, seed=seed),
            )
            self._try(
                found,
                f"{name}-kernel",
                lambda: metrics.kernel_distance(vectors_NSD, truth_ND, name=f"{name}-kernel", space=label, seed=seed),
            )

    def _identify(self, found: list[Measurement], similarity_NSN: Array, space: str) -> None:
        seed, groups = self.config.seed, self.groups_N
        self._try(
            found, f"pair-wise-{space}",
            lambda: metrics.pairwise_identification(similarity_NSN, space=space, seed=seed, image_N=groups),
        )  # fmt: skip

    def _inception(self, found: list[Measurement], images: Array) -> None:
        read, seen, seed = self._read("inception", images), self.seen["inception"], self.config.seed
        n, s = images.shape[:2]
        features, truth = read.features_ND.reshape(n, s, -1), seen.features_ND[self.image_N]
        scores = read.probabilities_NK.reshape(n, s, -1)
        self._try(found, "fid", lambda: metrics.frechet_distance(features, truth, seed=seed))
        self._try(found, "kid", lambda: metrics.kernel_distance(features, truth, seed=seed))
        self._try(
            found, "inception-score", lambda: metrics.inception_score(scores, seen.probabilities_NK[self.image_N], seed=seed)
        )

    def _try(self, found: list[Measurement], name: str, make: Callable[[], Measurement]) -> None:
        try:
            found.append(make())
        except DataError as error:
            self.not_computed[name] = error.problem


def _renamed(found: Measurement, name: str, before: str = "") -> Measurement:
    return Measurement(**{**vars(found), "name": name, "protocol": before + found.protocol})


def _flat(images_NSHWC: Array) -> Array:
    return images_NSHWC.reshape(-1, *images_NSHWC.shape[2:])


# one evaluation


@dataclass(frozen=True)
class Material:
    """What the report shows besides numbers: images and scores of the evaluated trials."""

    truth_NHWC: Array
    images_NSHWC: Array
    labels_N: Ints
    classes: list[str]
    names_N: list[str]
    quality_N: Array
    judged_NSC: Array | None
    neighbours_NK: Ints | None
    gallery_GHWC: Array
    image_N: Ints


@dataclass(frozen=True)
class BaselineResult:
    """A baseline, measured like the model on the same trials."""

    name: str
    told: str
    measurements: tuple[Measurement, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "told": self.told, "measurements": [m.to_json() for m in self.measurements]}


@dataclass(frozen=True)
class Evaluation:
    """Everything an evaluation found."""

    identity: dict[str, Any]
    measurements: tuple[Measurement, ...]
    not_computed: dict[str, str]
    audit: Audit
    controls: DecodingControls | None
    generation: tuple[GenerationControl, ...]
    material: Material
    confusion: Array | None
    baselines: tuple[BaselineResult, ...] = ()

    @property
    def first_line(self) -> str:
        """What to know before any number."""
        if self.controls is not None:
            return self.controls.sentence
        text = {
            "leaks": f"NOT EVIDENCE OF DECODING: {self.audit.leaks[0] if self.audit.leaks else ''}",
            "unknown": f"UNKNOWN whether this is decoding: {self.audit.unknown[0] if self.audit.unknown else ''}",
            "clean": "the audit of the split found no leak",
        }[self.audit.verdict]
        return f"{text}; controls were not run (--controls)"

    @property
    def second_line(self) -> str:
        """The model's own result: the strictest accuracy that was measured, against its floor."""
        accuracies = [
            m for m in self.measurements if m.name.endswith("-top-1") and m.unit == "share" and "retrieval" not in m.name
        ]
        if not accuracies:
            return "the accuracy of the generated images was not measured: there was no classifier"
        m = accuracies[-1]
        says = "above" if m.above_floor else "not above"
        return (
            f"the generated images: {m.name} {m.value:.1%} [{m.low:.1%}, {m.high:.1%}], {says} the {m.floor:.1%} of a guesser "
            f"without EEG (n = {m.n})"
        )

    def __getitem__(self, name: str) -> Measurement:
        for found in self.measurements:
            if found.name == name:
                return found
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """The content of report.json; see templates/evaluate.schema.json."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "first_line": self.first_line,
            "second_line": self.second_line,
            "identity": self.identity,
            "measurements": [m.to_json() for m in self.measurements],
            "not_computed": self.not_computed,
            "audit": self.audit.to_dict(),
            "controls": None if self.controls is None else self.controls.to_json(),
            "generation_controls": [g.to_json() for g in self.generation],
            "baselines": [b.to_json() for b in self.baselines],
            "confusion": None
            if self.confusion is None
            else {"classes": self.material.classes, "rows": np.round(self.confusion, 6).tolist()},
        }


def evaluate(
    model: str | Path, pairs: str | Path, out: Path, config: EvaluateConfig | None = None, *, images: Path | None = None,
    progress: ProgressCallback | None = None,
) -> Evaluation:  # fmt: skip
    """Generate for the trials of a part of a split, measure, control and audit. Images that are there already are kept.

    Args:
        model: run of `dreamdiff train finetune`, or a pipeline folder.
        pairs: store. images: folder of its image files, if they have moved.
        out: folder; generated images go to `images/`.

    Raises:
        DataError: the part holds no trials. ModelError, StoreError: what does not fit.
    """
    config = config or EvaluateConfig()
    store = Pairs.open(pairs, images=images)
    making = GenerateConfig(
        steps=config.steps, samples=config.samples, seed=config.seed, scheduler=config.scheduler, guidance=config.guidance,
        batch_size=config.batch_size,
    )  # fmt: skip
    pipeline = load_pipeline(model, making)
    parts, chosen = choose_trials(store, config)
    networks = load_networks(config, clip_width(pipeline))
    generate_to_folder(
        model, pairs, out / "images", making, trials=[int(i) for i in store.indices[chosen]], images=images, progress=progress
    )
    size = pipeline.image_size
    made = read_images(out / "images", store.indices[chosen], making, size)
    scorer = make_scorer(store, parts["train"], chosen, size, networks, config)
    measured = scorer.measure(made)
    vectors = eeg_vectors(pipeline, store, chosen)
    neighbours = None
    if vectors is not None and scorer.clip_GD is not None and vectors.shape[1] == scorer.clip_GD.shape[1]:
        measured += scorer.retrieval(vectors)
        neighbours = np.argsort(-metrics.cosine_similarity(vectors[:, None], scorer.clip_GD)[:, 0], axis=1)[:, :5]
    else:
        scorer.not_computed["retrieval"] = "the model has no CLIP head, or the CLIP that judges has another width"
    report = audit(store.trials, parts["train"], chosen, split=split_name(config.split)[0])
    decoding: DecodingControls | None = None
    generation: tuple[GenerationControl, ...] = ()
    if config.controls:
        decoding = run_decoding_controls(store, parts["train"], chosen, report, config.seed, progress)
        generation = tuple(run_generation_controls(pipeline, store, chosen, scorer, networks, making, config, progress))
    beside = tuple(run_baselines(store, parts["train"], chosen, scorer, pipeline, config, progress)) if config.baselines else ()
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
    )
    found = Evaluation(
        identity(model, pipeline, store, parts, chosen, networks, config), tuple(measured), scorer.not_computed, report, decoding,
        generation, material, None if judged is None else metrics.confusion(judged, scorer.labels_N), beside,
    )  # fmt: skip
    atomic.write_json(out / "report.json", found.to_json())
    return found


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
        turn[here] = np.arange(here.sum())
    return np.sort(shuffled[np.argsort(turn, kind="stable")][:limit])


def make_scorer(store: Pairs, train: Ints, chosen: Ints, size: int, networks: Networks, config: EvaluateConfig) -> ImageScorer:
    """A scorer for these trials, at `size` pixels; the centroid judge sees images of training trials only."""
    shown, member = np.unique(store.image[chosen], return_inverse=True)
    taught, first = np.unique(store.image[train], return_index=True)
    return ImageScorer(
        store.load_images(shown, size=size), member, store.labels[chosen], store.classes, networks,
        reference_MHWC=store.load_images(taught, size=size), reference_labels_M=store.labels[train][first], config=config,
    )  # fmt: skip


def read_images(folder: Path, numbers: Array, making: GenerateConfig, size: int) -> Array:
    """(N, S, H, W, 3) of the PNG files that `generate` wrote."""
    out = np.empty((len(numbers), making.samples, size, size, 3), np.uint8)
    for row, number in enumerate(numbers):
        for sample in range(making.samples):
            with Image.open(folder / f"trial-{int(number):06d}_seed-{making.seed + sample}.png") as image:
                out[row, sample] = np.asarray(image.convert("RGB"))
    return out


def clip_width(pipeline: DreamDiffusionPipeline) -> int | None:
    """Width of the model's CLIP vectors, None without a CLIP head."""
    return int(pipeline.conditioner.config.clip_width) or None


def eeg_vectors(pipeline: DreamDiffusionPipeline, store: Pairs, chosen: Ints, batch: int = 32) -> Array | None:
    """(N, D): h(y) of the trials, or None without a CLIP head."""
    if clip_width(pipeline) is None:
        return None
    parts = []
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
    channels = min(int(store.attributes[name].get("n_channels", store.eeg_shape[0])) for name in store.subjects)
    features = extract_features(
        store.eeg, store.trials, train, sfreq=float(attributes.get("sfreq") or 512.0), t0=float(attributes.get("t0") or 0.0),
        real_channels=min(channels, store.eeg_shape[0]),
    )  # fmt: skip
    return decoding_controls(
        features, store.trials, train, test, classes=len(store.classes), audit=report, seed=seed, progress=progress
    )


def run_generation_controls(
    pipeline: DreamDiffusionPipeline, store: Pairs, chosen: Ints, scorer: ImageScorer, networks: Networks, making: GenerateConfig,
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
        for start in range(0, len(signal_NCT), making.batch_size):
            rows = range(start, min(start + making.batch_size, len(signal_NCT)))
            generators = [generator_for(int(store.indices[some[row]]), making.seed) for row in rows]
            parts.append(render(pipeline, signal_NCT[start : start + making.batch_size], generators, making))
        return np.concatenate(parts)[:, None]

    def score(images_NSHWC: Array) -> list[Measurement]:
        return [*own.accuracies(images_NSHWC), own.similarity(images_NSHWC)]

    real = GenerationControl("eeg", "the EEG of the trial itself", "the result, on these trials", tuple(score(generate(eeg))))
    return [real, *generation_controls(generate, score, eeg, store.labels[some], seed=config.seed, progress=progress)]


def run_baselines(
    store: Pairs, train: Ints, chosen: Ints, scorer: ImageScorer, pipeline: DreamDiffusionPipeline, config: EvaluateConfig,
    progress: ProgressCallback | None,
) -> list[BaselineResult]:  # fmt: skip
    """Baselines on the same trials with the same scorer; those whose parts are not there are listed as not computed."""
    names = NAMES if "all" in config.baselines else config.baselines
    problem = Problem(store, train, chosen, pipeline.image_size, samples=config.samples, seed=config.seed, steps=config.steps)
    clip, generator = scorer.networks.clip, None
    source = str(pipeline.details.training.get("sd", "")) if config.sd == "auto" else config.sd
    try:
        generator = None if clip is None or not source else FrozenGenerator(load_stable_diffusion(source, offline=True), clip)
    except ToolkitError as error:
        scorer.not_computed["frozen generator"] = error.problem
    found = []
    for name in names:
        try:
            made = run_baseline(name, problem, generator=generator, clip=clip, epochs=config.baseline_epochs, progress=progress)
        except ModelError as error:
            scorer.not_computed[f"baseline {name}"] = error.problem
            continue
        found.append(BaselineResult(made.name, made.told, tuple(scorer.measure(made.images_NSHWC))))
    return found


def identity(
    model: str | Path, pipeline: DreamDiffusionPipeline, store: Pairs, parts: Mapping[str, Ints], chosen: Ints, networks: Networks,
    config: EvaluateConfig,
) -> dict[str, Any]:  # fmt: skip
    """What identifies the run: model, data, split, networks, settings, software."""
    numbers = [int(i) for i in store.indices[chosen]]
    trained_on = pipeline.details.training
    warnings = []
    if trained_on.get("pairs") not in (None, store.fingerprint):
        warnings.append("the model was trained on another store than the one it is judged on")
    elif trained_on.get("split") not in (None, split_name(config.split)[0]):
        warnings.append(
            f"the model was trained on split {trained_on.get('split')!r} and is judged on {config.split!r}: "
            "trials judged here may have been trained on"
        )
    if store.provenance == "simulated":
        warnings.append("the EEG is simulated: these numbers say that the software works, and nothing about brains")
    return {
        "model": {"path": Path(model).name, "fingerprint": pipeline.fingerprint, "training": trained_on},
        "pairs": {
            "path": store.path.name, "fingerprint": store.fingerprint, "provenance": store.provenance, "licence": store.licence,
            "people": len(store.subjects), "classes": len(store.classes),
        },
        "split": {
            "name": config.split, **{f"n_{name}": len(rows) for name, rows in parts.items()}, "n_evaluated": len(numbers),
            "trials_sha256": fingerprint({"trials": numbers}),
        },
        "networks": networks.files,
        "config": config.model_dump(mode="json"),
        "warnings": warnings,
        "software": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("eeg-dreamdiff", "torch", "diffusers", "torchmetrics", "numpy")},
        },
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }  # fmt: skip


def _names(store: Pairs, chosen: Ints) -> list[str]:
    return [f"{store.subjects[p]} trial {t}" for p, t in zip(store.person[chosen], store.trial[chosen], strict=True)]


def _quality(scorer: ImageScorer, made: Array) -> Array:
    """By what trials are ordered into best, median and worst: feature similarity, mean over samples."""
    return scorer.similarity(made).values_N


__all__ = ["EvaluateConfig", "Evaluation", "ImageScorer", "Networks", "evaluate", "load_networks"]
