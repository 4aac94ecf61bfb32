"""What an encoder knows: simple classifiers on its frozen features, on people or recordings it never saw.

A number means little alone, so each comes with its interval, with the same classifiers on a randomly initialised encoder of the same
shape and on band power (what a paper from 1995 would use), and with chance.

Shapes: N windows, C channels, T samples, L tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from torch import nn

from dreamdiff.devices import choose_device
from dreamdiff.eeg_input import SignalConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.estimators.carriers import Carriers, carriers
from dreamdiff.estimators.scores import judge
from dreamdiff.pairs.format import is_pairs
from dreamdiff.pairs.view import corpus_url
from dreamdiff.pretraining.pretrain import recording_names, recording_scales
from dreamdiff.rates import ModelWindows
from dreamdiff.spectra import CORPUS_BANDS, band_pass
from eegprep.corpus.doubles import same_recordings
from eegprep.corpus.reader import Corpus
from eegprep.corpus.views import source_rows
from eegprep.errors import DataError, StoreError, UsageError
from eegprep.recording import ProgressCallback
from eegprep.store.commit import read_root

HoldOut = Literal["person", "recording"]

FOLDS = 5

NEIGHBOURS = 15


@dataclass(frozen=True)
class ProbeRow:
    """Balanced accuracy of one classifier on one kind of features.

    low, high: 95 % bootstrap interval over held-out groups (over windows when there are fewer than 5 groups).
    chance_low, chance_high: where 95 % of scores lie when the labels are shuffled within each group.
    """

    features: str
    classifier: str
    balanced_accuracy: float
    low: float
    high: float
    chance_low: float
    chance_high: float


@dataclass(frozen=True)
class ProbeReport:
    """All rows, what they were measured on, and where it was too little for what a row is called.

    carriers: which stretch of the windows and which electrodes carry what a light decoder finds.
    """

    rows: tuple[ProbeRow, ...]
    labels: tuple[str, ...]
    windows: int
    groups: int
    hold_out: HoldOut
    interval_over: str
    notes: tuple[str, ...] = ()
    carriers: Carriers | None = None

    @property
    def chance(self) -> float:
        """Balanced accuracy of a guess."""
        return 1.0 / len(self.labels)

    def to_dict(self) -> dict[str, object]:
        content = {name: value for name, value in asdict(self).items() if name != "carriers"}
        return {**content, "chance": self.chance, "carriers": None if self.carriers is None else self.carriers.to_json()}


def probe(
    model: str | Path | nn.Module,
    store: str | Path | Corpus,
    *,
    labels: Sequence[str] | None = None,
    hold_out: HoldOut = "person",
    seed: int = 0,
    device: str = "auto",
    strict_rate: bool = False,
    progress: ProgressCallback | None = None,
) -> ProbeReport:
    """Judge a frozen encoder by the labels a corpus carries.

    Args:
        model: folder of an encoder or a pre-training run; or an encoder, (B, C, T) uV -> (B, L, D).
        store: a corpus with labels.
        labels: which to tell apart; all that occur when left out. Windows with other labels or none are left out.
        hold_out: what the test windows share with no training window: people, or recordings.
        seed: of the random encoder, the folds and the resampling.
        device: that the encoder runs on, see `choose_device`.
        strict_rate: refuse windows of another sampling rate than the encoder's, which are resampled otherwise.
        progress: called with (done, total, message).

    Raises:
        DataError: fewer than two labels, or fewer than two groups to hold out. ModelError: a rate that the encoder does not read.
    """
    if not isinstance(store, Corpus):
        _refuse_pairs(Path(store))
    corpus = store if isinstance(store, Corpus) else Corpus.open(str(store))
    encoder = model if isinstance(model, nn.Module) else EEGEncoder.from_pretrained(model)
    place = choose_device(device)
    corpus, label_N, group_N = _labelled(corpus, labels, hold_out)
    group_N, doubles = _together(corpus, group_N)
    windows = model_windows(encoder, corpus, strict_rate)
    kinds = {
        "this encoder": lambda: encoder_features(encoder, windows, place),
        "random encoder": lambda: encoder_features(_untrained(encoder, seed), windows, place),
        "band power": lambda: band_power(corpus),
    }
    rows: list[ProbeRow] = []
    interval_over = "groups" if len(set(group_N)) >= FOLDS else "windows"
    for number, (name, make) in enumerate(kinds.items()):
        features_ND = make()
        for title, classifier in _classifiers().items():
            if progress:
                progress(len(rows), 2 * len(kinds), f"{name}, {title}")
            guess_N = held_out_guesses(classifier, features_ND, label_N, group_N, seed)
            rng = np.random.default_rng([seed, number])
            rows.append(ProbeRow(name, title, *judge(label_N, guess_N, group_N, interval_over, rng)))
    names = tuple(sorted(set(label_N)))
    carried, why = _carried(corpus, label_N, group_N, seed, progress)
    notes = (*windows.notes, *doubles, *_shortages(label_N, group_N, seed), *why, *(carried.warnings if carried else ()))
    return ProbeReport(tuple(rows), names, len(label_N), len(set(group_N)), hold_out, interval_over, notes, carried)


def _refuse_pairs(store: Path) -> None:
    """Raise StoreError for EEG-image pairs; a view of a corpus says which corpus that is."""
    if not is_pairs(store):
        return
    view = read_root(store)["attributes"].get("corpus")
    behind = (
        f"give the corpus that it is a view of, {corpus_url(store, str(view['url']))}"
        if isinstance(view, dict)
        else "give a corpus"
    )
    raise StoreError(
        f"{store}: EEG-image pairs, not a corpus", f"{behind}, or judge pairs with `dreamdiff retrieve` or `dreamdiff evaluate`"
    )


def model_windows(encoder: nn.Module, corpus: Corpus, strict: bool = False) -> ModelWindows:
    """The windows at the rate of the encoder, if it says one."""
    config, signal = getattr(encoder, "config", None), getattr(encoder, "signal", SignalConfig())
    return ModelWindows(corpus, signal, int(getattr(config, "window", corpus.samples)), strict=strict)


def _together(corpus: Corpus, group_N: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Groups that hold the same recording under two names become one group, which is held out whole."""
    name_N, group_N, notes = recording_names(corpus).astype(str), np.array(group_N, object), []
    for double in same_recordings(corpus):
        groups = sorted({str(group) for group in group_N[np.isin(name_N, double.recordings)]})
        if len(groups) > 1:
            notes.append(f"{double.sentence}; {' and '.join(groups)} are held out together")
            group_N[np.isin(group_N, groups)] = groups[0]
    if len(set(group_N)) < 2:
        raise DataError(f"{corpus.url}: all groups hold the same recording; nothing is left to hold out", "add data")
    return group_N.astype(str), tuple(notes)


