"""`dreamdiff ablate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from .._app import dreamdiff_app, require_existing
from .._described import DeviceOption, field_help
from .._output import emit_json, note, progress

_setting = partial(field_help, "dreamdiff.programs.ablate_config", "AblateConfig")


@dreamdiff_app.command(
    "ablate",
    inputs=("pairs", "store", "config"),
    settings="ablate",
    examples="""
    dreamdiff ablate --quick --out tables
    dreamdiff ablate --quick --table all --out tables
    dreamdiff ablate --rows 1,5,13 --out tables
    dreamdiff ablate --quick --figure 5 --out tables
    """,
)
def ablate(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the tables")],
    rows: Annotated[
        str | None,
        typer.Option(
            help="Rows of Table 2, e.g. 1,5,13,full; also labels (86.7 % in section 4.4) and label-input (97.2 %) [default: all of Table 2]"
        ),
    ] = None,
    table: Annotated[
        Literal["1", "2", "all"], typer.Option(help="2: the rows; 1: the full model beside Brain2Image; all: both")
    ] = "2",
    figure: Annotated[
        int | None,
        typer.Option(min=5, max=5, help="5: also draw the rows side by side as figure-5.html [default rows: full,1,5,12,13,14]"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The embedded model and simulated pairs, two cores, half an hour")
    ] = False,
    preset: Annotated[
        str | None,
        typer.Option(help="default (one machine overnight), quick, shortest (every row runs, nothing is learned), or paper"),
    ] = None,
    pairs: Annotated[str | None, typer.Option(help=_setting("pairs"))] = None,
    store: Annotated[str | None, typer.Option(help=_setting("store"))] = None,
    sd: Annotated[str | None, typer.Option(help=_setting("sd"))] = None,
    clip: Annotated[str | None, typer.Option(help=_setting("clip"))] = None,
    workers: Annotated[int | None, typer.Option(min=1, help=_setting("workers"))] = None,
    scheduler: Annotated[str | None, typer.Option(help=_setting("scheduler"))] = None,
    device: DeviceOption = None,
    precision: Annotated[str | None, typer.Option(help=_setting("precision"))] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A setting, e.g. --set finetune_epochs=20 (repeat)")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the table as JSON")] = False,
) -> None:
    """Run rows of the paper's tables. Run again to finish.

    Prints each row beside what the paper reports.
    """
    from dreamdiff.programs.ablate_config import ABLATE_PRESETS, OF_FIGURE_5, TABLE2, AblateConfig, row_of
    from eegprep.settings import resolve

    options = {
        "pairs": pairs,
        "store": store,
        "sd": sd,
        "clip": clip,
        "workers": workers,
        "scheduler": scheduler,
        "device": device,
        "precision": precision,
    }
    name = preset or ("quick" if quick else "default")
    settings = resolve(AblateConfig, presets=ABLATE_PRESETS, preset=name, file=config, assignments=set_ or (), options=options)
    usual = list(TABLE2) if figure is None else list(OF_FIGURE_5)
    expected = [part.strip() for part in rows.split(",")] if rows else usual
    if figure is not None and table == "1":
        raise typer.BadParameter("--figure 5 shows rows of Table 2, leave --table out")
    for one in expected:
        row_of(one)
    require_existing(settings.pairs)
    require_existing(settings.store)
    from dreamdiff.figures.ablation import figure5
    from dreamdiff.figures.tables import tables_page
    from dreamdiff.programs.ablations import ablate as run
    from dreamdiff.programs.ablations import table1

    with progress("ablation") as report:
        rows_found = [] if table == "1" else run(out, expected, settings, progress=report)
        columns = [] if table == "2" else table1(out, settings, progress=report)
    if json:
        emit_json({"table1": columns, "table2": rows_found} if table == "all" else columns or rows_found)
    files = [out / f"table{number}.md" for number in ("2", "1") if table in (number, "all")]
    for file in files if not json else ():
        typer.echo(file.read_text(encoding="utf-8"))
    note(f"tables: {', '.join(map(str, files))}; page: {tables_page(out)}")
    if figure is not None:
        note(f"page: {figure5(out, rows_found, settings)}")
