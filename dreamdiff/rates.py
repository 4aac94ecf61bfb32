"""One rule for the sampling rate, in every stage.

A model stores the rate that it was trained at, and all of them where there were several (`SignalConfig`). EEG at one of these is read as it
is. EEG at another rate is resampled to the model's own by the code of `eegprep filter --resample`, and the model's window is taken from its
first sample on; one line says so, and `strict` refuses. What is too short for that is refused where a model is used. Where it is trained
further it is read sample by sample, as the paper's encoder reads ImageNet-EEG, and one line says that.

Shapes: N trials, C channels, T samples as stored, W samples that the model reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dreamdiff.eeg_input import RateShare, SignalConfig
from eegprep.corpus.rates import TOKEN, corpus_rates
from eegprep.corpus.reader import Corpus
from eegprep.errors import ModelError
from eegprep.signals.filters import resample, same_rate


@dataclass(frozen=True)
class RateChange:
    """How stored windows become windows of a model.

    sfreq, to: Hz; `to` is None where samples are read as they are. samples: that the model reads. note: for people, "" where the
    rates agree.
    """

    sfreq: float | None
    to: float | None
    samples: int
    note: str = ""

    def apply(self, eeg_NCT: np.ndarray) -> np.ndarray:
        """(N, C, T) at `sfreq` -> (N, C, samples) float32 at `to`."""
        if self.to is None or self.sfreq is None:
            return eeg_NCT
        n, channels = eeg_NCT.shape[:2]
        out = np.empty((n, channels, self.samples), np.float32)
        for trial_CT, made_CT in zip(eeg_NCT, out, strict=True):
            distinct, place = _distinct_rows(trial_CT)
            made_CT[...] = resample(trial_CT[distinct], self.sfreq, self.to)[:, : self.samples][place]
        return out


def plan_rate(
    source: str, sfreq: float | None, samples: int, signal: SignalConfig, window: int, *, strict: bool = False,
    trainable: bool = False,
) -> RateChange:  # fmt: skip
    """How windows of `samples` at `sfreq` Hz are brought to a model that reads `window` samples of `signal`.

    Args:
        source: for messages. sfreq: None where it is not known; then samples are read as they are, as for a model without a rate.
        strict: refuse another rate. trainable: the model is about to be trained on them.

    Raises:
        ModelError: another rate under `strict`, or windows that are too short in time; with both numbers.
    """
    own = signal.sfreq
    if sfreq is None or own is None or known_rate(sfreq, signal):
        return RateChange(sfreq, None, samples)
    problem = f"{source}: sampled at {sfreq:g} Hz, the model was trained at {own:g} Hz"
    if strict:
        raise ModelError(
            f"{problem}, and --strict-rate refuses other rates",
            f"build it with --resample {own:g} (eegprep filter, eegprep build, pairs import), or leave --strict-rate out",
        )
    length = round(samples * own / sfreq)
    has, reads = 1000 * samples / sfreq, 1000 * window / own
    if length >= window:
        taken = "" if length == window else f"; of each window's {has:.0f} ms the first {reads:.0f} are read"
        return RateChange(sfreq, own, window, f"{problem}: resampled to {own:g} Hz{taken}")
    if trainable and samples == window:
        return RateChange(sfreq, None, samples, (
            f"{problem}: its trials of {has:.0f} ms are shorter than the model's windows of {reads:.0f} ms and are read sample by sample, "
            f"so that a token of {TOKEN} samples is {1000 * TOKEN / sfreq:.3g} ms instead of {1000 * TOKEN / own:.3g}"
        ))  # fmt: skip
    raise ModelError(
        f"{problem}, and windows of {samples} samples ({has:.0f} ms) are shorter than the model's {window} ({reads:.0f} ms)",
        f"cut windows of at least {math.ceil(window * sfreq / own)} samples (--window), or use a model of shorter windows",
    )


def known_rate(sfreq: float, signal: SignalConfig) -> bool:
    """Whether a model was trained at this rate, Hz."""
    own = () if signal.sfreq is None else (signal.sfreq,)
    return any(same_rate(sfreq, other) for other in (*own, *(share.sfreq for share in signal.rates)))


def shares(counts: Mapping[float, int]) -> tuple[RateShare, ...]:
    """`eegprep.corpus.rates.count_rates` as a model keeps them."""
    return tuple(RateShare(sfreq=rate, windows=windows) for rate, windows in counts.items())


class ModelWindows:
    """Windows of a corpus as a model reads them. notes: a sentence for each rate that is not the model's.

    Raises:
        ModelError: see `plan_rate`.
    """

    def __init__(self, corpus: Corpus, signal: SignalConfig, window: int, *, strict: bool = False) -> None:
        self.corpus = corpus
        self._plans = {
            rate: plan_rate(corpus.url, rate, corpus.samples, signal, window, strict=strict) for rate in corpus_rates(corpus)
        }
        self.notes = tuple(dict.fromkeys(plan.note for plan in self._plans.values() if plan.note))
        self.samples = window if self.notes else corpus.samples
        same = [rate for rate, plan in self._plans.items() if plan.to is None]
        if self.notes and same and corpus.samples != window:
            raise ModelError(
                f"{corpus.url}: windows of {corpus.samples} samples at {same[0]:g} Hz, the model reads {window}",
                f"cut windows of {window} samples (--window)",
            )

    def read(self, indices: np.ndarray) -> np.ndarray:
        """(N, C, samples) float32 uV."""
        stored_NCT = self.corpus.read(indices)
        if not self.notes:
            return stored_NCT
        out = np.empty((*stored_NCT.shape[:2], self.samples), np.float32)
        rate_N = np.array([float(self.corpus.record(int(index))["sfreq"]) for index in np.asarray(indices).reshape(-1)])
        for rate, plan in self._plans.items():
            of_rate = np.isclose(rate_N, rate, rtol=1e-4)
            out[of_rate] = plan.apply(stored_NCT[of_rate])
        return out


def _distinct_rows(trial_CT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that differ, and for every row its place among them: caps of few channels fill a window with copies."""
    rows = [row.tobytes() for row in np.ascontiguousarray(trial_CT)]
    first = {content: number for number, content in reversed(list(enumerate(rows)))}
    chosen = sorted(first.values())
    place = {number: index for index, number in enumerate(chosen)}
    return np.array(chosen), np.array([place[first[content]] for content in rows])
