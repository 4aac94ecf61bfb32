"""What a new system has to beat: simple ways from EEG to an image, and ways that need no EEG at all.

Every baseline takes training trials and test trials and gives images (N, S, H, W, 3) that `evaluate.ImageScorer` measures like any
other. Two kinds of generator are used: small ones that are trained here (Brain2Image), and the frozen generator of the
model under test, which is given words.

Legend: N trials, S samples, B batch, C channels, T samples in time, D width, K classes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from eegprep.errors import DataError, ModelError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.settings import suggest

from .clip_target import ClipTarget
from .controls import RIDGES, RidgeDecoder, extract_features, left_out_error
from .latent_diffusion import StableDiffusion, make_scheduler
from .metrics import cosine_similarity
from .pairs import Pairs

Array = NDArray[Any]
Ints = NDArray[np.int64]
GUIDANCE = 3.0  # of the frozen generator; the embedded model's own
FEATURES = 128  # width of the LSTM's output (Kavasidis et al. 2017)
LATENT = 64  # of VAE and GAN
TIME_STEPS = 64  # the LSTM reads the mean of eight samples at a time
TEACHER_SIZE = 64  # pixels; the small generators work at this size


@dataclass(frozen=True)
class Baseline:
    """Images of one baseline, and in words what it knew."""

    name: str
    told: str
    images_NSHWC: Array


@dataclass(frozen=True)
class Problem:
    """Training and test trials of a store, with what baselines need of them.

    size: pixels of the generated images. samples: images per trial. labels and pictures of test trials are for the oracle only.
    """

    store: Pairs
    train: Ints
    test: Ints
    size: int
    samples: int = 1
    seed: int = 0
    steps: int = 20

    @property
    def labels_train(self) -> Ints:
        """(N,)"""
        return np.asarray(self.store.labels[self.train], np.int64)

    def features(self) -> tuple[Array, Array]:
        """Whitened time courses of training and test trials, the input of all linear baselines."""
        everything = np.concatenate([self.train, self.test])
        attributes = self.store.attributes[self.store.subjects[0]]
        channels = min(int(self.store.attributes[s].get("n_channels", self.store.eeg_shape[0])) for s in self.store.subjects)
        found = extract_features(
            lambda rows: self.store.eeg(everything[rows]), self.store.trials.take(everything), np.arange(len(self.train)),
            sfreq=float(attributes.get("sfreq") or 512.0), t0=float(attributes.get("t0") or 0.0),
            real_channels=min(channels, self.store.eeg_shape[0]),
        ).sets["eeg"]  # fmt: skip
        return found[: len(self.train)], found[len(self.train) :]


# words into the frozen generator


class FrozenGenerator:
    """The generator before any EEG: CLIP's text states in, images out, with classifier-free guidance.

    Text states are what Stable Diffusion's text encoder gives: the last hidden state of every token of CLIP's text tower. For
    Stable Diffusion 1.5 that is CLIP ViT-L/14, for the embedded model the embedded CLIP.
    """

    def __init__(self, sd: StableDiffusion, clip: ClipTarget) -> None:
        self.sd, self.clip = sd, clip
        self.padding: Literal["end", "zero"] = "zero" if sd.source == "embedded" else "end"
        width = self.text_states([""]).shape[2]
        if width != sd.context_width:
            raise ModelError(
                f"the text states of {clip.name} have width {width}, the generator reads {sd.context_width}",
                "give the CLIP whose text tower the generator was trained with",
            )

    def text_states(self, texts: Sequence[str]) -> Tensor:
        """(N, L, D)."""
        return self.clip.text_states(texts, self.padding)

    @torch.no_grad()
    def images(
        self, texts: Sequence[str], seeds: Sequence[int], *, steps: int = 20, guidance: float = GUIDANCE, batch: int = 16
    ) -> Array:
        """(N, H, W, 3) uint8, one image per text; image k depends on its text and its seed alone."""
        known = dict(zip(sorted(set(texts)), self.text_states(sorted(set(texts))), strict=True))
        empty = self.text_states([""])
        sampler = make_scheduler("dpm-solver++", self.sd.scheduler.config)
        parts = []
        for start in range(0, len(texts), batch):
            context = torch.stack([known[text] for text in texts[start : start + batch]])
            shape = (int(self.sd.unet.config.in_channels), *2 * [int(self.sd.unet.config.sample_size)])
            noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds[start : start + batch]]
            sampler.set_timesteps(steps)
            state = torch.stack(noise) * sampler.init_noise_sigma
            for step in sampler.timesteps:
                both = torch.cat([sampler.scale_model_input(state, step)] * 2)
                words = torch.cat([empty.expand_as(context), context])
                without, with_words = self.sd.unet(both, step, words).sample.chunk(2)
                state = sampler.step(without + guidance * (with_words - without), step, state).prev_sample
            decoded = self.sd.vae.decode(state / self.sd.vae.config.scaling_factor).sample
            parts.append(((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
        return np.concatenate(parts)


def caption(name: str) -> str:
    """What the frozen generator is told of a class."""
    plain = name.replace("_", " ")
    return f"a drawing of {'an' if plain[:1].lower() in 'aeiou' else 'a'} {plain.lower()}"


def from_words(problem: Problem, generator: FrozenGenerator, texts: Sequence[str]) -> Array:
    """(N, S, H, W, 3): the frozen generator's images of one text per test trial, at the size that is judged."""
    numbers = problem.store.indices[problem.test]
    jobs = [
        (text, 1_000_003 * problem.seed + 1009 * int(i) + s)
        for text, i in zip(texts, numbers, strict=True)
        for s in range(problem.samples)
    ]
    made = generator.images([text for text, _ in jobs], [seed for _, seed in jobs], steps=problem.steps)
    return resized(made, problem.size).reshape(len(texts), problem.samples, problem.size, problem.size, 3)


