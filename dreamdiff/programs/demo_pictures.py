"""Pictures of the demo, and which part they owe their accuracy to: the same test pictures from different vectors, judged alike.

Vectors come from the encoder as it is, zeroed, of other trials or untrained, from ridge regression, or from the truth. Repetitions of a
picture are averaged as vectors within a person. All pictures are made by one frozen generator with the same seeds.

Shapes: N test trials, G groups (the repetitions of one picture in one person), D width of a vector, K categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.targets import load_target
from dreamdiff.arrays import Array, Ints
from dreamdiff.certificates.aligned import PictureVectors, encoder_rows
from dreamdiff.certificates.check import images_digest, model_digest
from dreamdiff.certificates.closed_form import ridge_vectors
from dreamdiff.certificates.judging import CATEGORY, VectorJudge
from dreamdiff.certificates.records import (
    GUESS,
    ORACLE,
    OTHERS,
    RANDOM,
    RIDGE,
    WHITENED,
    WHOLE,
    ZEROED,
    Certificate,
    Part,
    Row,
    paired_interval,
    path_row,
    write_predictions,
)
from dreamdiff.devices import choose_device
from dreamdiff.diffusion.prior import Prior
from dreamdiff.diffusion.vector_generator import VectorGenerator, load_vector_generator
from dreamdiff.evaluation.retrieve import groups_of
from dreamdiff.generation.generate import generator_for
from dreamdiff.metrics.accuracy import prior_floor
from dreamdiff.metrics.judges import CentroidJudge, load_classifier
from dreamdiff.metrics.measurement import Measurement, mean_measurement
from dreamdiff.pairs.reader import Pairs
from dreamdiff.programs.demo_config import DemoConfig
from eegprep.atomic import open_atomic
from eegprep.recording import ProgressCallback
from eegprep.sealed import write_sealed

BATCH = 40


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval over pictures."""

    value: float
    low: float
    high: float
    n: int
    measured: Measurement

    @classmethod
    def of(cls, right_N: Array, picture_N: Array, seed: int = 0) -> Share:
        """Share of True, whole pictures resampled."""
        result = mean_measurement(
            "share", "right", np.asarray(right_N, float)[:, None], seed=seed, floor=None, groups_N=picture_N
        )
        return cls(result.value, result.low, result.high, result.n, result)

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}] of {self.n}"


@dataclass(frozen=True)
class TableRow:
    """One source of vectors. name: key. says: in words. vectors: share of vectors in the right category. pictures: of pictures."""

    name: str
    says: str
    vectors: Share | None
    pictures: Share | None


@dataclass(frozen=True)
class Shown:
    """What the page shows of a group: the drawing, and pictures by the name of their row."""

    label: int
    person: str
    repetitions: int
    seen: Array
    made: Mapping[str, Array]


@dataclass(frozen=True)
class Gain:
    """A learned encoder against ridge regression on whitened trials, on the same averages: shares right, and the paired difference."""

    name: str
    repetitions: str
    learned: float
    ridge: float
    low: float
    high: float

    @classmethod
    def of(cls, source: Source, name: str, repetitions: str) -> Gain:
        """The interval of the difference resamples whole pictures."""
        groups = source.groups(repetitions)
        hits = [source.right(row, groups).astype(float) for row in (name, "ridge whitened")]
        low, high = paired_interval(hits[0] - hits[1], source.firsts(source.picture_N, groups), source.seed)
        return cls(name, repetitions, float(hits[0].mean()), float(hits[1].mean()), low, high)

    def __str__(self) -> str:
        repetitions = {"1": "one repetition", "all": "all repetitions"}.get(self.repetitions, f"{self.repetitions} repetitions")
        return (
            f"{repetitions}: {100 * self.learned:.0f} % against {100 * self.ridge:.0f} % "
            f"({100 * (self.learned - self.ridge):+.0f} points [{100 * self.low:+.0f}, {100 * self.high:+.0f}])"
        )


@dataclass(frozen=True)
class DemoPictures:
    """Rows of the table, what is shown, the curve (row name -> [(repetitions, share)]), and the certificate of what is averaged."""

    rows: tuple[TableRow, ...]
    shown: tuple[Shown, ...]
    curve: Mapping[str, list[tuple[str, Share]]]
    repetitions: float
    certificate: Certificate
    gains: tuple[Gain, ...]

    def row(self, name: str) -> TableRow:
        return next(row for row in self.rows if row.name == name)


