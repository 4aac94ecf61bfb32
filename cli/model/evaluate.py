"""`dreamdiff evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .._app import dreamdiff_app
from .._described import DeviceOption, PicturePrecision, field_help
from .._output import emit_json, emit_table, note, progress

_setting = partial(field_help, "dreamdiff.protocols.config", "EvaluateConfig")


@dreamdiff_app.command(
    "evaluate",
    inputs=("model", "pairs", "images", "config", "predictions", "check", "inception", "lpips"),
    settings="evaluate",
    examples="""
    dreamdiff evaluate --model run --pairs pairs.zarr --out evaluation
    dreamdiff evaluate --model run --pairs pairs.zarr --out evaluation --controls --baselines
    dreamdiff evaluate --model run --pairs pairs.zarr --out figures --figure 3
    dreamdiff evaluate --baseline thoughtviz --baseline takagi --pairs pairs.zarr --out baselines
    dreamdiff evaluate --reconstructions images --pairs pairs.zarr --suite weights --out reconstructions
    dreamdiff evaluate --reconstructions images --pairs pairs.zarr --study-out study
    dreamdiff evaluate --study-out study --study-answers answers_anna.csv --study-answers answers_bert.csv --out answers
    dreamdiff evaluate --check evaluation
    dreamdiff evaluate --predictions theirs.csv --protocol repetitions=80,selection=last,person=new --out review
    """,
)
def evaluate(
    model: Annotated[
        str | None, typer.Option(help="Run of `dreamdiff train finetune` or `dreamdiff train align`, or a pipeline folder")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Store of EEG-image pairs")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, report.html and the images")] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Verify a report instead: compute its accuracies again from its predictions and compare all hashes"),
    ] = None,
    figure: Annotated[
        int | None,
        typer.Option(
            help="Draw a figure of the paper as a page instead: 3 (shown and samples), 4 (beside Brain2Image) or 6 (failures by shape and colour)"
        ),
    ] = None,
    reconstructions: Annotated[
        Path | None,
        typer.Option(
            help="Measure this folder of `dreamdiff generate` by the reconstruction suite instead, beside oracle and random vector"
        ),
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option(
            help="With --reconstructions: folder with the weight files of AlexNet, Inception-v3 and SwAV under their published names"
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            help="With --reconstructions: adapter of the frozen generator (--set sd=DIR) that draws the oracle's vectors"
        ),
    ] = None,
    study_out: Annotated[
        Path | None,
        typer.Option(
            help="With --reconstructions: write a study for raters instead, a page that needs no network and its key, into this folder"
        ),
    ] = None,
    study_choices: Annotated[int, typer.Option(min=2, help="With --study-out: pictures to choose from")] = 5,
    study_questions: Annotated[
        int, typer.Option(min=1, help="With --study-out: at most so many reconstructions are asked about")
    ] = 60,
    study_answers: Annotated[
        list[Path] | None,
        typer.Option(help="CSV file that a rater saved (repeat): the study in the folder --study-out, measured into --out"),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Review somebody else's predictions instead: CSV or npz, one row a trial, `truth` and `predicted` at least"
        ),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="With --predictions: what its authors state, as in selection=last,person=new")
    ] = "",
    split: Annotated[str | None, typer.Option(help=_setting("split"))] = None,
    samples: Annotated[int | None, typer.Option(min=1, help=_setting("samples"))] = None,
    trials: Annotated[int | None, typer.Option(min=2, help=_setting("trials"))] = None,
    steps: Annotated[int | None, typer.Option(min=1, help=_setting("steps"))] = None,
    seed: Annotated[int | None, typer.Option(min=0, help=_setting("seed"))] = None,
    controls: Annotated[bool, typer.Option("--controls", help=_setting("controls"))] = False,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Also measure what it has to beat: Brain2Image, ThoughtViz, Takagi and Nishimoto, linear maps, oracles, no EEG",
        ),
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure this baseline by itself, without a model: brain2image-gan, thoughtviz, takagi, nearest, ... or all (repeat)"
        ),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(help=_setting("classifier")),
    ] = None,
    inception: Annotated[str | None, typer.Option(help=_setting("inception"))] = None,
    lpips: Annotated[str | None, typer.Option(help=_setting("lpips"))] = None,
    clip: Annotated[str | None, typer.Option(help=_setting("clip"))] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of the pairs' image files, if they have moved")] = None,
    device: DeviceOption = None,
    precision: PicturePrecision = None,
    strict_rate: Annotated[
        bool, typer.Option("--strict-rate", help="Refuse EEG of another sampling rate than the model's")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. --set n_way=40 (repeat)")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON")] = False,
) -> None:
    """Measure a model on held-out trials. Run again to finish.

    Generates images and reports each number with its interval, floor, controls and an audit of the split.
    """
    if check is not None:
        from dreamdiff.certificates.check import check_report

        outcome = check_report(check, model=model, pairs=pairs)
        result = {"accuracies": outcome.accuracies, "unchanged": list(outcome.hashes), "sentence": outcome.sentence}
        if json:
            emit_json(result)
        else:
            note(outcome.sentence)
            typer.echo(
                f"{check}: {outcome.accuracies} accuracies follow from the predictions; unchanged: {', '.join(outcome.hashes)}"
            )
        return
    if study_answers or study_out is not None:
        options = {"split": split, "trials": trials, "seed": seed}
        _study(
            study_out,
            reconstructions,
            pairs,
            out,
            config,
            set_,
            options,
            study_choices,
            study_questions,
            study_answers or [],
            images,
            json,
        )
        return
    if reconstructions is not None:
        _reconstructions(reconstructions, pairs, out, config, set_, {
            "split": split, "trials": trials, "steps": steps, "seed": seed, "clip": clip, "device": device, "precision": precision, "classifier": classifier,
        }, suite, adapter, images, json)  # fmt: skip
        return
    if predictions is not None:
        _review(predictions, pairs, out, split, protocol, seed, json)
        return
    if baseline and model is None:
        _baselines(tuple(baseline), pairs, out, config, set_, {
            "split": split, "samples": samples, "trials": trials, "steps": steps, "seed": seed, "classifier": classifier, "inception": inception,
            "lpips": lpips, "clip": clip, "device": device, "precision": precision,
        }, images, json)  # fmt: skip
        return
    if model is None or pairs is None or out is None:
        missing = [name for name, value in (("--model", model), ("--pairs", pairs), ("--out", out)) if value is None]
        raise typer.BadParameter(f"missing {', '.join(missing)} (or --check REPORT, --predictions FILE, or --baseline NAME)")
    from dreamdiff.figures.numbers import check_number
    from dreamdiff.protocols.config import EvaluateConfig
    from dreamdiff.run_folder import is_aligned
    from eegprep.settings import resolve

    if figure is not None:
        check_number(figure)
    if is_aligned(model) and figure is not None:
        from eegprep.errors import UsageError

        raise UsageError(
            f"{model}: is an aligned encoder; the figures are those of `dreamdiff train finetune`",
            f"dreamdiff generate --model {model} --eeg {pairs} --select test --samples 3 --out {out}",
        )
    if is_aligned(model):
        from ..alignment.retrieve import retrieve

        retrieve(
            Path(model), pairs, out, split=split, seed=seed, config=config, set_=set_, device=device, strict_rate=strict_rate,
            json=json,
        )  # fmt: skip
        return
    options = {
        "split": split, "samples": samples, "trials": trials, "steps": steps, "seed": seed, "controls": controls or None,
        "classifier": classifier, "inception": inception, "lpips": lpips, "clip": clip, "baselines": ("all",) if baselines else tuple(baseline) if baseline else None,
        "device": device, "precision": precision,
    }  # fmt: skip
    settings = resolve(EvaluateConfig, file=config, assignments=set_ or (), options=options)
    # PyTorch is imported from here on: what is wrong with the command line was said before
    from dreamdiff.evaluation.evaluate import evaluate as run
    from dreamdiff.evaluation.report import write_report

    if figure is not None:
        from dreamdiff.figures.samples import draw_figure

        with progress(f"figure {figure}") as report:
            page = draw_figure(figure, model, pairs, out, settings, images=images, say=note, progress=report)
        note(f"page: {page}")
        return
    with progress("evaluating") as report:
        outcome = run(model, pairs, out, settings, images=images, progress=report, strict_rate=strict_rate, say=note)
    write_report(outcome, out / "report.html")
    if json:
        emit_json(outcome.to_json())
        return
    note(outcome.first_line)
    note(outcome.second_line)
    rows = [{**m.to_json(), "interval": m.between()} for m in outcome.measurements]
    emit_table("measurements", rows, ["name", "value", "interval", "floor", "n", "unit", "protocol"])
    for warning in () if outcome.carriers is None else outcome.carriers.warnings:
        note(f"warning: {warning}")
    note(f"report: {out / 'report.html'}")


def _baselines(
    names: tuple[str, ...], pairs: Path | None, out: Path | None, config: Path | None, set_: list[str] | None, options: dict[str, object],
    images: Path | None, json: bool,
) -> None:  # fmt: skip
    from dreamdiff.evaluation.without_model import evaluate_baselines
    from dreamdiff.protocols.config import EvaluateConfig
    from eegprep.settings import resolve

    if pairs is None or out is None:
        raise typer.BadParameter(f"missing {'--pairs' if pairs is None else '--out'}")
    settings = resolve(EvaluateConfig, file=config, assignments=set_ or (), options=options)
    with progress("baselines") as report:
        result = evaluate_baselines(names, pairs, out, settings, images=images, progress=report)
    if json:
        emit_json(result.to_json())
        return
    note(result.first_line)
    emit_table("baselines", result.table(), ["baseline", "name", "value", "interval", "floor", "n", "protocol"])
    for what, why in result.not_computed.items():
        note(f"not computed: {what}: {why}")
    note(f"report: {out / 'report.html'}")


def _reconstructions(
    folder: Path, pairs: Path | None, out: Path | None, config: Path | None, set_: list[str] | None, options: dict[str, object],
    weights: Path | None, adapter: str | None, images: Path | None, json: bool,
) -> None:  # fmt: skip
    from dreamdiff.evaluation.reconstructions import measure_reconstructions
    from dreamdiff.evaluation.scorer import EvaluateConfig
    from eegprep.settings import resolve

    if pairs is None or out is None:
        raise typer.BadParameter(f"missing {'--pairs' if pairs is None else '--out'}")
    settings = resolve(EvaluateConfig, file=config, assignments=set_ or (), options=options)
    with progress("reconstructions") as report:
        result = measure_reconstructions(
            folder, pairs, out, settings, weights=weights, adapter=adapter, images=images, progress=report
        )
    if json:
        emit_json(result.to_json())
        return
    emit_table("reconstructions", result.table(), ["row", "name", "value", "interval", "floor", "n", "seed"])
    for what, why in result.not_computed.items():
        note(f"{what}: {why}")
    note(f"report: {out / 'report.html'}")


def _study(
    folder: Path | None, reconstructions: Path | None, pairs: Path | None, out: Path | None, config: Path | None, set_: list[str] | None,
    options: dict[str, object], choices: int, questions: int, answers: list[Path], images: Path | None, json: bool,
) -> None:  # fmt: skip
    from dreamdiff.study.answers import read_study, write_study

    if folder is None:
        raise typer.BadParameter("missing --study-out, the folder of the study")
    if answers:
        if out is None:
            raise typer.BadParameter("missing --out")
        content = read_study(folder, answers, out, seed=int(str(options["seed"] or 0)))
        if json:
            emit_json(content.to_json())
            return
        note(content.first_line)
        rows = [{**m.to_json(), "interval": m.between()} for m in content.measurements]
        emit_table("study", rows, ["name", "value", "interval", "floor", "n", "seed"])
        for rater, why in content.excluded.items():
            note(f"{rater} does not count: {why}")
        note(f"report: {out / 'report.html'}")
        return
    from dreamdiff.evaluation.scorer import EvaluateConfig
    from eegprep.settings import resolve

    if reconstructions is None or pairs is None:
        raise typer.BadParameter(f"missing {'--reconstructions' if reconstructions is None else '--pairs'}")
    settings = resolve(EvaluateConfig, file=config, assignments=set_ or (), options=options)
    counts = write_study(reconstructions, pairs, folder, settings, choices=choices, questions=questions, images=images)
    note(
        f"{folder / 'study.html'}: {', '.join(f'{count} {kind}' for kind, count in counts.items())}; send this page to raters and keep key.json"
    )
    note(f"their files: dreamdiff evaluate --study-out {folder} --study-answers FILE --out answers")


def _review(
    predictions: Path, pairs: Path | None, out: Path | None, split: str | None, protocol: str, seed: int | None, json: bool
) -> None:
    from dreamdiff.pairs.reader import Pairs
    from dreamdiff.protocols.review import review

    if out is None:
        raise typer.BadParameter("missing --out")
    store = None if pairs is None else Pairs.open(pairs)
    result = review(predictions, out, pairs=store, split=split or "default", protocol=protocol, seed=seed or 0)
    if json:
        emit_json(result.to_json())
        return
    note(result.first_line)
    rows = [{**m.to_json(), "interval": m.between()} for m in result.measurements]
    emit_table("predictions", rows, ["name", "value", "interval", "floor", "n"])
    emit_table("controls", [vars(check) for check in result.checks], ["name", "says", "tone"])
    note(f"report: {out / 'report.html'}")
