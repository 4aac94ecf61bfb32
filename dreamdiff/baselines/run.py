"""What a new system has to beat: simple ways from EEG to an image, and ways that need no EEG at all.

Every baseline takes training trials and test trials and gives images (N, S, H, W, 3) that `evaluate.ImageScorer` measures like any
other. Two kinds of generator are used: small ones that are trained here (Brain2Image, ThoughtViz), and the frozen generator of the
model under test, which is given words.

Legend: N trials, S samples, B batch, C channels, T samples in time, D width, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from dreamdiff.arrays import Array, Ints
from dreamdiff.baselines.brain2image import brain2image
from dreamdiff.baselines.features import Baseline, Problem, by_person
from dreamdiff.baselines.takagi import takagi
from dreamdiff.baselines.thoughtviz import thoughtviz
from dreamdiff.diffusion.clip import ClipTarget
from dreamdiff.diffusion.frozen_generator import FrozenGenerator, caption, resized
from dreamdiff.linear import RidgeDecoder, ridge
from dreamdiff.metrics.similarity import cosine_similarity
from eegprep.errors import ModelError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.settings import suggest


def from_words(problem: Problem, generator: FrozenGenerator, texts: Sequence[str]) -> Array:
    """(N, S, H, W, 3): the frozen generator's images of one text per test trial, at the size that is judged."""
    numbers = problem.store.indices[problem.test]
    jobs = [
        # primes: no two of (seed, trial, sample) share a seed of the generator in any run of a usual size
        (text, 1_000_003 * problem.seed + 1009 * int(i) + s)
        for text, i in zip(texts, numbers, strict=True)
        for s in range(problem.samples)
    ]
    made = generator.images([text for text, _ in jobs], [seed for _, seed in jobs], steps=problem.steps)
    return resized(made, problem.size).reshape(len(texts), problem.samples, problem.size, problem.size, 3)


def predicted_clip(problem: Problem, clip: ClipTarget) -> tuple[Array, Array]:
    """CLIP vectors that ridge regression reads from the EEG of test trials, and those of the training images; per person."""
    store = problem.store
    training_images, member = np.unique(store.image[problem.train], return_inverse=True)
    vectors = np.asarray(clip.encode_images(list(store.load_images(training_images))))
    x_train, x_test = problem.features()
    out = np.zeros((len(problem.test), vectors.shape[1]))
    for rows, here in by_person(store.person[problem.train], store.person[problem.test]):
        out[here] = ridge(x_train[rows], vectors[member[rows]]).predict(x_test[here])
    # CLIP's vectors share a large part, and a cosine would mostly compare that
    return out - vectors.mean(0), vectors - vectors.mean(0)


def predicted_class(problem: Problem) -> Ints:
    """Class that the light decoder names for each test trial; per person."""
    x_train, x_test = problem.features()
    out = np.zeros(len(problem.test), np.int64)
    for rows, here in by_person(problem.store.person[problem.train], problem.store.person[problem.test]):
        out[here] = RidgeDecoder().fit(x_train[rows], problem.labels_train[rows]).predict(x_test[here])
    return out


# the baselines


def linear_to_clip(problem: Problem, generator: FrozenGenerator) -> Baseline:
    """Ridge EEG -> CLIP image vector -> the class whose caption is nearest -> the frozen generator (Perceptogram's idea).

    Perceptogram feeds the predicted vector to a generator that reads CLIP vectors; Stable Diffusion 1.x reads words, so the nearest
    of the class captions stands in for the vector. What is within a class is therefore lost.
    """
    predicted, _ = predicted_clip(problem, generator.clip)
    texts = [caption(name) for name in problem.store.classes]
    words = np.asarray(generator.clip.encode_text(texts))
    nearest = cosine_similarity(predicted[:, None], words - words.mean(0))[:, 0].argmax(1)
    return Baseline(
        "linear EEG to CLIP", "ridge regression from EEG to CLIP, nearest class caption, frozen generator",
        from_words(problem, generator, [texts[c] for c in nearest]),
    )  # fmt: skip