def _carried(
    corpus: Corpus, label_N: np.ndarray, group_N: np.ndarray, seed: int, progress: ProgressCallback | None
) -> tuple[Carriers | None, tuple[str, ...]]:
    """Which part of the windows carries the labels; windows of trials begin at their event. Or None, and why."""
    table = corpus.recordings
    rates = sorted(set(table["sfreq"]))
    if len(rates) > 1:
        return None, (f"which seconds carry it was not looked at: windows at {', '.join(f'{r:g}' for r in rates)} Hz",)
    folds = [(train, test) for train, test in _folds(label_N, group_N, seed) if len(set(label_N[train])) > 1 and len(train) > 2]
    if not folds:
        return None, ("which seconds carry it was not looked at: no fold trains on two labels",)
    rows, channels = _own_channels(corpus)
    x_NCT = np.concatenate(
        [corpus.read(part)[:, rows] for part in np.array_split(np.arange(len(corpus)), -(-len(corpus) // 256))]
    )
    person_N = np.array(corpus.keys, object)[corpus.group_of(np.arange(len(corpus)))].astype(str)
    first = 0.0 if corpus.attributes["recipe"].get("windows") == "trials" else None
    result = carriers(
        x_NCT, label_N, person_N, folds, sfreq=rates[0], first=first, channels=channels, unit_N=group_N, seed=seed, progress=progress
    )  # fmt: skip
    return result, ()


def _own_channels(corpus: Corpus) -> tuple[np.ndarray, list[str] | None]:
    """Rows of a window that hold the recordings' own channels, and their names; all rows without names where caps differ."""
    try:
        named = len(corpus.channel_names)
    except UsageError:
        return np.arange(corpus.channels), None
    rows, names = source_rows(corpus.record(0), corpus.channels)
    return rows, names if len(names) == named else None


def _shortages(label_N: np.ndarray, group_N: np.ndarray, seed: int) -> tuple[str, ...]:
    """Folds whose training part is smaller than the classifiers ask for."""
    notes = []
    sizes = [(len(train), len(set(label_N[train]))) for train, _ in _folds(label_N, group_N, seed)]
    least = min(size for size, _ in sizes)
    if least < NEIGHBOURS:
        few = sum(1 for size, _ in sizes if size < NEIGHBOURS)
        notes.append(
            f"{few} of {len(sizes)} folds train on fewer than {NEIGHBOURS} windows (the smallest on {least}): all of them are neighbours"
        )
    single = sum(1 for _, labels in sizes if labels < 2)
    if single:
        notes.append(
            f"{single} of {len(sizes)} folds train on one label only, and guess it; use --hold-out recording, or --labels"
        )
    return tuple(notes)


@torch.no_grad()
def encoder_features(
    encoder: nn.Module, windows: Corpus | ModelWindows, device: str | torch.device = "cpu", batch_size: int = 64
) -> np.ndarray:
    """Mean and standard deviation over tokens of what the encoder says about each window: (N, 2 D)."""
    windows = windows if isinstance(windows, ModelWindows) else model_windows(encoder, windows)
    corpus = windows.corpus
    encoder = encoder.to(device).eval()
    robust = getattr(getattr(encoder, "config", None), "scaling", "none") == "robust"
    scale_N = recording_scales(corpus) if robust else None
    rows = []
    for first in range(0, len(corpus), batch_size):
        index_B = np.arange(first, min(first + batch_size, len(corpus)))
        eeg_BCT = torch.from_numpy(windows.read(index_B)).to(device)
        tokens_BLD = encoder(eeg_BCT) if scale_N is None else encoder(eeg_BCT, scale_B=scale_N[index_B].to(device))
        rows.append(torch.cat([tokens_BLD.mean(1), tokens_BLD.std(1, correction=0)], dim=1).float().cpu().numpy())
    return np.concatenate(rows)


def band_power(corpus: Corpus, batch_size: int = 64) -> np.ndarray:
    """Logarithm of the power of each channel in each band: (N, bands x C)."""
    rows = []
    for first in range(0, len(corpus), batch_size):
        index_B = np.arange(first, min(first + batch_size, len(corpus)))
        eeg_BCT = corpus.read(index_B)
        sfreq_B = np.array([corpus.record(int(i))["sfreq"] for i in index_B])
        powers = [np.square(band_pass(eeg_BCT, sfreq_B, low, high)).mean(axis=-1) for low, high in CORPUS_BANDS.values()]
        rows.append(np.log(np.concatenate(powers, axis=1) + 1e-6))
    return np.concatenate(rows).astype(np.float32)


def held_out_guesses(classifier: Any, features_ND: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, seed: int) -> np.ndarray:
    """Each window's label as guessed by a classifier that was fitted without the window's group."""
    guess_N = np.empty_like(label_N)
    for train, test in _folds(label_N, group_N, seed):
        if len(set(label_N[train])) < 2:
            guess_N[test] = label_N[train][0]
            continue
        if isinstance(classifier, Pipeline) and "kneighborsclassifier" in classifier.named_steps:
            classifier = clone(classifier).set_params(kneighborsclassifier__n_neighbors=min(NEIGHBOURS, len(train)))
        guess_N[test] = classifier.fit(features_ND[train], label_N[train]).predict(features_ND[test])
    return guess_N


def _folds(label_N: np.ndarray, group_N: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training windows, test windows) of each fold; a group is in one of them only."""
    folds = GroupKFold(n_splits=min(FOLDS, len(set(group_N))), shuffle=True, random_state=seed)
    return list(folds.split(np.zeros((len(label_N), 1)), label_N, group_N))


def _classifiers() -> dict[str, object]:
    linear = LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
    neighbours = KNeighborsClassifier(n_neighbors=NEIGHBOURS, weights="distance")
    return {
        "linear": make_pipeline(StandardScaler(), linear),
        f"{NEIGHBOURS} neighbours": make_pipeline(StandardScaler(), Normalizer(), neighbours),
    }


def _labelled(corpus: Corpus, labels: Sequence[str] | None, hold_out: HoldOut) -> tuple[Corpus, np.ndarray, np.ndarray]:
    """The windows that count, their labels, and what is held out together."""
    label_N = corpus.labels
    keep = np.array([label is not None and (labels is None or label in labels) for label in label_N])
    names = sorted({str(label) for label in label_N[keep]})
    if len(names) < 2:
        raise DataError(
            f"{corpus.url}: a probe needs two labels, there are {len(names)} ({', '.join(names) or 'no labelled windows'})",
            "use a corpus with labels, such as PhysionetMI's, or name two that it has",
        )
    chosen = corpus.take(np.flatnonzero(keep))
    if hold_out == "recording":
        group_N = recording_names(chosen).astype(str)
    else:
        table = chosen.subjects
        person_of = dict(zip(table["dataset"] + "/" + table["subject"], table["person"], strict=True))
        group_N = np.array([person_of[chosen.keys[group]] for group in chosen.group_of(np.arange(len(chosen)))]).astype(str)
    if len(set(group_N)) < 2:
        raise DataError(
            f"{corpus.url}: one {hold_out} cannot be held out and trained on", "add data, or --hold-out recording, or both"
        )
    return chosen, label_N[keep].astype(str), group_N


def _untrained(encoder: nn.Module, seed: int) -> nn.Module:
    """An encoder of the same shape that has learned nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return type(encoder)(encoder.config)  # type: ignore[arg-type]
