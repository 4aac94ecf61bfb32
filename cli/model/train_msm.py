"""`dreamdiff train msm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import _output
from .._app import train_app
from .._described import DeviceOption, TrainingPrecision


@train_app.command(
    inputs=("store", "config"),
    settings="train msm",
    examples="""
    dreamdiff train msm --store corpus.zarr --out msm --preset tiny
    dreamdiff train msm --store corpus.zarr --out msm --preset paper --set data.batch_size=64
    dreamdiff train msm --store pairs.zarr --out msm --preset trials
    """,
)
def msm(
    store: Annotated[
        str, typer.Option(help="Corpus made by `eegprep build` (folder or URL), or pairs: their training trials, without labels")
    ],
    out: Annotated[Path, typer.Option(help="Run folder; training resumes where it stood when the folder holds this run")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="paper, released, w256, w512, w768, w1280, shallow2, small, tiny; trials (for pairs), positions and positions-large (tokens of electrodes)"
            " [default: paper, or small without a GPU]"
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file over the preset")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="section.key=value over the file; repeatable")] = None,
    device: DeviceOption = None,
    precision: TrainingPrecision = None,
    strict_rate: Annotated[bool, typer.Option("--strict-rate", help="Refuse a corpus of several sampling rates")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would take (memory, time), then stop; nothing is written")
    ] = False,
) -> None:
    """Pre-train an encoder by masked signal modelling. Run again to resume.

    Kill it at any moment and run it again: the result is the same.
    """
    from dreamdiff.pairs.format import is_pairs
    from dreamdiff.pretraining.config import POSITIONS_NAMES, PRETRAIN_PRESETS, PretrainConfig
    from dreamdiff.pretraining.size import has_gpu, run_size
    from eegprep.settings import resolve

    if preset is None:
        preset = "paper" if has_gpu() and device != "cpu" else "small"
        if preset == "small":
            _output.note("no GPU was found, so this is --preset small; the paper's encoder needs --preset paper")
    options = {"loop.device": device, "loop.precision": precision}
    settings = None
    if preset not in POSITIONS_NAMES:
        known = {**PRETRAIN_PRESETS, **{name: {} for name in POSITIONS_NAMES}}  # a misspelt name is compared with all
        settings = resolve(PretrainConfig, presets=known, preset=preset, file=config, assignments=set_ or (), options=options)
        from dreamdiff.pretraining.pretrain import split_corpus
        from eegprep.corpus.rates import corpus_rates, several_rates
        from eegprep.corpus.reader import Corpus

        if is_pairs(store) and dry_run:
            raise typer.BadParameter("--dry-run plans runs on a corpus; pairs are cut into one first")
        if is_pairs(store):
            from dreamdiff.alignment.unlabelled import windows_of_pairs

            with _output.progress("train msm") as progress:
                store, settings = windows_of_pairs(store, out, settings, progress=progress)
        corpus = Corpus.open(str(store))
        _output.note(run_size(settings, len(corpus)).line())
        sentence = several_rates(str(store), corpus_rates(corpus))
        if sentence:
            kept = list(corpus_rates(corpus.take(split_corpus(corpus, settings.data)[0])))
            listed = " and ".join(f"{rate:g}" for rate in kept)
            _output.note(f"{sentence}; trained on {listed} Hz, the model's own rate is {kept[0]:g} Hz")
        if dry_run:
            from dreamdiff.pretraining.memory import needs

            typer.echo(f"memory: {needs(settings)}")
            return
    elif dry_run:
        raise typer.BadParameter(f"--dry-run is not offered for --preset {preset}")

    from dreamdiff.pretraining.positions_task import POSITIONS_PRESETS, PositionsPretrainConfig, pretrain_positions
    from dreamdiff.pretraining.pretrain import against_guess, has_learned, pretrain

    with _output.progress("train msm") as progress:
        if settings is None:
            shape = resolve(
                PositionsPretrainConfig,
                presets=POSITIONS_PRESETS,
                preset=preset,
                file=config,
                assignments=set_ or (),
                options=options,
            )
            result = pretrain_positions(store, out, shape, progress=progress)
        else:
            result = pretrain(store, out, settings, progress=progress, strict_rate=strict_rate)
    _output.emit_line(f"{out}: {_output.training_line(result)}")
    compared = against_guess(result.validation)
    if compared is not None and not has_learned(result.validation):
        loss, guess = compared
        _output.note(
            f"held-out loss {loss:.4g} is not well below {guess:.4g}, that of a predictor that learns nothing: "
            "this encoder knows no EEG yet\nfix: train longer (loop.epochs), or change optim.lr; wide encoders need a lower one"
        )
