"""`dreamdiff evaluate --check REPORT`: every accuracy of a report, computed again from its predictions; hashes compared; rows counted.

What a report of this release has to hold up to:

1. a certificate with all rows of `records.REQUIRED` and one for each of its paths; a row without a figure must say why;
2. `predictions.npz` beside it, with the digest that the report states;
3. every accuracy and interval of the certificate, and every other share in the report (baselines and controls too), equal to what
   the predictions give;
4. the model's weights, the pairs and their pictures as they were.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dreamdiff.certificates.records import REQUIRED, accuracy_of, path_row, read_predictions
from dreamdiff.metrics.measurement import mean_measurement
from dreamdiff.origin import found_again
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import DataError, ToolkitError
from eegprep.provenance import sha256_file, sha256_json
from eegprep.sealed import is_whole, read_object

# of shares that are computed in float64 from the same counts; other machines may round a mean differently
TOLERANCE = 1e-9
TABLE1, TABLE2 = "table1.json", "table2.json"  # of `dreamdiff ablate`
FIX = "make the report again with this release, and leave its files as they are written"


@dataclass(frozen=True)
class Checked:
    """What was computed again. accuracies: figures that agree. hashes: names of inputs that are as they were."""

    accuracies: int
    hashes: tuple[str, ...]
    sentence: str


def check_report(report: str | Path, *, model: str | Path | None = None, pairs: str | Path | None = None) -> Checked:
    """Verify a report from its files.

    Args:
        report: report.json, or its folder; or the folder of `dreamdiff ablate`, whose rows are then all verified.
        model, pairs: where they are now, if they have moved.

    Raises:
        DataError: what does not hold; all findings are counted and the first ones named.
    """
    folder = Path(report)
    tables = folder.is_dir() and not (folder / "report.json").is_file() and (folder / TABLE2).is_file()
    file = folder / TABLE2 if tables else folder / "report.json" if folder.is_dir() else folder
    try:
        return _check_tables(folder, pairs) if tables else _checked(file, _read(file), model, pairs)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{file}: does not have the parts of a report ({type(error).__name__}: {error})", FIX) from None


def _checked(file: Path, content: Mapping[str, Any], model: str | Path | None, pairs: str | Path | None) -> Checked:
    certificate = content.get("certificate")
    if not isinstance(certificate, dict):
        raise DataError(f"{file}: holds accuracies without a certificate", FIX)
    stated = content.get("predictions") or {}
    predictions = file.parent / Path(str(stated.get("file", "predictions.npz"))).name  # beside the report, wherever it says
    if not predictions.is_file():
        raise DataError(f"{predictions}: missing; no accuracy of the report can be computed again", FIX)
    problems: list[str] = []
    if sha256_file(predictions) != stated.get("sha256"):
        problems.append(f"{predictions.name} is not the file that the report was written with (SHA-256 differs)")
    try:
        arrays = read_predictions(predictions)
    except ToolkitError as error:
        raise DataError(f"{predictions}: cannot be read ({error.problem})", FIX) from None
    problems += list(_missing_rows(certificate))
    count, wrong = _certificate_figures(certificate, arrays)
    more, further = _other_figures(content, arrays)
    hashes, changed = _inputs(content.get("identity") or {}, file.parent, model, pairs, arrays)
    problems += wrong + further + changed
    if not is_whole(content):
        problems.append(f"{file.name} is not as it was written (SHA-256 differs)")
    if problems:
        rest = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{file}: {len(problems)} findings: {'; '.join(problems[:3])}{rest}", FIX)
    return Checked(count + more, tuple(hashes), str(certificate.get("sentence", "")))


def _check_tables(folder: Path, pairs: str | Path | None) -> Checked:
    """Each row's report, and the tables against them: a figure that a table shows is the report's own, trial by trial."""
    content = _json(folder / TABLE2)
    count, sentences, problems = 0, [], []
    hashes: set[str] = {"model", "pairs", "images"}
    for row in content.get("rows", ()):
        where = folder / "rows" / Path(str(row["row"])).name / "evaluation"
        checked = check_report(where, pairs=pairs)
        count, hashes = count + checked.accuracies, hashes & set(checked.hashes)
        sentences.append(f"{row['row']}: {checked.sentence}")
        stated = {m["name"]: m for m in _read(where / "report.json").get("measurements", ())}
        for name, figure in row.get("measured", {}).items():
            if stated.get(name) != figure:
                problems.append(f"row {row['row']}, {name}: the table does not say what the report of the row says")
    for system, trials in (_json(folder / TABLE1).get("trials", {}) if (folder / TABLE1).is_file() else {}).items():
        for stated in _json(folder / TABLE1)["systems"][system]:
            if stated.get("unit") == "share":
                values = trials.get(stated["name"], {})
                groups = values.get("groups")
                name = f"{system}, {stated['name']}"
                problems += share_problems(
                    name, stated, np.asarray(values.get("values", ()), float), None if groups is None else np.asarray(groups)
                )
                count += 1
    if problems:
        raise DataError(f"{folder}: {len(problems)} findings: {'; '.join(problems[:3])}", FIX)
    return Checked(count, tuple(name for name in ("model", "pairs", "images") if name in hashes), "\n".join(sentences))


def _json(file: Path) -> dict[str, Any]:
    content = read_object(file)
    if content is None:
        raise DataError(f"{file}: cannot be read", "run `dreamdiff ablate` again with the same --out")
    return content


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})", "give report.json, or its folder") from None
    except (ValueError, RecursionError):
        raise DataError(f"{file}: not JSON", "give report.json of `dreamdiff evaluate` or `dreamdiff retrieve`") from None
    if not isinstance(content, dict) or not str(content.get("format", "")).startswith("dreamdiff-"):
        raise DataError(f"{file}: not a report", "give report.json of `dreamdiff evaluate` or `dreamdiff retrieve`")
    return content


def _missing_rows(certificate: Mapping[str, Any]) -> Iterator[str]:
    rows = {row.get("name"): row for row in certificate.get("rows", ())}
    for name in (*REQUIRED, *(path_row(path) for path in certificate.get("paths", ("encoder",)))):
        if name not in rows:
            yield f"the certificate has no row {name!r}"
        elif not rows[name].get("accuracy") and not rows[name].get("missing"):
            yield f"row {name!r} of the certificate has neither a figure nor a reason"


def _certificate_figures(certificate: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[int, list[str]]:
    count, problems = 0, []
    for row in certificate.get("rows", ()):
        for measure, stated in row.get("accuracy", {}).items():
            name = f"row {row['name']!r}, {measure}"
            keys = (f"row/{row['name']}/{measure}", f"truth/{measure}", f"groups/{measure}")
            missing = [key for key in keys if key not in arrays]
            if missing:
                problems.append(f"{name}: the predictions hold no {missing[0]!r}")
                continue
            predicted, truth, groups = (arrays[key] for key in keys)
            if not len(predicted) == len(truth) == groups.shape[-1]:
                problems.append(f"{name}: {len(predicted)} predictions for {len(truth)} trials")
                continue
            result = accuracy_of("", "", predicted, truth, groups, float(stated["floor"]), int(stated["seed"]))
            for what in ("value", "low", "high", "n"):
                if not _close(getattr(result, what), stated.get(what)):
                    problems.append(f"{name}: {what} is {stated.get(what)}, the predictions give {getattr(result, what):.6g}")
            count += 1
    return count, problems


def stated_figures(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every accuracy of a report outside its certificate, under the name that its values of single trials are stored by."""
    for stated in content.get("measurements") or ():
        yield str(stated["name"]), stated
    for section in ("baselines", "generation_controls"):
        for system in content.get(section) or ():
            for stated in system["measurements"]:
                yield f"{section}/{system['name']}/{stated['name']}", stated
    controls = content.get("controls") or {}
    for decoder in controls.get("decoders", ()):
        yield f"decoders/{decoder['name']}", decoder["measurement"]
    for distance in controls.get("time_distance", ()):
        yield f"time_distance/{distance['near']:g}-{distance['far']:g}", distance["measurement"]