class Source:
    """Vectors of all test trials by the name of their row, and how they are judged."""

    def __init__(self, pairs: Pairs, aligned: Path, paper_encoder: Path, seed: int, device: str = "auto") -> None:
        place = choose_device(device)
        self.pairs, self.seed = pairs, seed
        self.train, self.test = pairs.splits["train"], pairs.splits["test"]
        model = AlignedEncoder.from_pretrained(aligned).to(place)
        self.target = model.target_names[0]
        pictures = PictureVectors.of(pairs, load_target(self.target, device=place, offline=True), self.train, self.test)
        self.judge: VectorJudge = pictures.judge(len(pairs.classes), self.target)
        self.true_ND = pictures.gallery_GD[pictures.picture_N]
        self.label_N, self.picture_N = pairs.labels[self.test], pictures.picture_N
        self.vectors: dict[str, Array] = {}
        for name, (_, _, value) in encoder_rows(model, pairs, self.test, 0, seed).items():
            if name in (WHOLE, ZEROED, OTHERS, RANDOM):
                self.vectors[name] = value
        paper = AlignedEncoder.from_pretrained(paper_encoder).to(place)
        self.vectors["paper"] = encoder_rows(paper, pairs, self.test, 0, seed)[WHOLE][2]
        front = model.config.front
        for name, whiten in (("ridge whitened", True), ("ridge", False)):
            self.vectors[name] = ridge_vectors(pairs, front, self.train, self.test, pictures.train_ND, whiten=whiten)
        self.vectors["truth"] = self.true_ND
        # a vector of the right kind that says nothing: the picture of a random training trial, the same in all repetitions
        drawn = np.random.default_rng(seed).integers(len(pictures.taught_MD), size=int(self.picture_N.max()) + 1)
        self.vectors["random vector"] = pictures.taught_MD[drawn][self.picture_N]

    def groups(self, repetitions: str) -> list[Ints]:
        """Rows of the test part that are averaged together."""
        return groups_of(self.pairs, self.test, repetitions, self.seed)

    def means(self, name: str, groups: Sequence[Ints]) -> Array:
        """(G, D)."""
        return np.stack([self.vectors[name][group].mean(0) for group in groups])

    def right(self, name: str, groups: Sequence[Ints]) -> Array:
        """(G,) whether a group's mean vector lies nearest to its own category."""
        return np.asarray(self.judge.predict(self.means(name, groups))[CATEGORY] == self.firsts(self.label_N, groups))

    @staticmethod
    def firsts(values_N: Array, groups: Sequence[Ints]) -> Array:
        """The value of each group's first trial."""
        return np.array([values_N[group[0]] for group in groups])

    def share(self, name: str, groups: Sequence[Ints]) -> Share:
        """Share of right vectors."""
        return Share.of(self.right(name, groups), self.firsts(self.picture_N, groups), self.seed)


def by_category(groups: Sequence[Ints], label_N: Ints, person_N: Ints) -> list[Ints]:
    """The first person's first picture of every category, then further ones: the order of the page. Nothing is chosen by result."""
    seen: dict[int, int] = {}
    keys = []
    for group in sorted(groups, key=lambda g: (int(person_N[g[0]]), int(g.min()))):
        label = int(label_N[group[0]])
        keys.append((seen.get(label, 0), label, group))
        seen[label] = seen.get(label, 0) + 1
    return [group for _, _, group in sorted(keys, key=lambda key: key[:2])]


SAYS = {
    WHOLE: "learned encoder, repetitions averaged",
    "prior": "the same, pulled towards training drawings",
    "captions": "the same vectors, captions only (no adapter)",
    "single": "learned encoder, one trial",
    "paper": "the paper's encoder, pre-trained on the genuine corpus, then aligned",
    "ridge whitened": "ridge regression on whitened trials (closed form)",
    "ridge": "ridge regression, not whitened (closed form)",
    ZEROED: "learned encoder's output set to zero",
    OTHERS: "learned encoder's output of other trials",
    RANDOM: "an untrained encoder in its place",
    "random vector": "vector of a random training drawing",
    "truth": "the true vector of the drawing (upper limit)",
}


