"""Trials that have passed the front end, with the vectors of their pictures.

Whitening needs no labels and does not change while the model learns, so trials are cut and whitened once and held in memory where
they fit; otherwise each batch is read from the store.
Shapes: N trials, M images, K classes, B batch, C channels, T samples as stored, W samples that the encoder reads, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.alignment.config import FrontChoice
from dreamdiff.devices import send
from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.frontend import FrontEnd, FrontEndConfig, trial_covariance
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ModelError
from eegprep.recording import ProgressCallback
from eegprep.signals.spectra import spread

HELD_BYTES = 2 << 30  # trials up to here are held in memory after the front end
COVARIANCE_TRIALS = 2000  # ours: of one person; the covariance of 128 channels needs no more
PIECE = 256  # trials read at a time


@dataclass(frozen=True)
class AlignData:
    """Pairs, their parts, and image vectors.

    parts: positions of train, val and test; nothing here reads test. row: image number -> row of `vectors`, -1 for images that
    only test trials have. vectors: one (M, D) tensor per target, in the target's own space. shown: (N,) the picture that the model is told
    of each trial. held: (N_held, C, W) after the front end, or None; held_row: position -> row of it, -1 where it is not held.
    """

    pairs: Pairs
    parts: Mapping[str, np.ndarray]
    row: np.ndarray
    vectors: tuple[Tensor, ...]
    front: FrontEnd
    person: np.ndarray
    shown: np.ndarray
    held: Tensor | None = None
    held_row: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def eeg(self, positions: np.ndarray) -> Tensor:
        """(B, C, W) of these trials, whitened."""
        if self.held is not None and (self.held_row[positions] >= 0).all():
            return self.held[torch.from_numpy(self.held_row[positions])]
        return front_end_of(self.pairs, positions, self.front, self.person)

    def batch(self, positions: np.ndarray) -> dict[str, Tensor]:
        """What a step reads: EEG after the front end, person, image, label, and a vector for each target."""
        image = self.shown[positions]
        rows = torch.from_numpy(self.row[image])
        content = {
            "index": torch.as_tensor(positions), "image": torch.as_tensor(image.astype(np.int64)), "eeg": self.eeg(positions),
            "person": torch.as_tensor(self.person[positions]),
            "label": torch.as_tensor(self.pairs.labels[positions].astype(np.int64)),
        }  # fmt: skip
        return content | {f"target{number}": vectors[rows] for number, vectors in enumerate(self.vectors)}


def front_config(pairs: Pairs, choice: FrontChoice, *, rate: float, patch: int) -> FrontEndConfig:
    """The front end for the trials of a store.

    Args:
        choice: what is read. rate: Hz of the encoder where `choice` leaves it open. patch: samples; the window is a whole number
            of them.

    Raises:
        DataError: subjects that differ in rate or first sample, or a store that does not say them.
    """
    asked = ("sfreq", "t0", "unit")
    entries = {name: tuple(pairs.attributes[name].get(key) for key in asked) for name in pairs.subjects}
    (first, values), *others = entries.items()
    for name, other in others:
        if other != values:
            raise DataError(
                f"{pairs.path}: rate, first sample and unit are {values} for {first} and {other} for {name}",
                "import all people at one rate, from the same time on, in one unit",
            )
    sfreq, t0, _ = values
    if not sfreq:
        raise DataError(f"{pairs.path}: does not say its sampling rate", "import the pairs again with their rate")
    channels, samples = pairs.eeg_shape
    chosen = choice.rate or rate
    seconds, held = choice.seconds, float(t0 or 0.0) + samples / sfreq - choice.start
    if 0 < seconds - held < 1 / sfreq:  # trials are cut to whole samples: up to 0.594 s where 0.6 s was asked for at 128 Hz
        seconds = held
    # rounded first: 0.57 s at 100 Hz would be 56 samples, as the product is 56.99... in binary
    window = int(round(seconds * chosen, 6)) // patch * patch
    if window < patch:
        raise ModelError(
            f"{choice.seconds:g} s at {chosen:g} Hz are {choice.seconds * chosen:.1f} samples, a token has {patch}",
            "set front.seconds or front.rate higher",
        )
    names = pairs.attributes[pairs.subjects[0]].get("channels") or ()
    return FrontEndConfig(
        names=tuple(names), unit=pairs.attributes[pairs.subjects[0]].get("unit", "uV"), channels=channels, samples=samples, sfreq=float(sfreq), t0=float(t0 or 0.0), rate=chosen, start=choice.start, window=window,
        align=choice.align, shrink=choice.shrink,
    )  # fmt: skip


def pairs_for(
    front: FrontEndConfig, pairs: str | Path | Pairs, *, strict_rate: bool = False, say: Callable[[str], None] | None = None
) -> Pairs:
    """Trials as an aligned model reads them: at its rate (`dreamdiff.rates`), and what it was aligned on in all other respects.

    Args:
        strict_rate: refuse another rate. say: is told what was done to the rate.

    Raises:
        ModelError: see `check_pairs` and `rates.plan_rate`.
    """
    store = pairs if isinstance(pairs, Pairs) else Pairs.open(pairs)
    store, notes = store.at_model_rate(SignalConfig(sfreq=front.sfreq), front.samples, strict=strict_rate)
    check_pairs(front, store)
    for text in notes if say is not None else ():
        say(text)  # type: ignore[misc]
    return store


def check_pairs(front: FrontEndConfig, pairs: Pairs) -> None:
    """Trials must be what the model was aligned on.

    Raises:
        ModelError: another shape, rate, first sample, unit or order of channels, with both values.
    """
    result = front_config(
        pairs, FrontChoice(start=front.start, seconds=front.window / front.rate, rate=front.rate), rate=0, patch=1
    )
    for name, what in (
        ("channels", "channels"), ("samples", "samples"), ("sfreq", "Hz"), ("t0", "s from onset to the first sample"),
        ("unit", "as unit"),
    ):  # fmt: skip
        stored, expected = getattr(result, name), getattr(front, name)
        if stored != expected:
            raise ModelError(
                f"{pairs.path}: trials have {stored} {what}, the model was aligned on {expected}",
                "import the pairs as those that the model was aligned on, or align on these",
            )
    differing = [number for number, names in enumerate(zip(front.names, result.names, strict=False)) if names[0] != names[1]]
    if differing:
        at = differing[0]
        raise ModelError(
            f"{pairs.path}: channel {at} is {result.names[at]!r}, the model was aligned on {front.names[at]!r} there "
            f"({len(differing)} of {len(front.names)} differ)",
            "bring the channels into the order of the model's pairs",
        )


def fit_front(front: FrontEnd, pairs: Pairs, positions: np.ndarray) -> None:
    """Whitening of every person of `front` from their trials among these.

    Raises:
        DataError: a person without two trials among them.
    """
    covariances = []
    for name in front.people:
        of_person = positions[pairs.person[positions] == pairs.subjects.index(name)]
        if len(of_person) < 2:
            raise DataError(
                f"{pairs.path}: {name} has {len(of_person)} training trials (at least 2 are needed to whiten)",
                "choose a split that holds trials of everybody, or leave the person out",
            )
        covariances.append(person_covariance(front, pairs, of_person))
    front.fit(torch.stack(covariances))


def person_covariance(front: FrontEnd, pairs: Pairs, positions: np.ndarray) -> Tensor:
    """(C, C) from at most `COVARIANCE_TRIALS` of these trials, spread evenly."""
    chosen = positions[spread(len(positions), COVARIANCE_TRIALS)]
    parts = [front.cut(send(torch.from_numpy(pairs.eeg(part)), front.cut_TW.device)).cpu() for part in pieces(chosen)]
    return trial_covariance(torch.cat(parts))


def pieces(positions: np.ndarray) -> list[np.ndarray]:
    """Positions in pieces that are read at a time."""
    return np.array_split(positions, max(1, -(-len(positions) // PIECE)))


@torch.no_grad()
def front_end_of(pairs: Pairs, positions: np.ndarray, front: FrontEnd, person: np.ndarray) -> Tensor:
    """(N, C, W) of these trials, whitened by their person's matrix where the front end is; the result is on the CPU."""
    device = front.whitener_PCC.device
    if len(positions) == 0:
        return torch.zeros(0, front.config.channels, front.config.window)
    parts = [
        front(send(torch.from_numpy(pairs.eeg(part)), device), send(torch.from_numpy(person[part]), device)).cpu()
        for part in pieces(positions)
    ]
    return torch.cat(parts)