def _other_figures(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[int, list[str]]:
    """Shares: means of the stored values of single trials, with their intervals."""
    count, problems = 0, []
    for name, stated in stated_figures(content):
        if stated.get("unit") != "share":
            continue
        values = arrays.get(f"values/{name}")
        if values is None:
            problems.append(f"{name}: the predictions hold no values of single trials")
            continue
        problems += share_problems(name, stated, values, arrays.get(f"value-groups/{name}"))
        count += 1
    return count, problems


def share_problems(name: str, stated: Mapping[str, Any], values_N: np.ndarray, groups_N: np.ndarray | None) -> Iterator[str]:
    """Where a stated share, its interval or its number of trials is not what its values give."""
    if len(values_N) == 0 or (groups_N is not None and groups_N.shape[-1] != len(values_N)):
        yield f"{name}: {len(values_N)} values, {0 if groups_N is None else groups_N.shape[-1]} of them in groups"
        return
    result = mean_measurement(
        "", "", np.asarray(values_N)[:, None], seed=int(stated["seed"]), floor=None, groups_N=groups_N
    ).to_json()
    for what in ("value", "low", "high", "n"):
        if result[what] != stated.get(what) and not _close(result[what], stated.get(what)):
            yield f"{name}: {what} is {stated.get(what)}, the predictions give {result[what]}"


def _inputs(
    identity: Mapping[str, Any], here: Path, model: str | Path | None, pairs: str | Path | None, arrays: Mapping[str, np.ndarray]
) -> tuple[list[str], list[str]]:
    """Names of inputs that are as they were, and what is not. here: the folder of the report, from which it names others."""
    known, problems = [], []
    stated = identity.get("model") or {}
    folder = Path(model or found_again(stated.get("folder") or stated.get("path", ""), here))
    try:
        digest = model_digest(folder)
    except (ToolkitError, OSError) as error:
        problems.append(f"the model is not at {folder} ({str(error).splitlines()[0][:120]}): give --model")
    else:
        if digest == stated.get("sha256"):
            known.append("model")
        else:
            problems.append(f"the model at {folder} has other weights than the report states")
    stated = identity.get("pairs") or {}
    where = Path(pairs or found_again(stated.get("folder") or stated.get("path", ""), here))
    try:
        store = Pairs.open(where)
    except (ToolkitError, OSError) as error:
        problems.append(f"the pairs are not at {where} ({str(error).splitlines()[0][:120]}): give --pairs")
        return known, problems
    if (store.fingerprint, store.content_sha256) == (stated.get("fingerprint"), stated.get("content", store.content_sha256)):
        known.append("pairs")
    else:
        problems.append(f"the pairs at {where} are not those of the report")
        return known, problems
    trials = arrays.get("trials", np.zeros(0, np.int64))
    # numbers out of a file: one beyond the store would be an IndexError
    if len(trials) and int(trials.max()) < len(store) and images_digest(store, trials) == stated.get("images_sha256"):
        known.append("images")
    else:
        problems.append("the pictures of the judged trials are not those of the report")
    return known, problems


def model_digest(folder: Path) -> str:
    """One digest of all weights of a model folder: an aligned run, or the pipeline of a fine-tuned one."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if not files:
        pipeline = folder / "pipeline" if (folder / "pipeline").is_dir() else folder
        files = sorted(path for path in pipeline.rglob("*.safetensors") if path.is_file())
    if not files:
        raise DataError(f"{folder}: holds no weights", "give the folder of the model")
    # by name, not by path: a model may move
    return sha256_json([[file.name, sha256_file(file)] for file in files])


def images_digest(store: Pairs, positions: np.ndarray) -> str:
    """One digest of the pictures that these trials showed, in order."""
    return sha256_json([store.image_sha256[number] for number in store.image[positions]])


def _close(computed: Any, stated: Any) -> bool:
    return (
        isinstance(computed, int | float)
        and isinstance(stated, int | float)
        and math.isclose(computed, stated, rel_tol=0, abs_tol=TOLERANCE)
    )
