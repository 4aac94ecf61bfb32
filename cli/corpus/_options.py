"""Options that several `eegprep` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .._described import field_help


def _recipe(field: str) -> str:
    """Help of an option that is a setting of the recipe."""
    return field_help("eegprep.signals.recipe", "Recipe", field)


def _file(field: str) -> str:
    """Help of an option that says of a file what it does not say itself."""
    return field_help("eegprep.sources.file_reading", "FileReading", field)


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Files, folders, moabb:NAME, openneuro:ID, nemar:ID, bids:ROOT, files:GLOB or a manifest (.toml)",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Store to create or resume")]
Subjects = Annotated[str | None, typer.Option(help="Subjects, e.g. 1-10,12")]
Dataset = Annotated[str | None, typer.Option(help="Name of the data set [default: the class's or the folder's]")]
Scale = Annotated[float | None, typer.Option(help=_file("scale"))]
Bad = Annotated[
    Literal["keep", "reject"] | None,
    typer.Option(help="Stretches marked BAD: kept, or taken as not recorded [default: keep]"),
]
Sfreq = Annotated[float | None, typer.Option(help=_file("sfreq"))]
Unit = Annotated[Literal["uV", "mV", "V"] | None, typer.Option(help=_file("unit"))]
ChannelNames = Annotated[str | None, typer.Option(metavar="FILE_OR_LIST", help=_file("channel_names"))]
SubjectPattern = Annotated[
    str | None,
    typer.Option(
        metavar="RE", help="Regular expression for names of files: its first group, or all that it matches, is the person"
    ),
]
SessionPattern = Annotated[str | None, typer.Option(metavar="RE", help="The same for the session")]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets of MOABB and of archives lie [default: MNE_DATA]")]
Accept = Annotated[list[str] | None, typer.Option(help="Licence to accept; may be given several times")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only files that are already here; never connect to the network")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, then stop")]
KeepPrivate = Annotated[bool, typer.Option("--keep-private", help="Keep dates and subject information of file headers")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]
Workers = Annotated[int, typer.Option(min=1, help="Number of worker processes")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler to use instead, e.g. tcp://host:8786")]
Rebuild = Annotated[
    bool,
    typer.Option("--rebuild", help="Where the store was made with other settings, make it again; the old one stays until then"),
]
Lock = Annotated[Path | None, typer.Option(help="Write a lock file here, which `eegprep build` repeats")]
MaxMemory = Annotated[str | None, typer.Option(help="For all workers together, e.g. 4GB")]
Low = Annotated[float | None, typer.Option(help=_recipe("low"))]
High = Annotated[float | None, typer.Option(help=_recipe("high"))]
Nyquist = Annotated[
    Literal["clip", "highpass", "skip", "error"] | None,
    typer.Option(help=_recipe("nyquist")),
]
Resample = Annotated[float | None, typer.Option(help=_recipe("resample"))]
Notch = Annotated[str | None, typer.Option(help=_recipe("notch"))]
Channels = Annotated[int | None, typer.Option(help=_recipe("channels"))]
Window = Annotated[int | None, typer.Option(help=_recipe("window"))]
Stride = Annotated[int | None, typer.Option(help=_recipe("stride"))]
Mode = Annotated[Literal["replicate", "zeros", "spline"] | None, typer.Option(help=_recipe("mode"))]
Windows = Annotated[Literal["sliding", "trials"] | None, typer.Option(help=_recipe("windows"))]
Short = Annotated[Literal["skip", "stretch"] | None, typer.Option(help=_recipe("short"))]
Order = Annotated[Literal["source", "canonical"] | None, typer.Option("--channel-order", help=_recipe("channel_order"))]
MaxPerSubject = Annotated[int | None, typer.Option(help=_recipe("max_per_subject"))]
Seed = Annotated[
    int | None,
    typer.Option(help=_recipe("seed")),
]
MinChannels = Annotated[int | None, typer.Option(help=_recipe("min_channels"))]
MaxChannels = Annotated[int | None, typer.Option(help=_recipe("max_channels"))]
SelectChannels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_LIST",
        help=_recipe("select_channels"),
    ),
]
MinUv = Annotated[
    float | None,
    typer.Option(help=_recipe("min_uv")),
]
MaxUv = Annotated[
    float | None,
    typer.Option(help=_recipe("max_uv")),
]


def names_of(text: str | None) -> tuple[str, ...] | None:
    """Channel names out of a list with commas, or a file with one name a line."""
    if text is None:
        return None
    path = Path(text)
    if "," not in text and path.is_file():
        text = path.read_text("utf-8-sig")
    return tuple(name for name in (part.strip() for part in text.replace("\n", ",").split(",")) if name)
