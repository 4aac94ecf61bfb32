"""The section `fusion` of benchmarks/motor_imagery.py: what might still lift a learned model above the mirrored log-power map.

Every source gives one decision value a trial of people who are in none of its fits; a late fusion adds the values of its sources, each
divided by its spread over the test person's trials (no labels). Adaptation changes the map by the test person's trials without labels.
Sources, fusions and adaptations are fixed here; what is chosen by a score is chosen on people of the training folds alone.

Shapes: N trials, C channels, T samples, B bands, F filters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from motor_imagery import RATE, Cells, Trials, electrode_rows, features, fitted, folds, logistic, methods, per_person, summary
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dreamdiff.estimators.checks import mirror_map
from dreamdiff.estimators.classifier import EEGClassifier
from dreamdiff.estimators.features import EEGFeatures
from dreamdiff.estimators.steps import IMAGERY_BANDS, Mirror, centred
from dreamdiff.whitening import band_passed, covariances, whiten_each
from eegprep import atomic

MAP, CSP_LDA, FROZEN = "mirrored log-power map", "aligned CSP + LDA", "encoder of the package, frozen, mirrored"
TUNED, WIDE = (
    "encoder of the package, fine-tuned, mirrored, 21 electrodes",
    "encoder of the package, fine-tuned, mirrored, 64 electrodes",
)
FILTERS = "learned filters, started at the map"
FUSIONS = (
    (MAP, CSP_LDA),
    (MAP, FROZEN),
    (MAP, CSP_LDA, FROZEN),
    (MAP, TUNED),
    (MAP, FILTERS),
    (MAP, CSP_LDA, FROZEN, TUNED),
)
MEMBERS = 2  # networks whose decision values are added
STEPS, EVERY = 40, 5  # of learning the filters, and how often it may stop

Decide = Callable[[Trials, np.ndarray, np.ndarray, int], np.ndarray]


def fusion(out: Path, trials: Trials, cells: Cells, seeds: Sequence[int]) -> None:
    """All sources, then their fusions, then adaptation; each against the map, paired over people."""
    known = _Decisions(out / "decisions", trials, seeds)
    for name in SOURCES:
        _row(cells, f"fusion: {name}", trials, lambda name=name: known.of(name))
    for names in FUSIONS:
        _row(cells, f"fusion: {' + '.join(names)}", trials, lambda names=names: sum(_unit(trials, known.of(n)) for n in names))
    for name, adapt in ADAPTATIONS.items():
        _row(cells, f"test time: {name}", trials, lambda adapt=adapt: adapt(known))


def _row(cells: Cells, name: str, trials: Trials, decide: Callable[[], np.ndarray]) -> None:
    """One cell from decision values of every fold seed, (seeds, N); right where positive."""

    def score() -> dict[str, float]:
        people = [per_person(trials, (decision_N > 0).astype(int)) for decision_N in decide()]
        return {person: float(np.mean([one[person] for one in people])) for person in people[0]}

    found = cells.get(name, score)
    if name != f"fusion: {MAP}":
        print(f"    to the map: {summary(found, cells.cells[f'fusion: {MAP}'])}")


def _unit(trials: Trials, decision_SN: np.ndarray) -> np.ndarray:
    """Values of unit spread over every person's trials; where zero lies is left."""
    result = np.array(decision_SN)
    for person in trials.people:
        own = trials.person_N == person
        result[:, own] /= np.maximum(result[:, own].std(1, keepdims=True), 1e-12)
    return result


class _Decisions:
    """Decision values by source and fold seed, kept on disk."""

    def __init__(self, folder: Path, trials: Trials, seeds: Sequence[int]) -> None:
        self.folder, self.trials, self.seeds = folder, trials, seeds
        folder.mkdir(parents=True, exist_ok=True)
        self.made: dict[str, np.ndarray] = {}

    def of(self, name: str) -> np.ndarray:
        """(seeds, N)."""
        return np.stack([self._seed(name, seed) for seed in self.seeds])

    def _seed(self, name: str, seed: int) -> np.ndarray:
        file = self.folder / f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}-{seed}.json"
        if not file.is_file():
            prepare, decide = SOURCES[name]
            if name not in self.made:
                self.made[name] = prepare(self.trials)
            decision_N = np.empty(len(self.trials.y_N))
            for part in folds(self.trials.people, seed):
                test = np.isin(self.trials.person_N, part)
                decision_N[test] = decide(self.trials, self.made[name], test, seed)
            atomic.write_json(file, {"source": name, "seed": seed, "decisions": decision_N.tolist()})
        return np.array(json.loads(file.read_text())["decisions"])


