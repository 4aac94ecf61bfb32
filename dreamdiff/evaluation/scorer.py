"""Loads the networks that judge images and scores generated images with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from dreamdiff.arrays import Array, Ints
from dreamdiff.devices import choose_device, resolved_precision
from dreamdiff.diffusion.clip import ClipTarget, load_clip
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.metrics import accuracy, distances
from dreamdiff.metrics import similarity as metrics
from dreamdiff.metrics.judges import (
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
from dreamdiff.metrics.measurement import Measurement, units
from dreamdiff.protocols.config import EvaluateConfig
from eegprep.errors import DataError, ModelError
from eegprep.provenance import sha256


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
        entries = {name: getattr(self, name) for name in ("classifier", "inception", "lpips", "clip")}
        return {name: {"name": network.name, **network.files} for name, network in entries.items() if network is not None}


def load_networks(config: EvaluateConfig, clip_width: int | None) -> Networks:
    """Load what can be loaded. A network that the person named must be there; a default may be missing, with its reason."""
    device = choose_device(config.device)
    precision = resolved_precision(config.precision, device)
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
        None if classifier is None else classifier.to(device, precision),
        None if config.inception is None else load_inception(config.inception).to(device, precision),
        None if config.lpips is None else load_lpips(config.lpips).to(device, precision),
        None if clip is None else clip.to(device, precision),
        left_out,
    )


_KEPT: dict[tuple[str, ...], Array] = {}


def _features_once(classifier: ImageClassifier, images_MHWC: Array) -> Array:
    """(M, D) features of training images: the rows of a table ask for the same ones again, so the last are kept."""
    if not classifier.files:  # nothing says which weights these are
        return classifier.read(images_MHWC).features_ND
    digest = sha256(images_MHWC.tobytes())
    key = (classifier.name, *sorted(classifier.files.values()), digest)
    if key not in _KEPT:
        _KEPT.clear()
        _KEPT[key] = classifier.read(images_MHWC).features_ND
    return _KEPT[key]


class ImageScorer:
    """All image metrics for one set of trials. What was shown is read once; `measure` takes any generated images for it.

    Args:
        shown_GHWC: the different images that were shown. image_N: which of them each trial showed.
        labels_N: category of each trial, in `classes`. person_N: who saw it; one person when not given.
        centres: remark on classes that training never shows.
        reference_MHWC, reference_labels_M: training images, from which the centroid judge is made.
    """

    def __init__(
        self, shown_GHWC: Array, image_N: Array, labels_N: Array, classes: Sequence[str], networks: Networks, *,
        reference_MHWC: Array, reference_labels_M: Array, config: EvaluateConfig | None = None, person_N: Array | None = None,
        centres: str = "",
    ) -> None:  # fmt: skip
        self.config = config or EvaluateConfig()
        self.networks, self.classes = networks, list(classes)
        self.shown_GHWC, self.image_N, self.labels_N = shown_GHWC, np.asarray(image_N), np.asarray(labels_N)
        self.person_N = np.zeros(len(self.labels_N), np.int64) if person_N is None else np.asarray(person_N)
        self.groups_N = units(self.labels_N, self.person_N, self.image_N)
        self.repeated = len(np.unique(self.image_N)) < len(self.image_N)
        self.centres = centres
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
        other.image_N, other.labels_N, other.person_N = self.image_N[rows], self.labels_N[rows], self.person_N[rows]
        other.groups_N = units(other.labels_N, other.person_N, other.image_N)
        other.repeated = len(np.unique(other.image_N)) < len(rows)
        return other

    @property
    def truth_NHWC(self) -> Array:
        """What each trial showed."""
        return np.asarray(self.shown_GHWC[self.image_N])

    def measure(self, images_NSHWC: Array) -> list[Measurement]:
        """Every metric that can be computed; reasons for the others are in `not_computed`."""
        images, seed, groups = images_NSHWC, self.config.seed, self.groups_N
        measurements = [*self.accuracies(images), metrics.psnr(images, self.truth_NHWC, seed=seed, groups_N=groups)]
        if min(images.shape[2:4]) > 10:
            measurements.append(metrics.ssim(images, self.truth_NHWC, seed=seed, groups_N=groups))
        else:
            self.not_computed["ssim"] = f"images of {images.shape[3]} pixels are smaller than its window of 11"
        kinds: tuple[Literal["mse", "pcc"], ...] = ("mse", "pcc")
        for kind in kinds:
            self._identify(measurements, metrics.pixel_similarity(images, self.truth_NHWC, kind), kind)
        if self.networks.lpips is not None:
            measurements.append(metrics.lpips(images, self.truth_NHWC, self.networks.lpips, seed=seed, groups_N=groups))
        if self.networks.classifier is not None:
            space = "lite0" if self._lite0 else "classifier"
            scores = self._read("classifier", images).probabilities_NK.reshape(*images.shape[:2], -1)
            shown = self.seen["classifier"].probabilities_NK[self.image_N]
            self._try(
                measurements, f"{space}-score",
                lambda: distances.inception_score(scores, shown, seed=seed, name=f"{space}-score", classifier=space),
            )  # fmt: skip
            features = self._read("classifier", images).features_ND.reshape(*images.shape[:2], -1)
            self._in_features(
                measurements,
                features,
                self.seen["classifier"].features_ND[self.image_N],
                "Lite0" if self._lite0 else "classifier",
            )
        if self.networks.clip is not None and self.clip_GD is not None:
            vectors = self.clip_of(images)
            self._in_features(measurements, vectors, self.clip_GD[self.image_N], "CLIP", sets=False)
        if self.networks.inception is not None:
            self._inception(measurements, images)
        return measurements

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
        measurements = [
            accuracy.n_way_accuracy(
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
            measurements += [
                accuracy.shown_classes_accuracy(
                    within, self.labels_N, top_k=k, seed=config.seed, judge=f"{name}, its own classes", groups_N=groups
                )
                for k in ((1, 5) if many else (1,))
            ]
        if self.judge is not None and len(self.classes) > 1:
            scores = self.judge_scores(images_NSHWC)
            judge = f"nearest centroid of training images in {name} features{self.centres}"
            by_centroid = [
                accuracy.shown_classes_accuracy(scores, self.labels_N, top_k=k, seed=config.seed, judge=judge, groups_N=groups)
                for k in ((1, 5) if many else (1,))
            ]
            measurements += [_renamed(m, m.name.replace("shown", "centroid")) for m in by_centroid]
        return measurements

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
        measurements: list[Measurement] = []
        for way in [None, 200] if len(gallery) > 200 else [None]:
            measurements += [
                metrics.retrieval(vectors_ND, gallery, truth, ways=way, top_k=k, seed=self.config.seed, groups_N=self.groups_N)
                for k in (1, 5)
                if k < (way or len(gallery))
            ]
        if self.repeated:
            mean, images = metrics.average_repetitions(vectors_ND, truth)
            for k in (1, 5):
                if k < len(gallery):
                    one = metrics.retrieval(mean, gallery, images, top_k=k, seed=self.config.seed)
                    measurements.append(
                        _renamed(one, f"{one.name}-mean-of-repetitions", "EEG vectors averaged over all trials of an image; ")
                    )
        return measurements

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
        self, measurements: list[Measurement], vectors_NSD: Array, truth_ND: Array, space: str, *, sets: bool = True
    ) -> None:
        seed, groups = self.config.seed, self.groups_N
        measurements.append(metrics.feature_similarity(vectors_NSD, truth_ND, space=space, seed=seed, groups_N=groups))
        similarity = metrics.cosine_similarity(vectors_NSD, truth_ND)
        self._identify(measurements, similarity, space)
        if sets:
            label = f"{space} features ({truth_ND.shape[1]:,})"
            name = space.lower()
            self._try(
                measurements,
                f"{name}-frechet",
                lambda: distances.frechet_distance(vectors_NSD, truth_ND, name=f"{name}-frechet", space=label, seed=seed),
            )
            self._try(
                measurements,
                f"{name}-kernel",
                lambda: distances.kernel_distance(vectors_NSD, truth_ND, name=f"{name}-kernel", space=label, seed=seed),
            )

    def _identify(self, measurements: list[Measurement], similarity_NSN: Array, space: str) -> None:
        seed, groups = self.config.seed, self.groups_N
        self._try(
            measurements, f"pair-wise-{space}",
            lambda: metrics.pairwise_identification(similarity_NSN, space=space, seed=seed, image_N=self.image_N, groups_N=groups),
        )  # fmt: skip

    def _inception(self, measurements: list[Measurement], images: Array) -> None:
        read, seen, seed = self._read("inception", images), self.seen["inception"], self.config.seed
        n, s = images.shape[:2]
        features, truth = read.features_ND.reshape(n, s, -1), seen.features_ND[self.image_N]
        scores = read.probabilities_NK.reshape(n, s, -1)
        self._try(measurements, "fid", lambda: distances.frechet_distance(features, truth, seed=seed))
        self._try(measurements, "kid", lambda: distances.kernel_distance(features, truth, seed=seed))
        self._try(
            measurements,
            "inception-score",
            lambda: distances.inception_score(scores, seen.probabilities_NK[self.image_N], seed=seed),
        )

    def _try(self, measurements: list[Measurement], name: str, make: Callable[[], Measurement]) -> None:
        try:
            measurements.append(make())
        except DataError as error:
            self.not_computed[name] = error.problem


def _renamed(measurement: Measurement, name: str, before: str = "") -> Measurement:
    return Measurement(**{**vars(measurement), "name": name, "protocol": before + measurement.protocol})


def _flat(images_NSHWC: Array) -> Array:
    return images_NSHWC.reshape(-1, *images_NSHWC.shape[2:])


def clip_width(pipeline: DreamDiffusionPipeline) -> int | None:
    """Width of the model's CLIP vectors, None without a CLIP head."""
    return int(pipeline.conditioner.config.clip_width) or None
