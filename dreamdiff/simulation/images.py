"""Loads the images that simulated people see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dreamdiff import embedded
from dreamdiff.diffusion.clip import load_clip
from dreamdiff.metrics.judges import load_classifier
from eegprep.errors import ModelError
from eegprep.provenance import sha256_json

DRIVER = "efficientnet-lite0"  # the network behind simulated sources; not the one that is decoded
DRIVER_FILE = "driver.npy"  # its principal scores of the shipped drawings (tools/embedded_model/driver.py)


@dataclass(frozen=True)
class ImageSet:
    """Images to show: (m, h, w, 3) uint8, labels, names, which are held out of training, and their (m, D) feature vectors.

    part_N: 0 train, 1 validation, 2 test for each image, where concepts are parted and not the images of each (`drawings`); else None.
    """

    images_NHWC: np.ndarray
    labels_N: np.ndarray
    names: tuple[str, ...]
    held_out_N: np.ndarray
    classes: tuple[str, ...]
    features_ND: np.ndarray
    features_from: str = "given"
    licence: str = "unknown"
    class_ids: tuple[str, ...] | None = None
    part_N: np.ndarray | None = None

    @classmethod
    def shipped(cls, clip: str = "embedded", *, network: str | None = None) -> ImageSet:
        """The drawings of 40 categories that ship with the package, with vectors of a network.

        Args:
            clip: see `load_clip`. network: instead of it, the features of an ImageNet classifier (see `load_classifier`);
                those of `DRIVER` ship with the drawings.
        """
        parts = [embedded.load_images("train"), embedded.load_images("held-out")]
        images = np.concatenate([part.images_NHWC for part in parts])
        records = [record for part in parts for record in part.records]
        if network == DRIVER:
            features, origin = _driver(len(images)), f"{DRIVER}, {DRIVER_FILE}"
        elif network is not None:
            reader = load_classifier(network)
            features, origin = reader.read(images).features_ND, f"{network} {sha256_json(sorted(reader.files.values()))[:16]}"
        else:
            target = load_clip(clip)
            features, origin = target.encode_images(images).numpy(), f"clip {target.fingerprint[:16]}"
        return cls(
            images_NHWC=images,
            labels_N=np.concatenate([part.labels_N for part in parts]),
            names=_unique([f"{r['category']}/{r['source']}-{r['drawing']}" for r in records]),
            # the second part is the held-out one
            held_out_N=np.concatenate([np.full(len(part), number == 1) for number, part in enumerate(parts)]),
            classes=tuple(embedded.categories()),
            class_ids=tuple(embedded.synsets()),
            features_ND=np.asarray(features),
            features_from=origin,
            licence=", ".join(sorted({str(record["licence"]) for record in records})),
        )


def _driver(count: int) -> np.ndarray:
    file = embedded.paths().images / DRIVER_FILE
    try:
        scores = np.load(file, allow_pickle=False)
    except (OSError, ValueError):
        raise ModelError(f"{file.name}: what drives simulated sources is not readable", "install the package again") from None
    if len(scores) != count:
        raise ModelError(f"{file.name} is for {len(scores)} drawings, there are {count}", "install the package again")
    return np.asarray(scores)


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return tuple(out)
