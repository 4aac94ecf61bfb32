"""EEG files for tests: a believable signal, written as EDF with known values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edfio import Bdf, BdfSignal, Edf, EdfAnnotation, EdfSignal

from eegprep.recording import Event, Recording

NAMES = [
    "Fp1",
    "Fp2",
    "F7",
    "F3",
    "Fz",
    "F4",
    "F8",
    "T7",
    "C3",
    "Cz",
    "C4",
    "T8",
    "P7",
    "P3",
    "Pz",
    "P4",
    "P8",
    "O1",
    "Oz",
    "O2",
    "FC1",
    "FC2",
    "FC5",
    "FC6",
    "CP1",
    "CP2",
    "CP5",
    "CP6",
    "AF3",
    "AF4",
    "PO3",
    "PO4",
    "F1",
    "F2",
    "F5",
    "F6",
    "FC3",
    "FC4",
    "FCz",
    "C1",
    "C2",
    "C5",
    "C6",
    "CP3",
    "CP4",
    "CPz",
    "P1",
    "P2",
    "P5",
    "P6",
    "PO7",
    "PO8",
    "POz",
    "FT7",
    "FT8",
    "TP7",
    "TP8",
    "AF7",
    "AF8",
    "AFz",
    "FT9",
    "FT10",
    "TP9",
    "TP10",
]


def eeg(n_channels: int, n_samples: int, sfreq: float, seed: int = 0, uv: float = 20.0) -> np.ndarray:
    """(channels, samples) uV: noise that falls with frequency, a rhythm at 10 Hz, and noise of each channel's own."""
    rng = np.random.default_rng(seed)
    frequencies = np.maximum(np.fft.rfftfreq(n_samples, 1 / sfreq), 0.5)
    shape = (n_channels, len(frequencies))
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(frequencies)
    signal_CT = np.fft.irfft(spectrum, n_samples, axis=1)
    signal_CT /= signal_CT.std(axis=1, keepdims=True) + 1e-12
    signal_CT += np.sin(2 * np.pi * 10 * np.arange(n_samples) / sfreq)
    return uv * signal_CT


def names(n_channels: int) -> list[str]:
    """Names of electrodes; beyond 64 they are only numbered."""
    return [NAMES[i] if i < len(NAMES) else f"X{i}" for i in range(n_channels)]


def write_edf(
    path: Path,
    signal_CT: np.ndarray,
    sfreq: float,
    channels: list[str] | None = None,
    events: list[tuple[float, float, str]] | None = None,
) -> Path:
    """Write whole seconds of a signal in uV as EDF+ (or BDF+, by the suffix) with annotations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = int(signal_CT.shape[1] // sfreq * sfreq)
    kind, signal_kind = (Bdf, BdfSignal) if path.suffix == ".bdf" else (Edf, EdfSignal)
    signals = [
        signal_kind(row[:whole], sfreq, label=name, physical_dimension="uV", physical_range=(-3276.8, 3276.7))
        for row, name in zip(np.clip(signal_CT, -3276, 3276), channels or names(len(signal_CT)), strict=True)
    ]
    kind(signals, annotations=[EdfAnnotation(*event) for event in events or []]).write(path)
    return path


def write_people(folder: Path, count: int, *, n_channels: int = 4, seconds: int = 12, sfreq: int = 200, runs: int = 1) -> str:
    """EDF files of several people, `sub-NN_run-M.edf`; returns the SOURCE that names them."""
    for person in range(1, count + 1):
        for run in range(1, runs + 1):
            signal_CT = eeg(n_channels, seconds * sfreq, sfreq, seed=100 * person + run)
            write_edf(
                folder / f"sub-{person:02d}_run-{run}.edf", signal_CT, sfreq, events=[(0.0, 4.0, "left"), (5.0, 4.0, "right")]
            )
    return f"files:{folder}/*.edf"


def recording(
    signal_CT: np.ndarray,
    sfreq: float = 200.0,
    channels: list[str] | None = None,
    events: list[tuple[float, float, str]] | None = None,
) -> Recording:
    """A recording in memory."""
    n_channels, n_samples = signal_CT.shape
    return Recording(
        signal_CT=signal_CT.astype(np.float32),
        sfreq=sfreq,
        channels=tuple(channels or names(n_channels)),
        dataset="made",
        subject="1",
        session="0",
        run="0",
        positions_C3=np.full((n_channels, 3), np.nan),
        original_sfreq=sfreq,
        events=tuple(Event(*event) for event in events or []),
        segments=((0, n_samples),),
    )