def resized(images_NHWC: Array, size: int) -> Array:
    """(N, size, size, 3) uint8."""
    if images_NHWC.shape[1:3] == (size, size):
        return images_NHWC
    pixels = torch.from_numpy(np.ascontiguousarray(images_NHWC)).permute(0, 3, 1, 2).float()
    small = size < images_NHWC.shape[1]
    scaled = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=small)
    return np.asarray(scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))


# linear maps


class RidgeMap:
    """Ridge regression from features to vectors, the strength chosen by leave-one-out error (as in `RidgeDecoder`)."""

    def fit(self, features_ND: Array, targets_NE: Array) -> RidgeMap:
        """Fit to training trials."""
        x = np.asarray(features_ND, float)
        self.mean_D, spread = x.mean(0), x.std(0)
        self.scale_D = np.where(spread > 1e-9 * max(float(spread.max()), 1e-300), 1 / np.maximum(spread, 1e-300), 0.0)
        x = (x - self.mean_D) * self.scale_D
        self.bias_E = np.asarray(targets_NE, float).mean(0)
        values, vectors = np.linalg.eigh(x @ x.T / x.shape[1])
        values = np.maximum(values, 0)
        projected = vectors.T @ (targets_NE - self.bias_E)
        errors = [left_out_error(values, vectors, projected, ridge) for ridge in RIDGES]
        self.ridge = RIDGES[int(np.argmin(errors))]
        self.weights_DE = x.T @ (vectors @ (projected / (values + self.ridge)[:, None])) / x.shape[1]
        return self

    def predict(self, features_ND: Array) -> Array:
        """(N, E)."""
        return np.asarray((np.asarray(features_ND, float) - self.mean_D) * self.scale_D @ self.weights_DE + self.bias_E)


def predicted_clip(problem: Problem, clip: ClipTarget) -> tuple[Array, Array]:
    """CLIP vectors that ridge regression reads from the EEG of test trials, and those of the training images; per person."""
    store = problem.store
    taught, member = np.unique(store.image[problem.train], return_inverse=True)
    vectors = np.asarray(clip.encode_images(list(store.load_images(taught))))
    x_train, x_test = problem.features()
    out = np.zeros((len(problem.test), vectors.shape[1]))
    for rows, here in _by_person(store.person[problem.train], store.person[problem.test]):
        out[here] = RidgeMap().fit(x_train[rows], vectors[member[rows]]).predict(x_test[here])
    return out - vectors.mean(0), vectors - vectors.mean(0)


def predicted_class(problem: Problem) -> Ints:
    """Class that the light decoder names for each test trial; per person."""
    x_train, x_test = problem.features()
    out = np.zeros(len(problem.test), np.int64)
    for rows, here in _by_person(problem.store.person[problem.train], problem.store.person[problem.test]):
        out[here] = RidgeDecoder().fit(x_train[rows], problem.labels_train[rows]).predict(x_test[here])
    return out


def _by_person(person_train: Array, person_test: Array) -> list[tuple[Ints, Ints]]:
    """Rows of training and test per person; a person without training trials is read with everybody's."""
    found = []
    for person in np.unique(person_test):
        mine = np.flatnonzero(person_train == person)
        found.append((mine if len(mine) > 1 else np.arange(len(person_train)), np.flatnonzero(person_test == person)))
    return found


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
    taught = np.unique(store.image[problem.train])
    order = np.argsort(-cosine_similarity(predicted[:, None], vectors)[:, 0], axis=1)
    columns = order[:, np.arange(problem.samples) % order.shape[1]]
    pictures = store.load_images(taught, size=problem.size)
    return Baseline("nearest training image", "ridge regression from EEG to CLIP, nearest training images", pictures[columns])


