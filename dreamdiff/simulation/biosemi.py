"""BioSemi recordings with stimulus logs and pictures, simulated: what a laboratory has on its disk, for tutorials and tests.

Each trial is 1/f noise with alpha on an offset of some mV, as DC amplifiers have, plus a wave of 12 uV at electrodes that depend on the category of the
picture. 24-bit BDF as in BioSemi's description: 32 electrodes A1 ... A32 and `Status`, whose low 16 bits hold the number of the picture.
Shapes: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dreamdiff import embedded
from eegprep.atomic import write_bytes, write_text

ELECTRODES = 32
LIMIT_UV = 262_144  # of the 24-bit range: 31.25 nV a step
FIRST_S, EVERY_S = 1.0, 1.25  # onset of the first picture, and from one to the next
WAVE_UV, WAVE_S = 12.0, (0.08, 0.38)  # of the response, after the onset


def write_lab(
    folder: str | Path, *, people: int = 2, runs: int = 2, categories: int = 4, pictures: int = 6, sfreq: int = 512, seed: int = 0
) -> list[Path]:
    """Write `P01_run1.bdf`, `P01_run1_log.csv`, ... and the folder `stimuli`; simulated, and said so in the headers.

    Args:
        categories, pictures: of the drawings that ship with the package, and how many of each, at most; every run shows each picture once.

    Returns:
        the recordings.
    """
    rng = np.random.default_rng(seed)
    place = Path(folder)
    (place / "stimuli").mkdir(parents=True, exist_ok=True)
    parts, kinds = [embedded.load_images("train"), embedded.load_images("held-out")], embedded.categories()
    images_NHWC, labels_N = np.concatenate([p.images_NHWC for p in parts]), np.concatenate([p.labels_N for p in parts])
    names: list[str] = []
    kinds_N: list[int] = []
    for label in range(categories):
        for number, index in enumerate(np.flatnonzero(labels_N == label)[:pictures], 1):
            name = f"{kinds[label].replace(' ', '-')}_{number}.png"
            Image.fromarray(images_NHWC[index]).save(place / "stimuli" / name)
            names.append(name)
            kinds_N.append(label)
    maps_KC = np.random.default_rng(1).normal(size=(categories, ELECTRODES))  # the same for everybody
    written = []
    for person in range(1, people + 1):
        for run in range(1, runs + 1):
            order = rng.permutation(len(names))
            stem = f"P{person:02d}_run{run}"
            signal_CT, status_T = _run(order, np.array(kinds_N)[order], maps_KC, sfreq, rng)
            write_bytes(place / f"{stem}.bdf", _bdf(signal_CT, status_T, sfreq))
            rows = [
                f"{trial},{names[k]},{names[k].rpartition('_')[0]},{k + 1},{FIRST_S + EVERY_S * (trial - 1) + 60:.3f}"
                for trial, k in enumerate(order, 1)
            ]
            write_text(place / f"{stem}_log.csv", "\n".join(["trial,image_file,category,trigger,time", *rows]) + "\n")
            written.append(place / f"{stem}.bdf")
    return written


def _run(
    order: np.ndarray, category_N: np.ndarray, maps_KC: np.ndarray, sfreq: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(C, T) uV and (T,) status of one run."""
    samples = sfreq * int(np.ceil(FIRST_S + EVERY_S * len(order) + 1))
    spectrum_CF = np.fft.rfft(rng.normal(size=(ELECTRODES, samples))) / np.maximum(np.arange(samples // 2 + 1), 20) ** 0.5
    signal_CT = np.fft.irfft(spectrum_CF, samples)
    signal_CT *= 8 / signal_CT.std(axis=1, keepdims=True)
    alpha_T = np.sin(2 * np.pi * 10 * np.arange(samples) / sfreq)
    signal_CT += 5 * alpha_T * rng.uniform(0.2, 1, (ELECTRODES, 1)) + 3000
    status_T = np.full(samples, 1 << 20)  # CMS in range
    first, last = (round(time * sfreq) for time in WAVE_S)
    wave_T = np.hanning(last - first)
    for trial, (picture, category) in enumerate(zip(order, category_N, strict=True)):
        onset = round((FIRST_S + EVERY_S * trial) * sfreq)
        status_T[onset : onset + sfreq // 50] |= int(picture) + 1
        signal_CT[:, onset + first : onset + last] += WAVE_UV * maps_KC[category][:, None] * wave_T
    return signal_CT, status_T


def _bdf(signal_CT: np.ndarray, status_T: np.ndarray, sfreq: int) -> bytes:
    """A BDF file with one record a second."""
    labels = [*(f"A{k}" for k in range(1, len(signal_CT) + 1)), "Status"]
    n, seconds, largest = len(labels), signal_CT.shape[1] // sfreq, 8_388_607

    def fields(values: Sequence[object], width: int) -> bytes:
        return "".join(f"{value!s:<{width}}"[:width] for value in values).encode("ascii")

    low, high = [-LIMIT_UV] * (n - 1) + [-largest - 1], [LIMIT_UV] * (n - 1) + [largest]
    header = b"\xffBIOSEMI" + fields(["simulated", "simulated"], 80) + fields(["01.01.24", "10.00.00", 256 * (n + 1)], 8)
    header += fields(["24BIT"], 44) + fields([seconds, 1], 8) + fields([n], 4) + fields([*labels], 16)
    header += fields(["Active Electrode"] * n, 80) + fields(["uV"] * (n - 1) + ["Boolean"], 8)
    header += fields([*low], 8) + fields([*high], 8) + fields([-largest - 1] * n, 8) + fields([largest] * n, 8)
    header += fields(["HP: DC; LP: 113 Hz"] * n, 80) + fields([sfreq] * n, 8) + fields([""] * n, 32)
    steps_CT = np.vstack([np.round(signal_CT * (largest / LIMIT_UV)), status_T]).astype("<i4")
    records = steps_CT.reshape(n, seconds, sfreq).swapaxes(0, 1)
    return header + records.copy().view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
