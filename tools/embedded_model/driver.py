"""What drives the simulated sources for the shipped drawings, computed once: `python -m tools.embedded_model.driver`.

Principal scores of EfficientNet-Lite0's features of all drawings, training drawings first; a simulation takes 48 of the 64. They save every
simulation the 257 passes through the network.
"""

from __future__ import annotations

import io

import numpy as np

from dreamdiff.embedded import load_images, paths
from dreamdiff.metrics.judges import load_classifier
from dreamdiff.simulation.images import DRIVER, DRIVER_FILE
from eegprep.atomic import write_bytes

KEPT = 64


def driver_scores() -> np.ndarray:
    """(N, KEPT) float32: centred features on their first principal axes."""
    images = np.concatenate([load_images("train").images_NHWC, load_images("held-out").images_NHWC])
    features = load_classifier(DRIVER).read(images).features_ND.astype(np.float64)
    left, singular, _ = np.linalg.svd(features - features.mean(0), full_matrices=False)
    return (left[:, :KEPT] * singular[:KEPT]).astype(np.float32)


def main() -> None:
    """Write the file beside the drawings."""
    buffer = io.BytesIO()
    np.save(buffer, driver_scores(), allow_pickle=False)
    write_bytes(paths().images / DRIVER_FILE, buffer.getvalue())


if __name__ == "__main__":
    main()