def label_as_input(problem: Problem, generator: FrozenGenerator) -> Baseline:
    """The oracle: the frozen generator is told the true class. The paper's section 4.4 has 97.2 % for labels as input."""
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


# Brain2Image


class LSTMEncoder(nn.Module):
    """One LSTM over time, its last output through a linear layer and ReLU; trained to name the class (Kavasidis et al. 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, FEATURES, batch_first=True)
        self.out = nn.Linear(FEATURES, FEATURES)
        self.classify = nn.Linear(FEATURES, classes)

    def forward(self, eeg_BCT: Tensor) -> Tensor:
        """(B, FEATURES)."""
        hidden_BTD, _ = self.lstm(eeg_BCT.transpose(1, 2))
        return F.relu(self.out(hidden_BTD[:, -1]))


class Decoder(nn.Module):
    """EEG features and noise -> (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES + LATENT, width * 8 * 16)
        layers: list[nn.Module] = []
        for a, b in ((8, 4), (4, 2), (2, 1), (1, 1)):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(width * a, width * b, 3, padding=1),
                nn.GroupNorm(8, width * b),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, 3, 3, padding=1), nn.Tanh())
        self.width = width

    def forward(self, features_BD: Tensor, noise_BD: Tensor) -> Tensor:
        x = self.first(torch.cat([features_BD, noise_BD], 1)).view(-1, self.width * 8, 4, 4)
        return self.body(x)


class ImageEncoder(nn.Module):
    """(B, 3, 64, 64) and EEG features -> `outputs` numbers: the VAE's posterior, or the GAN's opinion."""

    def __init__(self, outputs: int, width: int = 32) -> None:
        super().__init__()
        channels = (3, width, width * 2, width * 4, width * 4)
        layers: list[nn.Module] = []
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.last = nn.Sequential(nn.Linear(width * 4 * 16 + FEATURES, 128), nn.LeakyReLU(0.2), nn.Linear(128, outputs))

    def forward(self, image_BCHW: Tensor, features_BD: Tensor) -> Tensor:
        return self.last(torch.cat([self.body(image_BCHW), features_BD], 1))


def brain2image(
    problem: Problem, kind: Literal["vae", "gan"], *, epochs: int = 30, batch: int = 64, progress: ProgressCallback | None = None
) -> Baseline:
    """Brain2Image (Kavasidis et al. 2017), small: an LSTM trained to name the class, then a generator conditioned on its output.

    vae: squared error and Kullback-Leibler divergence; gan: the non-saturating game, the discriminator sees the EEG features too.
    Images are made at 64 pixels. Sizes and schedule are ours; the original code was never published.
    """
    if kind not in ("vae", "gan"):
        raise UsageError(f"there is no Brain2Image generator {kind!r}{suggest(kind, ('vae', 'gan'))}", "use vae or gan")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        store = problem.store
        x_train, x_test = _lstm_input(store, problem.train), _lstm_input(store, problem.test)
        pixels = torch.from_numpy(store.images(problem.train, size=TEACHER_SIZE)).permute(0, 3, 1, 2).float() / 127.5 - 1
        labels = torch.from_numpy(problem.labels_train)
        encoder = LSTMEncoder(x_train.shape[1], len(store.classes))
        total = 2 * epochs
        _train_lstm(encoder, x_train, labels, epochs, batch, lambda e: progress and progress(e, total, "LSTM encoder"))
        with torch.no_grad():
            f_train, f_test = encoder(x_train), encoder(x_test)
        decoder = Decoder()
        teach = _train_vae if kind == "vae" else _train_gan
        teach(decoder, f_train, pixels, epochs, batch, lambda e: progress and progress(epochs + e, total, f"{kind} generator"))
        made = []
        with torch.no_grad():
            for _ in range(problem.samples):
                made.append(torch.cat([decoder(f, torch.randn(len(f), LATENT)) for f in f_test.split(256)]))
    images = torch.stack(made, 1).flatten(0, 1)
    pictures = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    shape = (len(problem.test), problem.samples, problem.size, problem.size, 3)
    told = f"EEG through an LSTM that was trained to name the class, {kind.upper()} generator"
    return Baseline(f"Brain2Image-{kind.upper()}", told, resized(pictures, problem.size).reshape(shape))


