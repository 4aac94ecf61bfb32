"""Makes pairs whose EEG is a code of the class: the row of section 4.4 in which the network is told the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter

MIXED_SIZE = 256  # pixels along the side, where the images of a store have different sizes: a store of pixels has one


def label_pairs(pairs: Pairs, out: Path) -> Path:
    """The same trials and images with a code of the class in place of the EEG: what a network reaches that is told the label.

    Every class has a fixed pattern over channels and time, drawn once, with the amplitude of EEG; all its trials are equal.
    """
    channels, samples = pairs.eeg_shape
    recipe = {"made_by": "label-input", "of": pairs.fingerprint}
    writer = PairsWriter(
        out,
        recipe=recipe,
        classes=pairs.classes,
        provenance="simulated",
        licence=pairs.licence,
        channels=channels,
        samples=samples,
    )
    if writer.complete:
        return out
    code_KCT = 10 * np.random.default_rng(0).standard_normal((len(pairs.classes), channels, samples)).astype(np.float32)
    with writer:
        numbers = range(len(pairs.image_sha256))
        sizes = {pairs.load_images([number]).shape for number in numbers}
        images_NHWC = pairs.load_images(numbers, size=None if len(sizes) == 1 else MIXED_SIZE)
        writer.set_images(images_NHWC, [f"image {number}" for number in numbers])
        for number, name in enumerate(pairs.subjects):
            own = np.flatnonzero(pairs.person == number)
            kept = {key: value for key, value in pairs.attributes[name].items() if key in ("sfreq", "t0", "channels", "band")}
            if not writer.done(name, "label-input"):
                with writer.subject(name, "label-input", {**kept, "unit": "uV"}) as target:
                    for part in np.array_split(own, max(1, len(own) // 256)):
                        target.add(code_KCT[pairs.labels[part]], image=pairs.image[part], label=pairs.labels[part])
        writer.finish(pairs.splits)
    return out
