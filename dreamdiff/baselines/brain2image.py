"""Trains Brain2Image (Kavasidis et al. 2017) as a baseline: an LSTM encoder with a VAE and with a GAN."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.arrays import Ints
from dreamdiff.baselines.features import Baseline, Problem
from dreamdiff.devices import send
from dreamdiff.diffusion.frozen_generator import resized
from dreamdiff.encoders.encoder import robust_scale
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.settings import suggest

FEATURES = 128  # width of the LSTM's output (Kavasidis et al. 2017)

LATENT = 64  # of VAE and GAN

TIME_STEPS = 64  # the LSTM reads the mean of eight samples at a time

TEACHER_SIZE = 64  # pixels; the small generators work at this size


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
    problem: Problem, kind: Literal["vae", "gan"], *, epochs: int = 30, batch: int = 64, device: torch.device | None = None,
    progress: ProgressCallback | None = None,
) -> Baseline:  # fmt: skip
    """Brain2Image (Kavasidis et al. 2017), small: an LSTM trained to name the class, then a generator conditioned on its output.

    vae: squared error and Kullback-Leibler divergence; gan: the non-saturating game, the discriminator sees the EEG features too.
    Images are made at 64 pixels. Sizes and schedule are ours; the original code was never published.
    """
    if kind not in ("vae", "gan"):
        raise UsageError(f"there is no Brain2Image generator {kind!r}{suggest(kind, ('vae', 'gan'))}", "use vae or gan")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        store = problem.store
        x_train, x_test = binned_eeg(store, problem.train), binned_eeg(store, problem.test)
        pixels = torch.from_numpy(store.images(problem.train, size=TEACHER_SIZE)).permute(0, 3, 1, 2).float() / 127.5 - 1
        labels = torch.from_numpy(problem.labels_train)
        device = device or torch.device("cpu")
        x_train, x_test, pixels, labels = (send(part, device) for part in (x_train, x_test, pixels, labels))
        encoder = LSTMEncoder(x_train.shape[1], len(store.classes)).to(device)
        total = 2 * epochs
        _train_lstm(encoder, x_train, labels, epochs, batch, lambda e: progress and progress(e, total, "LSTM encoder"))
        with torch.no_grad():
            f_train, f_test = encoder(x_train), encoder(x_test)
        decoder = Decoder().to(device)
        teach = _train_vae if kind == "vae" else _train_gan
        teach(decoder, f_train, pixels, epochs, batch, lambda e: progress and progress(epochs + e, total, f"{kind} generator"))
        made = []
        with torch.no_grad():
            for _ in range(problem.samples):
                made.append(torch.cat([decoder(f, torch.randn(len(f), LATENT).to(device)) for f in f_test.split(256)]))
    images = torch.stack(made, 1).flatten(0, 1)
    pictures = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    shape = (len(problem.test), problem.samples, problem.size, problem.size, 3)
    description = f"EEG through an LSTM that was trained to name the class, {kind.upper()} generator"
    return Baseline(f"Brain2Image-{kind.upper()}", description, resized(pictures, problem.size).reshape(shape))


def binned_eeg(store: Pairs, positions: Ints) -> Tensor:
    """(N, C, TIME_STEPS): means of neighbouring samples, divided by the robust spread of the window."""
    eeg = torch.from_numpy(store.eeg(positions))
    return F.adaptive_avg_pool1d(eeg / robust_scale(eeg)[:, None, None], TIME_STEPS).clamp(-20, 20)


Tick = Callable[[int], Any]


def batches(n: int, size: int) -> list[Tensor]:
    if n == 0:
        raise DataError("there are 0 training trials (at least 1 is needed)", "choose another split")
    return list(torch.randperm(n).split(size))


def _train_lstm(encoder: LSTMEncoder, x_NCT: Tensor, labels_N: Tensor, epochs: int, batch: int, tick: Tick) -> None:
    optimiser = torch.optim.AdamW(encoder.parameters(), 2e-3, weight_decay=0.05)
    for epoch in range(epochs):
        for rows in batches(len(x_NCT), batch):
            noisy = x_NCT[rows] + 0.3 * torch.randn_like(x_NCT[rows])
            loss = F.cross_entropy(encoder.classify(F.dropout(encoder(noisy), 0.5)), labels_N[rows])
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
            optimiser.step()
        tick(epoch + 1)


def _train_vae(decoder: Decoder, features_ND: Tensor, images_NCHW: Tensor, epochs: int, batch: int, tick: Tick) -> None:
    """Evidence lower bound with unit variance per pixel sum scaled to the mean (Kingma and Welling 2014), conditioned."""
    posterior = ImageEncoder(2 * LATENT).to(images_NCHW.device)
    optimiser = torch.optim.Adam([*decoder.parameters(), *posterior.parameters()], 1e-3)
    for epoch in range(epochs):
        for rows in batches(len(images_NCHW), batch):
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
    critic = ImageEncoder(1).to(images_NCHW.device)
    of_decoder = torch.optim.Adam(decoder.parameters(), 2e-4, betas=(0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))
    for epoch in range(epochs):
        for rows in batches(len(images_NCHW), batch):
            image, features = images_NCHW[rows], features_ND[rows]
            made = decoder(features, torch.randn(len(rows), LATENT).to(features.device))
            loss = F.softplus(-critic(image, features)).mean() + F.softplus(critic(made.detach(), features)).mean()
            of_critic.zero_grad()
            loss.backward()
            of_critic.step()
            of_decoder.zero_grad()
            F.softplus(-critic(made, features)).mean().backward()
            of_decoder.step()
        tick(epoch + 1)