def _lstm_input(store: Pairs, positions: Ints) -> Tensor:
    """(N, C, TIME_STEPS): means of neighbouring samples, divided by the robust spread of the window."""
    eeg = torch.from_numpy(store.eeg(positions))
    scale = eeg.abs().flatten(1).median(1).values.clamp_min(1e-6) * 1.4826
    return F.adaptive_avg_pool1d(eeg / scale[:, None, None], TIME_STEPS).clamp(-20, 20)


Tick = Callable[[int], Any]


def _batches(n: int, size: int) -> list[Tensor]:
    if n == 0:
        raise DataError("there are 0 training trials (at least 1 is needed)", "choose another split")
    return list(torch.randperm(n).split(size))


def _train_lstm(encoder: LSTMEncoder, x_NCT: Tensor, labels_N: Tensor, epochs: int, batch: int, tick: Tick) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), 2e-3, weight_decay=0.05)
    for epoch in range(epochs):
        for rows in _batches(len(x_NCT), batch):
            noisy = x_NCT[rows] + 0.3 * torch.randn_like(x_NCT[rows])
            loss = F.cross_entropy(encoder.classify(F.dropout(encoder(noisy), 0.5)), labels_N[rows])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimiser.step()
        tick(epoch + 1)


def _train_vae(decoder: Decoder, features_ND: Tensor, images_NCHW: Tensor, epochs: int, batch: int, tick: Tick) -> None:
    """Evidence lower bound with unit variance per pixel sum scaled to the mean (Kingma and Welling 2014), conditioned."""
    posterior = ImageEncoder(2 * LATENT)
    optimiser = torch.optim.Adam([*decoder.parameters(), *posterior.parameters()], 1e-3)
    for epoch in range(epochs):
        for rows in _batches(len(images_NCHW), batch):
            image, features = images_NCHW[rows], features_ND[rows]
            mean, log_variance = posterior(image, features).chunk(2, 1)
            drawn = mean + (log_variance.clamp(-10, 10) / 2).exp() * torch.randn_like(mean)
            error = F.mse_loss(decoder(features, drawn), image)
            divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
            optimiser.zero_grad()
            (error + 0.02 * divergence).backward()
            optimiser.step()
        tick(epoch + 1)


def _train_gan(decoder: Decoder, features_ND: Tensor, images_NCHW: Tensor, epochs: int, batch: int, tick: Tick) -> None:
    """Goodfellow et al. 2014, non-saturating; learning rates and betas as in DCGAN (Radford et al. 2016)."""
    critic = ImageEncoder(1)
    of_decoder = torch.optim.Adam(decoder.parameters(), 2e-4, betas=(0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))
    for epoch in range(epochs):
        for rows in _batches(len(images_NCHW), batch):
            image, features = images_NCHW[rows], features_ND[rows]
            made = decoder(features, torch.randn(len(rows), LATENT))
            loss = F.softplus(-critic(image, features)).mean() + F.softplus(critic(made.detach(), features)).mean()
            of_critic.zero_grad()
            loss.backward()
            of_critic.step()
            of_decoder.zero_grad()
            F.softplus(-critic(made, features)).mean().backward()
            of_decoder.step()
        tick(epoch + 1)


NAMES = (
    "brain2image-vae", "brain2image-gan", "linear", "nearest", "label-input", "label-supervision", "unconditional",
)  # fmt: skip


def run_baseline(
    name: str, problem: Problem, *, generator: FrozenGenerator | None, clip: ClipTarget | None, epochs: int = 30,
    progress: ProgressCallback | None = None,
) -> Baseline:  # fmt: skip
    """One baseline by name (`NAMES`).

    Raises:
        UsageError: unknown name. ModelError: it needs the frozen generator or a CLIP, and there is none.
    """
    if name not in NAMES:
        raise UsageError(f"there is no baseline {name!r}{suggest(name, NAMES)}", f"use one of: {', '.join(NAMES)}")
    if name.startswith("brain2image"):
        kind: Literal["vae", "gan"] = "vae" if name.endswith("vae") else "gan"
        return brain2image(problem, kind, epochs=epochs, progress=progress)
    if name == "nearest":
        if clip is None:
            raise ModelError(f"baseline {name!r} needs a CLIP", "give --clip")
        return nearest_training_image(problem, clip)
    if generator is None:
        raise ModelError(f"baseline {name!r} needs the frozen generator and its CLIP", "give --sd and --clip")
    table: dict[str, Callable[[Problem, FrozenGenerator], Baseline]] = {
        "linear": linear_to_clip, "label-input": label_as_input, "label-supervision": label_as_supervision, "unconditional": unconditional,
    }  # fmt: skip
    return table[name](problem, generator)
