"""Other people's predictions: a table or an npz file with what some system said of each trial, and what was right.

CSV, TSV or Parquet, one row a trial:
    truth, predicted           a category or a picture; the same spelling in both
    person, session, block, onset, image, repetitions, rank, part, trial      as far as they are known

npz, N trials:
    truth (N,)                 names, or numbers of options
    one of: predicted (N,); scores (N, G); vectors (N, D) with gallery (G, D)
    options (G,)               names of the options of scores or gallery
    person, session, block, onset, image, repetitions, trial (N,)             as far as they are known
    train_truth, train_person, train_session, train_block, train_onset, train_image (M,)      of the trials that were trained on

`rank`: place of the true option among all, from 1. `part`: `train` for rows that were trained on (no prediction needed), else `test`.
`trial`: number of the trial in a pairs store, from which everything else is then read. Nothing is guessed: what is missing stays unknown.
Shapes: N trials, M training trials, G options, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dreamdiff.arrays import Array, Ints
from dreamdiff.pairs.importers.table_file import numbers, read_table
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.splits import Trials
from dreamdiff.untrusted.arrays import load_npz
from eegprep.errors import DataError

FACTS = ("person", "session", "block", "onset", "image", "repetitions", "trial")
FORMS = "`predicted`, `scores`, or `vectors` with `gallery`"


@dataclass(frozen=True)
class Predictions:
    """N judged trials.

    kind: "names" (one answer a trial), "ranks", "scores" or "vectors". truth_N, predicted_N: numbers of `options`, -1 for an answer that is
    none of them. scores_NG: None for names and ranks. rank_N: None unless stated. gallery: number of options to choose from.
    trials: of all rows, judged ones first; `judged` of them are judged, the others were trained on.
    """

    source: str
    kind: str
    options: tuple[str, ...]
    truth_N: Ints
    predicted_N: Ints
    scores_NG: Array | None
    rank_N: Array | None
    gallery: int
    repetitions_N: Array | None
    trials: Trials
    people: tuple[str, ...]
    trial_N: Ints | None

    @property
    def judged(self) -> int:
        """Trials with a prediction."""
        return len(self.truth_N)


def read_predictions_of_others(file: Path) -> Predictions:
    """Read either form.

    Raises:
        DataError: what is missing or does not fit, with the row. CheckpointError: a damaged npz file.
    """
    if file.suffix.lower() == ".npz":
        return _from_arrays(file, load_npz(file))
    table = read_table(file, ("truth", "predicted"))
    return _from_table(file, table)


def with_pairs(predictions: Predictions, pairs: Pairs, train: Ints) -> Predictions:
    """The same predictions with everything else read from a store, and with the training trials of a split.

    Raises:
        DataError: no `trial` numbers, numbers that are not in the store, or a truth that is not the store's.
    """
    if predictions.trial_N is None:
        raise DataError(
            f"{predictions.source}: has no column `trial`", "add the number of each trial in the store, or leave --pairs out"
        )
    position = {int(number): place for place, number in enumerate(pairs.indices)}
    unknown = [int(number) for number in predictions.trial_N if int(number) not in position]
    if unknown:
        raise DataError(
            f"{predictions.source}: trial {unknown[0]} is not in {pairs.path} ({len(unknown)} of {predictions.judged} are not)",
            "give the store they belong to",
        )
    rows = np.array([position[int(number)] for number in predictions.trial_N], np.int64)
    names = [{pairs.classes[pairs.labels[row]], pairs.image_names[pairs.image[row]], str(pairs.labels[row])} for row in rows]
    wrong = [k for k, known in enumerate(names) if predictions.options[predictions.truth_N[k]] not in known]
    if wrong:
        raise DataError(
            f"{predictions.source}: trial {int(predictions.trial_N[wrong[0]])} has truth {predictions.options[predictions.truth_N[wrong[0]]]!r}, the store says "
            f"{pairs.classes[pairs.labels[rows[wrong[0]]]]!r} ({len(wrong)} of {predictions.judged} differ)",
            "use the names of the store's classes or images",
        )
    trials = pairs.trials.take(np.concatenate([rows, train]))
    return Predictions(**{**vars(predictions), "trials": trials, "people": tuple(pairs.subjects)})


def _from_table(file: Path, table: pd.DataFrame) -> Predictions:
    if "truth" not in table or not {"predicted", "rank"} & set(table.columns):
        raise DataError(
            f"{file.name}: needs the columns `truth` and `predicted` (found: {', '.join(map(str, table.columns)) or 'none'})",
            "write one row a trial, with what was right and what was predicted",
        )
    part = table["part"] if "part" in table else pd.Series("test", index=table.index)
    taught, judged = table[part == "train"], table[part != "train"]
    if len(judged) == 0:
        raise DataError(f"{file.name}: 0 rows with predictions (least 1)", "leave `part` empty, or write `test`, for judged rows")
    for name in ("truth", *(["predicted"] if "predicted" in table else [])):
        empty = judged[name] == ""
        if empty.any():
            raise DataError(
                f"{file.name}: row {int(str(empty.idxmax())) + 1} has an empty cell in the column {name!r}",
                "fill it, or remove the row",
            )
    everything = pd.concat([judged, taught])
    columns = {name: _codes(everything[name]) for name in ("person", "session", "block", "image") if name in everything}
    onset = numbers(everything["onset"], decimal_comma=True).to_numpy(float) if "onset" in everything else None
    said = judged["predicted"].tolist() if "predicted" in judged else []
    options = tuple(dict.fromkeys([*everything["truth"].tolist(), *said]))
    place = {name: number for number, name in enumerate(options)}
    rank = _positive(file, judged, "rank")
    truth = np.array([place[name] for name in everything["truth"]], np.int64)
    return Predictions(
        file.name, "names" if rank is None else "ranks", options, truth[: len(judged)],
        np.array([place[name] for name in said], np.int64) if said else np.full(len(judged), -1), None, rank,
        _gallery(file, judged, len(options), rank), _positive(file, judged, "repetitions"), _trials(len(everything), columns, onset, truth),
        tuple(dict.fromkeys(everything["person"])) if "person" in everything else (),
        None if "trial" not in judged else numbers(judged["trial"], decimal_comma=False).fillna(-1).to_numpy(np.int64),
    )  # fmt: skip


def _gallery(file: Path, table: pd.DataFrame, options: int, rank: Array | None) -> int:
    if "gallery" in table:
        sizes = np.unique(numbers(table["gallery"], decimal_comma=False).to_numpy(float))
        if len(sizes) != 1 or not sizes[0] >= 2:
            raise DataError(
                f"{file.name}: `gallery` is {', '.join(f'{s:g}' for s in sizes[:3])}", "give one number of options above 1"
            )
        return int(sizes[0])
    return max(options, 0 if rank is None else int(rank.max()))


def _positive(file: Path, table: pd.DataFrame, name: str) -> Array | None:
    if name not in table:
        return None
    values = numbers(table[name], decimal_comma=False).to_numpy(float)
    wrong = ~(values >= 1)
    if wrong.any():
        row = table.index[int(np.flatnonzero(wrong)[0])]
        raise DataError(f"{file.name}: row {int(row) + 1} has the {name} {table[name].loc[row]!r}", "give numbers from 1")
    return values


def _from_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> Predictions:
    if "truth" not in arrays:
        raise DataError(f"{file.name}: has no array `truth` (found: {', '.join(arrays) or 'none'})", f"add it, and {FORMS}")
    truth = np.asarray(arrays["truth"])
    n = len(truth)
    scores, kind = _scores(file, arrays, n)
    if scores is None and "predicted" not in arrays:
        raise DataError(f"{file.name}: has no predictions (found: {', '.join(arrays)})", f"add {FORMS}")
    gallery = 0 if scores is None else scores.shape[1]
    options, codes = _options(file, arrays, truth, gallery)
    predicted = codes[n:] if scores is None else scores.argmax(1)
    if scores is not None and not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(1))[0])
        raise DataError(f"{file.name}: trial {row} has scores that are not finite", "leave it out or repair it")
    taught = len(arrays.get("train_truth", ()))
    columns = {}
    for name in ("person", "session", "block", "image"):
        columns[name] = _joined(file, arrays, name, n, taught)
    onset = _joined(file, arrays, "onset", n, taught)
    description = np.asarray(arrays.get("train_truth", truth[:0]))
    place = {name: number for number, name in enumerate(options)}
    of_taught = np.array([place.get(str(name), len(options) + k) for k, name in enumerate(description.tolist())], np.int64)
    known = {name: _codes(pd.Series(values.astype(str))) for name, values in columns.items() if values is not None}
    people = columns["person"]
    return Predictions(
        file.name, kind, options, codes[:n], np.asarray(predicted, np.int64), scores, None, gallery or len(options),
        None if "repetitions" not in arrays else np.asarray(arrays["repetitions"], float),
        _trials(n + taught, known, None if onset is None else onset.astype(float), np.concatenate([codes[:n], of_taught])),
        () if people is None else tuple(dict.fromkeys(people.astype(str).tolist())),
        None if "trial" not in arrays else np.asarray(arrays["trial"], np.int64),
    )  # fmt: skip


def _scores(file: Path, arrays: Mapping[str, np.ndarray], n: int) -> tuple[Array | None, str]:
    if "scores" in arrays:
        scores = np.asarray(arrays["scores"], float)
        if scores.ndim != 2 or len(scores) != n or scores.shape[1] < 2:
            raise DataError(
                f"{file.name}: scores of shape {scores.shape} for {n} trials", "give (trials, options) with 2 options or more"
            )
        return scores, "scores"
    if "vectors" not in arrays:
        return None, "names"
    vectors, gallery = np.asarray(arrays["vectors"], float), np.asarray(arrays.get("gallery", np.zeros((0, 0))), float)
    if vectors.ndim != 2 or len(vectors) != n or gallery.ndim != 2 or gallery.shape[1:] != vectors.shape[1:] or len(gallery) < 2:
        raise DataError(
            f"{file.name}: vectors of shape {vectors.shape} and a gallery of shape {gallery.shape} for {n} trials",
            "give vectors (trials, D) and gallery (pictures, D) with 2 pictures or more",
        )
    one, two = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (vectors, gallery))
    return one @ two.T, "vectors"


def _options(file: Path, arrays: Mapping[str, np.ndarray], truth: np.ndarray, gallery: int) -> tuple[tuple[str, ...], Ints]:
    """Names of the options, and numbers of the truth (and of the predictions behind it where those are names)."""
    values = np.concatenate([truth, np.asarray(arrays["predicted"])]) if not gallery else truth
    if not gallery and len(values) != 2 * len(truth):
        raise DataError(f"{file.name}: {len(values) - len(truth)} predictions for {len(truth)} trials", "give one a trial")
    if gallery and np.issubdtype(truth.dtype, np.integer):
        if len(truth) and (truth.min() < 0 or truth.max() >= gallery):
            raise DataError(f"{file.name}: truth {int(truth.max())} is outside 0..{gallery - 1}", "number the options from 0")
        names = arrays.get("options")
        return tuple(map(str, range(gallery) if names is None else names.tolist())), truth.astype(np.int64)
    names = arrays.get("options")
    if gallery and (names is None or len(names) != gallery):
        raise DataError(f"{file.name}: truth holds names, and `options` does not name the {gallery} options", "add options (G,)")
    known = list(dict.fromkeys(map(str, (values if names is None else names).tolist())))
    place = {name: number for number, name in enumerate(known)}
    missing = [str(one) for one in values.tolist() if str(one) not in place]
    if missing:
        raise DataError(f"{file.name}: {missing[0]!r} is none of the {len(known)} options", "name it among `options`")
    return tuple(known), np.array([place[str(one)] for one in values.tolist()], np.int64)


def _joined(file: Path, arrays: Mapping[str, np.ndarray], name: str, n: int, n_train: int) -> np.ndarray | None:
    if name not in arrays:
        return None
    first = np.asarray(arrays[name])
    rest = np.asarray(
        arrays.get(
            f"train_{name}",
            np.full(n_train, np.nan if name == "onset" else "", first.dtype if first.dtype.kind == "U" else object),
        )
    )
    if first.shape != (n,) or rest.shape != (n_train,):
        raise DataError(
            f"{file.name}: `{name}` has shape {first.shape} for {n} trials (train_{name} {rest.shape} for {n_train})",
            "give one value a trial",
        )
    return np.concatenate([first.astype(object), rest.astype(object)])


def _codes(cells: pd.Series) -> Ints:
    """Numbers of the values, -1 where empty."""
    text = cells.astype(str).to_numpy()
    known = {value: number for number, value in enumerate(dict.fromkeys(value for value in text if value))}
    return np.array([known.get(value, -1) for value in text], np.int64)


def _trials(count: int, columns: Mapping[str, Ints], onset: Array | None, concept: Sequence[int] | Ints) -> Trials:
    unknown = np.full(count, -1, np.int64)
    person = columns.get("person", np.zeros(count, np.int64))
    return Trials(
        person, columns.get("session", unknown), columns.get("block", unknown), columns.get("image", unknown), np.asarray(concept, np.int64),
        np.full(count, np.nan) if onset is None else np.asarray(onset, float),
    )  # fmt: skip
