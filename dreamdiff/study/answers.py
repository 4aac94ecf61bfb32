"""A study with raters: which of k pictures does a reconstruction show? A folder goes out, CSV files come back, a number with its interval is made.

People are the only judge that no network replaces. What goes out is `study.html`, one self-contained page that needs no network and no server, and `key.json`,
which stays with whoever runs the study: the page does not hold the answers. Three kinds of questions are mixed:

    question    a reconstruction, the picture that was shown, and k - 1 others that were shown too
    attention   the shown picture itself in place of the reconstruction: a rater who misses these did not look
    swap        another trial's reconstruction: raters must be at chance, or something else gives the answer away

Shapes: Q questions, K pictures to choose from, A answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from dreamdiff.arrays import Array, Ints
from dreamdiff.evaluation.evaluate import choose_trials
from dreamdiff.evaluation.reconstructions import read_reconstructions
from dreamdiff.evaluation.scorer import EvaluateConfig
from dreamdiff.metrics.measurement import Measurement, mean_measurement, units
from dreamdiff.origin import portable
from dreamdiff.pairs.importers.table_file import read_table
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.frame import report_page
from dreamdiff.study.page import Question, study_page
from eegprep import atomic
from eegprep.errors import DataError, UsageError
from eegprep.provenance import fingerprint, sha256_file, software_versions
from eegprep.sealed import read_sealed, write_sealed

FORMAT, VERSION = "dreamdiff-study", 1
KINDS = ("question", "attention", "swap")
COLUMNS = ("study", "rater", "question", "choice")
LEAST_ATTENTION = 0.8  # ours, fixed before any answer: raters with fewer right attention questions do not count
SHARE = 0.15  # attention and swap questions each, of the questions


@dataclass(frozen=True)
class Study:
    """What raters answered. excluded: rater -> why. measurements: of the raters that count."""

    identity: Mapping[str, Any]
    measurements: tuple[Measurement, ...]
    raters: tuple[dict[str, object], ...]
    excluded: dict[str, str]

    @property
    def first_line(self) -> str:
        """The share right, and whether the swapped questions are at chance."""
        lines = []
        for m in self.measurements:
            says = {True: "above chance", False: "not above chance", None: "too few answers to say"}[m.above_floor]
            lines.append(f"{m.name.rsplit('/', 1)[-1]}: {m.value:.1%} {m.interval()}, chance {m.floor:.1%}, {says} (n = {m.n})")
        return "; ".join(lines)

    def to_json(self) -> Mapping[str, Any]:
        """The content of report.json."""
        return {
            "format": "dreamdiff-study-answers", "version": VERSION, "first_line": self.first_line, "identity": self.identity,
            "measurements": [m.to_json() for m in self.measurements], "raters": list(self.raters), "excluded": self.excluded,
        }  # fmt: skip


def write_study(
    folder: Path,
    pairs: str | Path,
    out: Path,
    config: EvaluateConfig | None = None,
    *,
    choices: int = 5,
    questions: int = 60,
    images: Path | None = None,
) -> dict[str, int]:
    """Write `study.html` and `key.json` for the reconstructions in `folder`; returns how many questions of each kind there are.

    Args:
        folder: what `dreamdiff generate` wrote; the first sample of each trial is shown. choices: k. questions: at most so many trials.

    Raises:
        UsageError: more choices than pictures. DataError: no reconstructions of this part.
    """
    config = config or EvaluateConfig()
    store = Pairs.open(pairs, images=images)
    _, part = choose_trials(store, config)
    chosen, made = read_reconstructions(folder, store, part)
    shown = np.unique(store.image[chosen])
    if not 2 <= choices <= len(shown):
        raise UsageError(
            f"{choices} choices do not fit {len(shown)} different pictures", f"give --study-choices 2 to {len(shown)}"
        )
    rng = np.random.default_rng(config.seed)
    asked = np.sort(rng.permutation(len(chosen))[:questions])
    size = made.shape[2]
    pictures = dict(zip(shown.tolist(), store.load_images(shown, size=size), strict=True))
    extra = max(1, round(SHARE * len(asked)))
    rows: list[Mapping[str, object]] = []
    shapes: list[Question] = []
    kinds = ["question"] * len(asked) + ["attention"] * extra + ["swap"] * extra
    trials = np.concatenate([asked, rng.choice(asked, extra), rng.choice(asked, extra)])
    for kind, trial in zip(kinds, trials.tolist(), strict=True):
        right = int(store.image[chosen[trial]])
        wrong = rng.permutation(shown[shown != right])[: choices - 1]
        order = rng.permutation(np.concatenate([[right], wrong]))
        target = made[trial, 0]
        source = trial
        if kind == "attention":
            target = pictures[right]
        if kind == "swap":
            # of a trial that showed none of the pictures to choose from, where there is one
            others = np.flatnonzero(~np.isin(store.image[chosen], order))
            others = others if len(others) else np.flatnonzero(store.image[chosen] != right)
            source = int(rng.choice(others))
            target = made[source, 0]
        name = f"q{len(rows) + 1:03d}"
        position = chosen[trial]
        rows.append(
            {
                "question": name, "kind": kind, "right": int(np.flatnonzero(order == right)[0]) + 1, "trial": int(store.indices[position]),
                "source": int(store.indices[chosen[source]]), "category": int(store.labels[position]), "picture": right,
            }
        )  # fmt: skip
        shapes.append(Question(name, target, [pictures[int(number)] for number in order]))
    study = fingerprint({"rows": rows, "pairs": store.fingerprint, "choices": choices})[:12]
    shuffled = [shapes[k] for k in rng.permutation(len(shapes))]
    out.mkdir(parents=True, exist_ok=True)
    atomic.write_text(out / "study.html", study_page(study, shuffled, simulated=store.provenance == "simulated"))
    key = {
        "format": FORMAT, "version": VERSION, "study": study, "choices": choices, "distractors": "pictures of the same part, drawn at random",
        "pairs": {"path": portable(store.path, out), "fingerprint": store.fingerprint, "provenance": store.provenance},
        "reconstructions": portable(folder, out), "split": config.split, "seed": config.seed, "pictures": len(shown), "questions": rows,
        "page_sha256": sha256_file(out / "study.html"), "least_attention": LEAST_ATTENTION, "software": software_versions(),
    }  # fmt: skip
    write_sealed(out / "key.json", key)
    return {kind: kinds.count(kind) for kind in KINDS}


def read_study(study: Path, answers: Sequence[Path], out: Path, *, seed: int = 0) -> Study:
    """Raters' CSV files back into numbers: report.json and report.html in `out`.

    Args:
        study: the folder that `write_study` wrote. answers: CSV files with the columns study, rater, question, choice.

    Raises:
        DataError: answers of another study, an unknown question, a choice outside 1..k, or a question that a rater answered twice.
    """
    key = read_sealed(study / "key.json")
    if key is None or key.get("format") != FORMAT:
        raise DataError(f"{study}: holds no key.json of a study", "give the folder that --study-out wrote")
    table = pd.concat([_answers(file, key) for file in answers], ignore_index=True)
    twice = table.duplicated(["rater", "question"])
    if twice.any():
        row = table[twice].iloc[0]
        raise DataError(
            f"{row['rater']} answered {row['question']} twice",
            "remove one of the two rows, or give each rater a name of their own",
        )
    known = {row["question"]: row for row in key["questions"]}
    table["kind"] = [known[name]["kind"] for name in table["question"]]
    table["right"] = [
        int(choice) == known[name]["right"] for name, choice in zip(table["question"], table["choice"], strict=True)
    ]
    excluded, raters = {}, []
    for rater, mine in table.groupby("rater", sort=True):
        looked = mine[mine["kind"] == "attention"]["right"]
        share = float(looked.mean()) if len(looked) else float("nan")
        if not share >= LEAST_ATTENTION:
            excluded[str(rater)] = (
                "no attention question answered"
                if np.isnan(share)
                else f"{share:.0%} of {len(looked)} attention questions right (least {LEAST_ATTENTION:.0%})"
            )
        real = mine[mine["kind"] == "question"]["right"]
        raters.append(
            {
                "rater": str(rater), "answers": len(mine), "right": round(float(real.mean()), 4) if len(real) else None,
                "attention": None if np.isnan(share) else round(share, 4), "counts": "no" if str(rater) in excluded else "yes",
            }
        )  # fmt: skip
    counted = table[~table["rater"].astype(str).isin(excluded)]
    if counted.empty:
        raise DataError(f"0 of {len(raters)} raters passed the attention questions", "collect more answers")
    name = f"study/k={key['choices']}/distractors=same-part/raters={counted['rater'].nunique()}/samples=first"
    measurements = [
        one
        for kind in ("question", "swap")
        if (one := _share(counted[counted["kind"] == kind], known, f"{name}/{kind}", int(key["choices"]), seed)) is not None
    ]
    identity = {
        "study": key["study"], "pairs": key["pairs"], "split": key["split"], "reconstructions": key["reconstructions"], "seed": seed,
        "answers": [{"file": file.name, "sha256": sha256_file(file)} for file in answers], "answers_of_all": len(table), "software": software_versions(),
    }  # fmt: skip
    result = Study(identity, tuple(measurements), tuple(raters), excluded)
    out.mkdir(parents=True, exist_ok=True)
    write_sealed(out / "report.json", result.to_json())
    _write_page(out / "report.html", result)
    return result


def _answers(file: Path, key: Mapping[str, Any]) -> pd.DataFrame:
    table = read_table(file, COLUMNS)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise DataError(f"{file.name}: there is no column {missing[0]!r}", f"give the columns {', '.join(COLUMNS)}")
    if len(table) == 0:
        raise DataError(f"{file.name}: 0 answers (least 1)", "give the file that the page saved")
    other = sorted({str(name) for name in table["study"]} - {key["study"]})
    if other:
        raise DataError(
            f"{file.name}: answers of study {other[0]!r}, this is {key['study']!r}", "give the answers of this study's page"
        )
    known = {row["question"] for row in key["questions"]}
    strange = sorted({str(name) for name in table["question"]} - known)
    if strange:
        raise DataError(f"{file.name}: there is no question {strange[0]!r}", "give the file as the page saved it")
    allowed = {str(k) for k in range(1, int(key["choices"]) + 1)}
    outside = table[~table["choice"].astype(str).isin(allowed)]
    if len(outside):
        row = outside.iloc[0]
        raise DataError(
            f"{file.name}: choice {row['choice']!r} of {row['question']} is outside 1..{key['choices']}",
            "give the file as the page saved it",
        )
    if (table["rater"].astype(str).str.strip() == "").any():
        raise DataError(f"{file.name}: an answer without a rater", "give every rater a name or a number")
    return table[list(COLUMNS)]


def _share(table: pd.DataFrame, known: Mapping[str, Mapping[str, Any]], name: str, choices: int, seed: int) -> Measurement | None:
    """Share right, with raters, categories and pictures drawn again."""
    if table.empty:
        return None
    category, picture = (np.array([known[question][what] for question in table["question"]]) for what in ("category", "picture"))
    rater: Ints = pd.factorize(table["rater"])[0].astype(np.int64)
    right: Array = table["right"].to_numpy(float)[:, None]
    return mean_measurement(
        name,
        f"share of answers that name the shown picture among {choices}",
        right,
        seed=seed,
        floor=1 / choices,
        groups_N=units(category, rater, picture),
    )


def _write_page(file: Path, result: Study) -> None:
    provenance = cast("Mapping[str, Any]", result.identity["pairs"])["provenance"]
    page = report_page("Which picture is it? What raters answered", result.first_line, provenance)
    page.text(
        "Question: the reconstruction of the trial itself. Swap: another trial's reconstruction, where raters must be at chance. In brackets: 95 % intervals; raters, "
        "categories and pictures are drawn again."
    )
    page.table(
        [{"number": m.name, "value": f"{m.value:.1%}", "interval": m.interval(), "chance": f"{m.floor:.1%}", "answers": m.n, "seed": m.seed} for m in result.measurements]
    )  # fmt: skip
    page.heading("Raters")
    page.table(list(result.raters))
    if result.excluded:
        page.text(
            f"Raters below {LEAST_ATTENTION:.0%} of the attention questions do not count; the rule was fixed with the study."
        )
        page.table([{"rater": rater, "why": why} for rater, why in result.excluded.items()])
    page.write(file)
