"""Trains ThoughtViz (Tirupattur et al., "ThoughtViz: visualizing human thoughts using generative adversarial network", ACM MM 2018) as a baseline.

Three networks, in this order:

1. A convolutional network names the class from EEG. Its last hidden layer, 100 numbers, is all that the generator learns of a trial.
2. A small network names the class of pictures, and is frozen.
3. A generator reads those numbers, multiplied by noise from a learned mixture of Gaussians (DeLiGAN, Gurumurthy et al. 2017), and has to
   convince a discriminator and to be named right by the frozen network of step 2.

As in the paper, EEG and pictures are joined by the class alone: a trial of a class is paired with any picture of it. Sizes are smaller
than the authors' and the schedule is ours: theirs is 10,000 passes at rates of 3e-5 and 5e-5.
Shapes: B batch, C channels, T time steps, K classes, D features.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.arrays import Array
from dreamdiff.baselines.brain2image import TEACHER_SIZE, Tick, batches, binned_eeg
from dreamdiff.baselines.features import Baseline, Problem
from dreamdiff.devices import send
from dreamdiff.diffusion.frozen_generator import resized
from eegprep.recording import ProgressCallback

FEATURES = 100  # of the EEG network, as in the paper
NOISE = 100
COMPONENTS = 8  # ours: of the mixture


class EEGNetwork(nn.Module):
    """Convolutions over time, then over channels, then over time again; 100 features, and the class from them."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(1), nn.Conv2d(1, 32, (1, 4)), nn.ReLU(), nn.Conv2d(32, 25, (channels, 1)), nn.ReLU(), nn.MaxPool2d((1, 3)),
            nn.Conv2d(25, 50, (1, 4)), nn.ReLU(), nn.AdaptiveMaxPool2d((1, 6)), nn.Flatten(), nn.BatchNorm1d(300), nn.Dropout(0.3),
            nn.Linear(300, FEATURES), nn.ReLU(),
        )  # fmt: skip
        self.classify = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, classes))

    def forward(self, eeg_BCT: Tensor) -> Tensor:
        """(B, FEATURES)."""
        return self.body(eeg_BCT[:, None])


class PictureNetwork(nn.Sequential):
    """(B, 3, 64, 64) -> (B, outputs): the classifier of pictures, and with one output the discriminator."""

    def __init__(self, outputs: int, dropout: float, width: int = 32) -> None:
        layers: list[nn.Module] = []
        for a, b in pairwise((3, width, width * 2, width * 4, width * 4)):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(width * 4 * 16, outputs))


class Mixture(nn.Module):
    """Noise from a mixture of Gaussians whose means and spreads are learned; each draw comes from one component (DeLiGAN, section 4)."""

    def __init__(self, components: int = COMPONENTS, width: int = NOISE) -> None:
        super().__init__()
        self.mean_KD = nn.Parameter(torch.empty(components, width).uniform_(-1, 1))
        self.spread_KD = nn.Parameter(torch.empty(components, width).uniform_(-0.2, 0.2))

    def forward(self, count: int) -> Tensor:
        """(count, width)."""
        # drawn on the CPU, so that a seed means the same on every device
        chosen = torch.randint(len(self.mean_KD), (count,)).to(self.mean_KD.device)
        noise = torch.randn(count, self.mean_KD.shape[1]).to(self.mean_KD.device)
        return self.mean_KD[chosen] + self.spread_KD[chosen] * noise