def make_pictures(
    pairs: Pairs, aligned: Path, paper_encoder: Path, out: Path, config: DemoConfig, *, progress: ProgressCallback | None = None
) -> DemoPictures:
    """Vectors of every row, pictures of the main rows, judged; contact files in `out`."""
    source, place = Source(pairs, aligned, paper_encoder, config.seed, config.device), choose_device(config.device)
    groups = by_category(source.groups("all"), source.label_N, pairs.person[source.test])
    judged, controlled = groups[: config.judged], groups[: min(config.controlled, config.judged)]
    bank = load_vector_generator("embedded", scheduler="dpm-solver++").to(place)
    words = load_vector_generator("embedded", scheduler="dpm-solver++", adapter_scale=0.0).to(place)
    assert bank.bank_ND is not None  # the embedded adapter brings its training drawings
    prior = Prior(bank.bank_ND)
    plan: dict[str, tuple[Array, Sequence[Ints], VectorGenerator, Prior | None]] = {
        WHOLE: (source.means(WHOLE, judged), judged, bank, None),
        "prior": (source.means(WHOLE, judged), judged, bank, prior),
        "truth": (source.means("truth", judged), judged, bank, None),
        "captions": (source.means(WHOLE, controlled), controlled, words, None),
        "single": (np.stack([source.vectors[WHOLE][group[0]] for group in controlled]), controlled, bank, None),
        ZEROED: (source.means(ZEROED, controlled), controlled, bank, None),
        OTHERS: (source.means(OTHERS, controlled), controlled, bank, None),
        "random vector": (source.means("random vector", controlled), controlled, bank, None),
    }
    total, done, made = sum(len(groups) for _, groups, _, _ in plan.values()), 0, {}
    for name, (vectors, of, generator, pull) in plan.items():
        made[name] = _draw(vectors, of, source, generator, pull, config)
        done += len(of)
        if progress is not None:
            progress(done, total, "pictures")
    called = _judge(pairs, source, made, place)
    rows = []
    for name, says in SAYS.items():
        of_vectors: Share | None = None
        if name == "single":
            ones = source.groups("1")
            of_vectors = source.share(WHOLE, ones)
        elif name in source.vectors:
            of_vectors = source.share(name, groups)
        of_pictures: Share | None = None
        if name in made:
            of = plan[name][1]
            right = called(name) == source.firsts(source.label_N, of)
            of_pictures = Share.of(right, source.firsts(source.picture_N, of), config.seed)
        rows.append(TableRow(name, says, of_vectors, of_pictures))
    counts = [len(group) for group in groups]
    shown = [
        Shown(
            int(source.label_N[group[0]]), pairs.subjects[int(pairs.person[source.test][group[0]])], len(group), image,
            {name: pictures[number] for name, pictures in made.items() if number < len(pictures)},
        )
        for number, (group, image) in enumerate(
            zip(judged[: config.shown], pairs.images(source.test[[int(g[0]) for g in judged[: config.shown]]], size=64), strict=True)
        )
    ]  # fmt: skip
    curve = {name: _curve(source, name) for name in (WHOLE, "paper", "ridge whitened")}
    gains = tuple(Gain.of(source, name, repetitions) for name in (WHOLE, "paper") for repetitions in ("1", "all"))
    certificate = _certificate(source, groups, controlled, made, called, config.seed)
    result = DemoPictures(tuple(rows), tuple(shown), curve, float(np.mean(counts)), certificate, gains)
    _write(out, result, made, source, aligned)
    return result


CERTIFIED = {
    WHOLE: WHOLE, ZEROED: ZEROED, OTHERS: OTHERS, RANDOM: RANDOM, RIDGE: "ridge", WHITENED: "ridge whitened", ORACLE: "truth",
    GUESS: "random vector", path_row("encoder"): WHOLE,
}  # fmt: skip
"""Row of a certificate -> row of the table; there is one path from EEG to picture."""
PARTS: dict[str, Part] = {
    WHOLE: "system", ZEROED: "control", OTHERS: "control", RANDOM: "control", RIDGE: "closed form", WHITENED: "closed form",
    ORACLE: "limit", GUESS: "limit", path_row("encoder"): "path",
}  # fmt: skip


def _certificate(
    source: Source, groups: Sequence[Ints], controlled: Sequence[Ints], made: Mapping[str, Array], called: Called, seed: int
) -> Certificate:
    """All rows on the same averages, and those with pictures on the same pictures."""
    vectors, pictures = "category of the averaged vectors", "category of the pictures"
    rows = []
    for name, key in CERTIFIED.items():
        predicted = {vectors: np.asarray(source.judge.predict(source.means(key, groups))[CATEGORY], np.int64)}
        if key in made:
            predicted[pictures] = called(key)[: len(controlled)]
        rows.append(Row(name, PARTS[name], SAYS[key], predicted))
    truth, members = {}, {}
    for measure, of in ((vectors, groups), (pictures, controlled)):
        truth[measure] = np.asarray(source.firsts(source.label_N, of), np.int64)
        members[measure] = np.asarray(source.firsts(source.picture_N, of), np.int64)
    classes = len(source.pairs.classes)
    floors = {measure: prior_floor(values, classes) for measure, values in truth.items()}
    protocols = {
        vectors: f"{source.judge.protocols()[CATEGORY]}, repetitions in one person averaged",
        pictures: f"{classes}-way: nearest centroid of training drawings in features of EfficientNet-Lite0",
    }
    return Certificate(tuple(rows), truth, floors, protocols, members, seed=seed)