def _closed(name: str) -> tuple[Callable[[Trials], np.ndarray], Decide]:
    method = methods()[name]

    def decide(trials: Trials, made: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
        model = fitted(method, trials, made[~test], trials.y_N[~test], trials.person_N[~test])
        return np.asarray(model.decision_function(made[test]))  # type: ignore[attr-defined]

    return lambda trials: features(trials, method), decide


def _frozen_features(trials: Trials) -> np.ndarray:
    """Of the package's encoder, minus their mirror image: (N, C x D), channels fastest."""
    made_ND = EEGFeatures(sfreq=RATE, channels=list(trials.channels)).fit_transform(trials.x_NCT, groups=trials.person_N)
    by_channel = made_ND.reshape(len(made_ND), len(trials.channels), -1).swapaxes(1, 2).reshape(len(made_ND), -1)
    return Mirror(trials.channels).fit_transform(by_channel)


def _probe(trials: Trials, made: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """A linear probe; how strongly its weights are drawn to 0 is chosen on people held out of the training folds."""
    person_N, y_N = trials.person_N, trials.y_N
    parts, pool = [], sorted(set(person_N[~test]))
    for part in folds(pool, seed, 3):
        parts.append((np.flatnonzero(~np.isin(person_N[~test], part)), np.flatnonzero(np.isin(person_N[~test], part))))
    model = GridSearchCV(logistic(), {"logisticregression__C": [1e-5, 1e-4, 1e-3, 1e-2]}, cv=parts)
    return np.asarray(model.fit(made[~test], y_N[~test]).decision_function(made[test]))


def _central(trials: Trials) -> np.ndarray:
    return trials.x_NCT[:, electrode_rows(trials, "central")]


def _tuned(trials: Trials, made: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Fine-tuned with half of each batch mirrored; at the test the window's value minus its mirror image's."""
    names, person_N = [trials.channels[i] for i in electrode_rows(trials, "central")], trials.person_N
    total = np.zeros(test.sum())
    for member in range(MEMBERS):
        model = EEGClassifier(sfreq=RATE, channels=names, epochs=10, mirror=True, shift=0.1, seed=MEMBERS * seed + member)
        model.fit(made[~test], trials.y_N[~test], groups=person_N[~test])
        for sign, order in ((1, np.arange(len(names))), (-1, mirror_map(names))):
            proba = np.clip(model.predict_proba(made[test][:, order], groups=person_N[test]), 1e-9, 1)
            total += sign * (np.log(proba[:, 1]) - np.log(proba[:, 0]))
    return total


def _band_covariances(trials: Trials) -> np.ndarray:
    """(N, B, C, C) of each person's whitened windows: all that a log power of spatial filters can depend on."""
    parts = [
        covariances(whiten_each(band_passed(trials.x_NCT, RATE, *band), trials.person_N, "euclidean", 0.01))
        for band in IMAGERY_BANDS
    ]
    return np.stack(parts, axis=1).astype(np.float32)


class _FilterMap:
    """Log power of learned spatial filters minus that of their mirror images, weighted and centred per person.

    It starts as the map: one filter an electrode, the closed form's weights. Filters are drawn towards that start.
    """

    def __init__(self, covariance_NBCC: np.ndarray, trials: Trials) -> None:
        self.covariance_NBCC, self.mirror_C = torch.from_numpy(covariance_NBCC), torch.from_numpy(mirror_map(trials.channels))
        self.person_N = np.searchsorted(trials.people, trials.person_N)
        self.y_N = trials.y_N

    def _maps(self, covariance: Tensor, filters_BCF: Tensor) -> Tensor:
        def log_power(w: Tensor) -> Tensor:
            return torch.log(((covariance @ w) * w).sum(-2).clamp(min=1e-12))

        return log_power(filters_BCF) - log_power(filters_BCF[:, self.mirror_C])

    def _centred(self, value_N: Tensor, rows: np.ndarray) -> Tensor:
        person = torch.from_numpy(np.unique(self.person_N[rows], return_inverse=True)[1])
        count = torch.bincount(person)
        return value_N - (torch.zeros(len(count)).index_add(0, person, value_N) / count)[person]

    def learn(self, train: np.ndarray, judge: np.ndarray, steps: int) -> np.ndarray:
        """Decision values of the trials `judge` after 0, EVERY, 2 EVERY ... `steps` steps: (steps / EVERY + 1, N)."""
        bands, channels = self.covariance_NBCC.shape[1:3]
        start = torch.eye(channels).repeat(bands, 1, 1)
        told, asked = self.covariance_NBCC[train], self.covariance_NBCC[judge]
        maps_ND = centred(self._maps(told, start).flatten(1).double().numpy(), self.person_N[train])
        scaler = StandardScaler().fit(maps_ND)
        linear = LogisticRegression(C=1e-3, max_iter=2000).fit(scaler.transform(maps_ND), self.y_N[train])
        weight = torch.from_numpy(linear.coef_[0] / scaler.scale_).float().reshape(bands, channels)
        filters, gain = start.clone().requires_grad_(), torch.ones(()).requires_grad_()
        optimizer = torch.optim.Adam([{"params": [filters], "lr": 2e-3}, {"params": [gain], "lr": 0.05}])
        label = torch.from_numpy(self.y_N[train]).float()
        found = []
        for step in range(steps + 1):
            if step % EVERY == 0:
                with torch.no_grad():
                    found.append(self._centred((self._maps(asked, filters) * weight).sum((-1, -2)), judge).numpy())
            decision = gain * self._centred((self._maps(told, filters) * weight).sum((-1, -2)), train)
            loss = torch.nn.functional.binary_cross_entropy_with_logits(decision, label)
            optimizer.zero_grad()
            (loss + 0.05 * (filters - start).square().sum()).backward()
            optimizer.step()
        return np.stack(found)


def _filters(trials: Trials, made: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Stopped where people held out of the training folds are told apart best."""
    model, pool = _FilterMap(made, trials), sorted(set(trials.person_N[~test]))
    right = np.zeros(STEPS // EVERY + 1)
    for part in folds(pool, seed, 3):
        judge, train = np.isin(trials.person_N, part), ~test & ~np.isin(trials.person_N, part)
        for stop, decision in enumerate(model.learn(np.flatnonzero(train), np.flatnonzero(judge), STEPS)):
            right[stop] += np.sum((decision > 0) == trials.y_N[judge])
    # the earliest of equals: the least that was learned
    return model.learn(np.flatnonzero(~test), np.flatnonzero(test), EVERY * int(right.argmax()))[-1]


SOURCES: dict[str, tuple[Callable[[Trials], np.ndarray], Decide]] = {
    MAP: _closed("log-power map, mirror"),
    CSP_LDA: _closed("aligned, CSP + LDA"),
    FROZEN: (_frozen_features, _probe),
    TUNED: (_central, _tuned),
    FILTERS: (_band_covariances, _filters),
}


def _at_median(known: _Decisions) -> np.ndarray:
    decision_SN = np.array(known.of(MAP))
    for person in known.trials.people:
        own = known.trials.person_N == person
        decision_SN[:, own] -= np.median(decision_SN[:, own], axis=1, keepdims=True)
    return decision_SN


def _own_guesses(known: _Decisions, rounds: int, surer: float, weight: float) -> np.ndarray:
    """The map trained again on the others' labels and the person's own guesses, the surer share of them, `weight` times."""
    trials, decision_SN = known.trials, np.array(known.of(MAP))
    made_ND = Mirror(trials.channels).fit_transform(features(trials, methods()["log-power map"]))
    for number, seed in enumerate(known.seeds):
        for part in folds(trials.people, seed):
            train = ~np.isin(trials.person_N, part)
            scaled_ND = StandardScaler().fit(made_ND[train]).transform(made_ND)
            for person in part:
                own = np.flatnonzero(trials.person_N == person)
                decision_N = decision_SN[number, own]
                count = round(surer * len(own))
                weights = np.concatenate([np.ones(train.sum()), np.full(count, weight)])
                for _ in range(rounds):
                    sure = np.argsort(-np.abs(decision_N))[:count]
                    x = np.concatenate([scaled_ND[train], scaled_ND[own[sure]]])
                    y = np.concatenate([trials.y_N[train], decision_N[sure] > 0])
                    model = LogisticRegression(C=1e-3, max_iter=2000).fit(x, y, sample_weight=weights)
                    decision_N = model.decision_function(scaled_ND[own])
                decision_SN[number, own] = decision_N
    return decision_SN


ADAPTATIONS: dict[str, Callable[[_Decisions], np.ndarray]] = {
    "threshold at the person's median": _at_median,
    "three rounds on the person's own guesses, the surer half, weight 3": lambda known: _own_guesses(known, 3, 0.5, 3),
    "three rounds on the person's own guesses, the surer half, weight 10": lambda known: _own_guesses(known, 3, 0.5, 10),
}