def nearest_training_image(problem: Problem, clip: ClipTarget) -> Baseline:
    """No generator at all: the training image whose CLIP vector is nearest to what ridge regression reads from the EEG."""
    store = problem.store
    predicted, vectors = predicted_clip(problem, clip)
    training_images = np.unique(store.image[problem.train])
    order = np.argsort(-cosine_similarity(predicted[:, None], vectors)[:, 0], axis=1)
    columns = order[:, np.arange(problem.samples) % order.shape[1]]
    pictures = store.load_images(training_images, size=problem.size)
    return Baseline("nearest training image", "ridge regression from EEG to CLIP, nearest training images", pictures[columns])


def label_as_input(problem: Problem, generator: FrozenGenerator) -> Baseline:
    """The oracle: the frozen generator reads the true class. The paper's section 4.4 has 97.2 % for labels as input."""
    texts = [caption(problem.store.classes[c]) for c in problem.store.labels[problem.test]]
    return Baseline("class label as input", "the true class of every test trial; no EEG", from_words(problem, generator, texts))


def label_as_supervision(problem: Problem, generator: FrozenGenerator) -> Baseline:
    """A light decoder names the class from EEG, the frozen generator draws it. The paper: 86.7 % with labels as supervision."""
    texts = [caption(problem.store.classes[c]) for c in predicted_class(problem)]
    return Baseline(
        "class label as supervision",
        "the class that a linear decoder names from EEG, frozen generator",
        from_words(problem, generator, texts),
    )


def unconditional(problem: Problem, generator: FrozenGenerator) -> Baseline:
    """The frozen generator without words and without EEG."""
    return Baseline("unconditional", "nothing", from_words(problem, generator, [""] * len(problem.test)))


NAMES = (
    "brain2image-vae", "brain2image-gan", "thoughtviz", "takagi", "linear", "nearest", "label-input", "label-supervision", "unconditional",
)  # fmt: skip


def chosen_baselines(names: Sequence[str]) -> tuple[str, ...]:
    """Names to run, with `all` for every one.

    Raises:
        UsageError: unknown name.
    """
    unknown = [name for name in names if name not in (*NAMES, "all")]
    if unknown:
        raise UsageError(f"there is no baseline {unknown[0]!r}{suggest(unknown[0], NAMES)}", f"use one of: {', '.join(NAMES)}")
    return NAMES if "all" in names else tuple(dict.fromkeys(names))


def run_baseline(
    name: str, problem: Problem, *, generator: FrozenGenerator | None, clip: ClipTarget | None, epochs: int = 30,
    device: torch.device | None = None, progress: ProgressCallback | None = None,
) -> Baseline:  # fmt: skip
    """One baseline by name (`NAMES`).

    Raises:
        UsageError: unknown name. ModelError: it needs the frozen generator or a CLIP, and there is none.
    """
    chosen_baselines([name])
    if name.startswith("brain2image"):
        kind: Literal["vae", "gan"] = "vae" if name.endswith("vae") else "gan"
        return brain2image(problem, kind, epochs=epochs, device=device, progress=progress)
    if name == "thoughtviz":
        return thoughtviz(problem, epochs=epochs, device=device, progress=progress)
    if name == "nearest":
        if clip is None:
            raise ModelError(f"baseline {name!r} needs a CLIP", "give --clip")
        return nearest_training_image(problem, clip)
    if generator is None:
        raise ModelError(f"baseline {name!r} needs the frozen generator and its CLIP", "give --sd and --clip")
    table: dict[str, Callable[[Problem, FrozenGenerator], Baseline]] = {
        "takagi": takagi, "linear": linear_to_clip, "label-input": label_as_input, "label-supervision": label_as_supervision, "unconditional": unconditional,
    }  # fmt: skip
    return table[name](problem, generator)