def dealt_again(image_N: np.ndarray, person_N: np.ndarray, positions: np.ndarray, seed: int) -> np.ndarray:
    """(N,) pictures in which those of `positions` are permuted within each person; how often each was shown stays as it is."""
    rng, out_N = np.random.default_rng(seed), image_N.copy()
    for person in np.unique(person_N[positions]):
        of_person = positions[person_N[positions] == person]
        out_N[of_person] = image_N[rng.permutation(of_person)]
    return out_N


def person_numbers(pairs: Pairs, people: Sequence[str]) -> np.ndarray:
    """(N,) number of each trial's person among `people`, -1 for others."""
    place = {name: number for number, name in enumerate(people)}
    table = np.array([place.get(name, -1) for name in pairs.subjects], np.int64)
    return table[pairs.person]


def hold(
    pairs: Pairs, positions: np.ndarray, front: FrontEnd, person: np.ndarray, progress: ProgressCallback | None = None
) -> tuple[Tensor | None, np.ndarray]:
    """Trials after the front end and their rows, where they fit into memory."""
    row = np.full(len(pairs), -1, np.int64)
    size = len(positions) * front.config.channels * front.config.window * 4
    # then each batch is read and whitened again, which costs time and changes nothing
    if size > HELD_BYTES:
        return None, row
    row[positions] = np.arange(len(positions))
    out = torch.empty(len(positions), front.config.channels, front.config.window)
    done = 0
    for part in pieces(positions):
        out[done : done + len(part)] = front_end_of(pairs, part, front, person)
        done += len(part)
        if progress:
            progress(done, len(positions), "whitening trials")
    return out, row


def class_centres(data: AlignData, target: int = 0) -> Tensor:
    """(K, D) unit vectors: mean direction of each class's training images from the mean of all of them; zeros where there are none."""
    pairs, train = data.pairs, data.parts["train"]
    return centres(data.vectors[target], data.row, pairs.image[train], pairs.labels[train], len(pairs.classes))


def centres(vectors_MD: Tensor, row: np.ndarray, image_N: np.ndarray, label_N: np.ndarray, classes: int) -> Tensor:
    """(K, D) unit class centres of `vectors_MD`, from the images of some trials; see `class_centres`."""
    shown = np.unique(image_N)
    mean_D = vectors_MD[torch.from_numpy(row[shown])].mean(0)
    out = torch.zeros(classes, vectors_MD.shape[1])
    for label in range(classes):
        images = np.unique(image_N[label_N == label])
        if len(images):
            # without the mean, which all pictures share: it would make all classes look alike
            direction = F.normalize(vectors_MD[torch.from_numpy(row[images])] - mean_D, dim=1)
            out[label] = F.normalize(direction.mean(0), dim=0)
    return out
