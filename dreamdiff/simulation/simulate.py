"""EEG-image pairs with a known answer.

Two kinds of sources: `viewing` describes the default ("network"). With linear sources, as in 0.1.0, each trial is genuine (or 1/f) background plus an evoked response whose sources are current dipoles in occipito-temporal cortex
of a spherical head. How strongly each source answers is a linear function of the image's CLIP vector, so that category *and*
image are in the signal, and a perfect decoder is known to exist.

    evoked_CT(trial) = g * G_CS * sum_l a_SL(trial) w_L(t - lag_S - shift)        scalp potential, uV, average reference
    a_SL(trial)      = gain * (base_SL + SPECIFIC * (B z)_SL)                     z: principal components of CLIP vectors

G is the lead field, w_L are waves near 110, 170 and 260 ms, `shift` and `gain` vary from trial to trial and from person to
person, and g sets the signal-to-noise ratio exactly:

    SNR (dB) = 10 log10( mean evoked^2 / mean background^2 ),
    means over all trials of a person, all 128 channels (average reference) and 0 to 500 ms after image onset;
    background = 5-95 Hz filtered EEG (after the drift) plus amplifier noise.

The evoked response is added after the filter. It is exactly 0 before image onset, so that a control that sees only the
pre-stimulus interval must come out at chance; in filtered recordings a zero-phase filter smears a little of it there.
Shapes: N trials, C channels, T samples, S sources, L waves, D width of a CLIP vector, K components.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.simulation.backgrounds import Background, GenuineBackground, PinkBackground
from dreamdiff.simulation.config import NETWORK_ONLY, SimulateConfig
from dreamdiff.simulation.drawings import INSTALL
from dreamdiff.simulation.images import DRIVER, ImageSet
from dreamdiff.simulation.people import Brain, Person
from dreamdiff.simulation.viewing import DrivenBrain, Viewer
from eegprep.errors import DataError, UsageError
from eegprep.provenance import fingerprint, sha256
from eegprep.recording import ProgressCallback, Recording
from eegprep.sources.reading import read_source


def simulate(
    out: str | os.PathLike[str],
    config: SimulateConfig | None = None,
    *,
    images: ImageSet | None = None,
    backgrounds: Sequence[Recording] | None = None,
    rebuild: bool = False,
    progress: ProgressCallback | None = None,
) -> Pairs:
    """Write a pairs store with a known answer. Run again to finish what was interrupted; a finished store is left alone.

    The default split holds drawings apart: training trials show training drawings; validation and test trials show held-out
    drawings, different ones where a category has two or more.

    Args:
        out: the store.
        config: the dials.
        images: what is shown, with the vectors that drive the sources; default the shipped drawings, with features of
            EfficientNet-Lite0, or of the embedded CLIP for linear sources.
        backgrounds: recordings to take background from; default by `config.background`.
        rebuild: make a store that is there with other settings again.

    Returns:
        The opened store.

    Raises:
        UsageError: a dial out of range.
        DataError: images and features that do not fit together.
        SignalError: background recordings that are too short, or without known electrodes.
    """
    config = config or SimulateConfig()
    _check(config)
    network = config.sources == "network"
    if config.concepts and images is None:
        raise UsageError(
            f"--concepts {config.concepts} needs drawings; 40 categories ship with the package",
            f"give --drawings FOLDER with icon sets: {INSTALL}",
        )
    images = images or ImageSet.shipped(network=DRIVER if network else None)
    _check_images(images)
    source: Background = PinkBackground() if config.background == "pink" else GenuineBackground(_recordings(backgrounds))
    recipe = {
        "kind": "simulated", **config.recipe(), "images": _digest(images.images_NHWC),
        # rounded: the last digits of a network's features differ from machine to machine
        "features": _digest(np.round(images.features_ND.astype(np.float64), 3)), "features_from": images.features_from,
        "background_from": list(source.names),
    }  # fmt: skip
    licence = f"images: {images.licence}; background: {source.licence}"
    kind = Viewer if network else Person
    with PairsWriter(
        out, recipe=recipe, classes=images.classes, class_ids=images.class_ids, provenance="simulated", licence=licence,
        samples=kind.timing(config)[1], rebuild=rebuild,
    ) as writer:  # fmt: skip
        if not writer.complete:
            writer.set_images(images.images_NHWC, images.names)
            brain = DrivenBrain(images, config) if network else Brain(images, seed=config.seed)
            parts: list[np.ndarray] = []
            for number in range(config.first_person - 1, config.first_person - 1 + config.people):
                person = kind(number, config, images, brain, source)
                parts.append(person.part_N)
                _write_person(writer, person, fingerprint(recipe), progress)
            part = np.concatenate(parts)
            writer.finish({name: np.flatnonzero(part == k) for k, name in enumerate(("train", "val", "test"))})
    return Pairs.open(out)


def _write_person(writer: PairsWriter, person: Person, key: str, progress: ProgressCallback | None) -> None:
    name = f"sim{person.number + 1:02d}"
    if writer.done(name, key):
        return
    with writer.subject(name, key, person.describe()) as target:
        for block in range(person.n_blocks):
            here = person.block_N == block
            target.add(
                person.eeg(block), image=person.image_N[here], label=person.label_N[here], block=person.block_N[here],
                session=person.session_N[here], onset=person.onset_N[here],
            )  # fmt: skip
            if progress is not None:
                done = person.number - person.config.first_person + 1
                progress(done * person.n_blocks + block + 1, person.config.people * person.n_blocks, f"person {name}")


def _check(config: SimulateConfig) -> None:
    limits = {"people": (config.people, 1), "trials": (config.trials, 3), "drift": (config.drift, 0)}
    for name, (value, least) in limits.items():
        if value < least:
            raise UsageError(f"--{name} {value} is too small (least {least})", f"give --{name} {least} or more")
    if not -60 <= config.snr <= 60:
        raise UsageError(f"--snr {config.snr:g} dB is outside -60..60", "give a ratio in dB, for instance -6")

    if config.concepts and (config.block_order == "class" or config.sources == "linear"):
        what = "--block-order class" if config.block_order == "class" else "--sources linear"
        raise UsageError(f"{what} does not go with --concepts", "leave one of them out")
    usual = SimulateConfig(sources="linear")
    turned = [name for name in NETWORK_ONLY if getattr(config, name) != getattr(usual, name)]
    if config.sources == "linear" and turned:
        raise UsageError(
            f"--{turned[0]} is a dial of network sources, and --sources linear was given", f"leave --{turned[0]} out"
        )


def _check_images(images: ImageSet) -> None:
    counts = {name: len(getattr(images, name)) for name in ("images_NHWC", "labels_N", "names", "held_out_N", "features_ND")}
    if len(set(counts.values())) > 1:
        raise DataError(f"the image set does not fit together: {counts}", "give every image a label, a name and a feature vector")
    if images.part_N is not None:
        return
    for label, name in enumerate(images.classes):
        for held_out in (False, True):
            if not ((images.labels_N == label) & (images.held_out_N == held_out)).any():
                kind = "held-out" if held_out else "training"
                raise DataError(f"category {name!r} has 0 {kind} images (least 1)", "give every category images for both parts")


def _digest(array: np.ndarray) -> str:
    return sha256(np.ascontiguousarray(array).tobytes())[:16]


def _recordings(given: Sequence[Recording] | None) -> list[Recording]:
    return list(read_source("sample") if given is None else given)