class Generator(nn.Module):
    """EEG features, multiplied by noise -> (B, 3, 64, 64) in [-1, 1]."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.mixture, self.gate = Mixture(), nn.Linear(NOISE, FEATURES)
        self.first = nn.Sequential(nn.BatchNorm1d(FEATURES), nn.Linear(FEATURES, width * 8 * 16), nn.ReLU())
        layers: list[nn.Module] = [nn.BatchNorm2d(width * 8)]
        for a, b in ((8, 4), (4, 2), (2, 1)):
            layers += [nn.ConvTranspose2d(width * a, width * b, 4, 2, 1), nn.ReLU(), nn.BatchNorm2d(width * b)]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())
        self.width = width

    def forward(self, features_BD: Tensor) -> Tensor:
        gated = torch.tanh(self.gate(self.mixture(len(features_BD)))) * features_BD
        return self.body(self.first(gated).view(-1, self.width * 8, 4, 4))


def thoughtviz(
    problem: Problem,
    *,
    epochs: int = 30,
    batch: int = 64,
    device: torch.device | None = None,
    progress: ProgressCallback | None = None,
) -> Baseline:
    """ThoughtViz, small, trained on the training trials; pictures are made at 64 pixels.

    Raises:
        DataError: there are no training trials.
    """
    device = device or torch.device("cpu")
    store = problem.store
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        x_train, x_test = (
            send(binned_eeg(store, rows)[:, : problem.real_channels], device) for rows in (problem.train, problem.test)
        )
        pixels = torch.from_numpy(store.images(problem.train, size=TEACHER_SIZE)).permute(0, 3, 1, 2).float() / 127.5 - 1
        # classes that training shows; a class without training trials can be neither named nor drawn
        pixels, labels = (
            send(pixels, device),
            send(torch.from_numpy(np.unique(problem.labels_train, return_inverse=True)[1]), device),
        )
        classes, total = int(labels.max()) + 1 if len(labels) else 1, 3 * epochs

        def tick(before: int, what: str) -> Tick:
            return lambda epoch: progress and progress(before + epoch, total, what)

        network = EEGNetwork(x_train.shape[1], classes).to(device)
        train_classifier(network, x_train, labels, epochs, batch, tick(0, "EEG network"))
        judge = PictureNetwork(classes, dropout=0.2).to(device)
        train_classifier(judge, pixels, labels, epochs, batch, tick(epochs, "picture network"))
        network.eval()
        with torch.no_grad():
            f_train, f_test = (torch.cat([network(part) for part in x.split(256)]) for x in (x_train, x_test))
        generator = Generator().to(device)
        train_gan(
            generator, judge.eval().requires_grad_(False), f_train, pixels, labels, epochs, batch, tick(2 * epochs, "generator")
        )
        images = _draw(generator.eval(), f_test, problem.samples)
    shape = (len(problem.test), problem.samples, problem.size, problem.size, 3)
    return Baseline(
        "ThoughtViz", "features of an EEG classifier and noise from a learned mixture of Gaussians into a conditional GAN",
        resized(images, problem.size).reshape(shape),
    )  # fmt: skip


def train_classifier(network: nn.Module, x_N: Tensor, labels_N: Tensor, epochs: int, batch: int, tick: Tick) -> None:
    """Cross-entropy; for the EEG network and the picture network alike."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.05)
    head = network.classify if isinstance(network, EEGNetwork) else nn.Identity()
    network.train()
    for epoch in range(epochs):
        for rows in _whole(len(x_N), batch):
            loss = F.cross_entropy(head(network(x_N[rows])), labels_N[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        tick(epoch + 1)


def train_gan(
    generator: Generator,
    judge: nn.Module,
    features_ND: Tensor,
    images_NCHW: Tensor,
    labels_N: Tensor,
    epochs: int,
    batch: int,
    tick: Tick,
) -> None:
    """The game: the discriminator against the generator, which also answers to the frozen `judge` of pictures."""
    critic = PictureNetwork(1, dropout=0.3, width=generator.width).to(images_NCHW.device)
    of_generator = torch.optim.Adam(generator.parameters(), 2e-4, betas=(0.5, 0.999))
    of_critic = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))
    generator.train()
    for epoch in range(epochs):
        for rows in _whole(len(images_NCHW), batch):
            # any trial of the picture's class, as in the paper: nothing joins a trial to its own picture but the class
            partner = _same_class(labels_N, rows)
            made = generator(features_ND[partner])
            loss = F.softplus(-critic(images_NCHW[rows])).mean() + F.softplus(critic(made.detach())).mean()
            of_critic.zero_grad()
            loss.backward()
            of_critic.step()
            of_generator.zero_grad()
            (F.softplus(-critic(made)).mean() + F.cross_entropy(judge(made), labels_N[partner])).backward()
            of_generator.step()
        tick(epoch + 1)


def _same_class(labels_N: Tensor, rows: Tensor) -> Tensor:
    """A random trial of the class of each row."""
    same = labels_N[rows, None].cpu() == labels_N[None].cpu()
    return torch.multinomial(same.float(), 1)[:, 0]


def _whole(count: int, batch: int) -> list[Tensor]:
    """Batches of at least two: batch normalisation has no spread of one."""
    parts = batches(count, batch)
    return [part for part in parts if len(part) > 1] or parts


@torch.no_grad()
def _draw(generator: Generator, features_ND: Tensor, samples: int) -> Array:
    """(N * samples, 64, 64, 3) uint8."""
    made = [torch.cat([generator(part) for part in features_ND.split(256)]) for _ in range(samples)]
    images = torch.stack(made, 1).flatten(0, 1)
    return np.asarray(((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