def _draw(
    vectors_GD: Array, groups: Sequence[Ints], source: Source, generator: VectorGenerator, prior: Prior | None, config: DemoConfig
) -> Array:
    """(G, 64, 64, 3): a picture's random numbers follow from its first trial's number in the store."""
    vectors = torch.from_numpy(np.asarray(vectors_GD, np.float32))
    vectors = vectors if prior is None else prior(vectors)
    numbers = source.pairs.indices[source.test]
    dice = [generator_for(int(numbers[group[0]]), config.seed) for group in groups]
    parts = [generator(vectors[i : i + BATCH], dice[i : i + BATCH], steps=config.steps) for i in range(0, len(vectors), BATCH)]
    return np.concatenate(parts)


Called = Callable[[str], Ints]


def _judge(pairs: Pairs, source: Source, made: Mapping[str, Array], place: torch.device) -> Called:
    """Which category's training drawings the pictures of a row lie nearest to, in the features of EfficientNet-Lite0."""
    network = load_classifier().to(place)
    train_images, first = np.unique(pairs.image[source.train], return_index=True)
    features = network.read(pairs.load_images(train_images, size=64)).features_ND
    judge = CentroidJudge(features, pairs.labels[source.train][first], len(pairs.classes))
    known = {name: judge.scores(network.read(pictures).features_ND).argmax(1).astype(np.int64) for name, pictures in made.items()}
    return known.__getitem__


def _curve(source: Source, name: str) -> list[tuple[str, Share]]:
    """Share of right vectors by the number of averaged repetitions."""
    sizes = [1, 2, 4, 8]
    most = max(len(group) for group in source.groups("all"))
    result = []
    for size in [k for k in sizes if k <= most]:
        groups = source.groups(str(size))
        if len(groups) >= 10:
            result.append((str(size), source.share(name, groups)))
    return result


def figures(result: DemoPictures) -> dict[str, Measurement]:
    """Every share of the tables and of the curve, by name."""
    named = {f"{row.name}, vectors": row.vectors for row in result.rows} | {
        f"{row.name}, pictures": row.pictures for row in result.rows
    }
    for name, points in result.curve.items():
        named |= {f"{name}, vectors, repetitions={size}": share for size, share in points}
    return {name: replace(share.measured, name=name) for name, share in named.items() if share is not None}


def _write(out: Path, result: DemoPictures, made: Mapping[str, Array], source: Source, model: Path) -> None:
    """report.json with predictions.npz, which `dreamdiff evaluate --check` verifies, and a sheet of pictures for each row."""
    from PIL import Image

    out.mkdir(parents=True, exist_ok=True)
    for name, pictures in made.items():
        with open_atomic(out / f"{name.replace(' ', '-')}.png") as file:
            Image.fromarray(_sheet(pictures)).save(file, "PNG")
    publish_report(out, source.pairs, source.test, model, result.certificate, figures(result))


def publish_report(
    out: Path, pairs: Pairs, test: Ints, model: Path, certificate: Certificate, measured: Mapping[str, Measurement]
) -> None:
    """A report of the demo: every number of the page with its certificate."""
    one = next((m for m in measured.values() if m.name == "single, vectors"), None)
    content = {
        "format": "dreamdiff-demo", "version": 2, "first_line": certificate.sentence,
        "second_line": f"Single trials: {one.value:.1%} [{one.low:.1%}, {one.high:.1%}] of {one.n}" if one else "",
        "identity": {
            "model": {"path": str(model), "sha256": model_digest(model)},
            "pairs": {
                "path": str(pairs.path), "fingerprint": pairs.fingerprint, "provenance": pairs.provenance,
                "images_sha256": images_digest(pairs, test),
            },
        },
        "measurements": [m.to_json() for m in measured.values()],
        "certificate": certificate.to_json(),
        "predictions": write_predictions(out, pairs.indices[test], certificate, measured),
    }  # fmt: skip
    write_sealed(out / "report.json", content)


def _sheet(pictures_GHWC: Array, columns: int = 8) -> Array:
    """All pictures of a row in lines of `columns`, white where there are none."""
    missing = -len(pictures_GHWC) % columns
    white = np.full((missing, *pictures_GHWC.shape[1:]), 255, np.uint8)
    whole = np.concatenate([pictures_GHWC, white])
    lines = [np.concatenate(list(whole[i : i + columns]), axis=1) for i in range(0, len(whole), columns)]
    return np.concatenate(lines, axis=0)
