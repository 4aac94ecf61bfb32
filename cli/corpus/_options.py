"""Options that several `eegprep` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Sources = Annotated[
    list[str], typer.Argument(metavar="SOURCE...", help="Files, folders, moabb:NAME, bids:ROOT, files:GLOB or a manifest (.toml)")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Store to create or resume")]
Subjects = Annotated[str | None, typer.Option(help="Subjects, e.g. 1-10,12")]
Dataset = Annotated[str | None, typer.Option(help="Name of the data set [default: the class's or the folder's]")]
Scale = Annotated[float | None, typer.Option(help="Factor for all values, e.g. 1e-6 where microvolts are stored as volts")]
Bad = Annotated[
    Literal["keep", "reject"] | None,
    typer.Option(help="Stretches marked BAD: kept, or taken as not recorded [default: keep]"),
]
Sfreq = Annotated[float | None, typer.Option(help="Rate of files that do not say it, such as tables and arrays, Hz")]
Unit = Annotated[Literal["uV", "mV", "V"] | None, typer.Option(help="Unit of channels whose file does not say it")]
ChannelNames = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_LIST",
        help="Names of channels, for files without; or which channels are EEG, where their names do not tell",
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Where MOABB's data sets lie [default: MNE_DATA]")]
Accept = Annotated[list[str] | None, typer.Option(help="Licence to accept; may be given several times")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only files that are already here; never connect to the network")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan, then stop")]
KeepPrivate = Annotated[bool, typer.Option("--keep-private", help="Keep dates and subject information of file headers")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]
Workers = Annotated[int, typer.Option(min=1, help="Number of worker processes")]
Scheduler = Annotated[str | None, typer.Option(help="Dask scheduler to use instead, e.g. tcp://host:8786")]
Lock = Annotated[Path | None, typer.Option(help="Write a lock file here, which `eegprep build` repeats")]
MaxMemory = Annotated[str | None, typer.Option(help="For all workers together, e.g. 4GB")]
Low = Annotated[float | None, typer.Option(help="Lower edge of the pass band, Hz [default: 5]")]
High = Annotated[float | None, typer.Option(help="Upper edge of the pass band, Hz [default: 95]")]
Nyquist = Annotated[
    Literal["clip", "highpass", "skip", "error"] | None,
    typer.Option(help="When the upper edge does not fit the rate [default: clip, to 0.45 x rate]"),
]
Resample = Annotated[float | None, typer.Option(help="Common rate, Hz [default: each recording's own]")]
Notch = Annotated[str | None, typer.Option(help="Line frequency to remove, Hz, or 'auto' [default: off]")]
Channels = Annotated[int | None, typer.Option(help="Rows of a window [default: 128]")]
Window = Annotated[int | None, typer.Option(help="Samples of a window [default: 512]")]
Stride = Annotated[int | None, typer.Option(help="Samples from window to window [default: the window]")]
Mode = Annotated[
    Literal["replicate", "zeros", "spline"] | None, typer.Option(help="How missing rows are filled [default: replicate]")
]
Windows = Annotated[
    Literal["sliding", "trials"] | None, typer.Option(help="Over the recording, or one per trial [default: sliding]")
]
Short = Annotated[Literal["skip", "stretch"] | None, typer.Option(help="Recordings shorter than a window [default: skip]")]
Order = Annotated[
    Literal["source", "canonical"] | None, typer.Option("--channel-order", help="Order of channels [default: source]")
]
MaxPerSubject = Annotated[int | None, typer.Option(help="Seeded draw of at most so many windows a subject")]
Seed = Annotated[
    int | None,
    typer.Option(help="Random seed for --max-per-subject [default: 0]"),
]
MinChannels = Annotated[int | None, typer.Option(help="Quarantine recordings with fewer EEG channels than this [default: 1]")]
MaxChannels = Annotated[
    int | None, typer.Option(help="Quarantine recordings with more EEG channels than this [default: no limit]")
]
SelectChannels = Annotated[
    str | None,
    typer.Option(
        metavar="FILE_OR_LIST",
        help="Only these channels, by name [default: all; of more than fit, as many as fit, spread over the head]",
    ),
]
MinUv = Annotated[
    float | None,
    typer.Option(help="Quarantine recordings whose median channel deviates by less than this after filtering, uV [default: 1]"),
]
MaxUv = Annotated[
    float | None,
    typer.Option(help="Quarantine recordings whose median channel deviates by more than this after filtering, uV [default: 300]"),
]


def names_of(text: str | None) -> tuple[str, ...] | None:
    """Channel names out of a list with commas, or a file with one name a line."""
    if text is None:
        return None
    path = Path(text)
    if "," not in text and path.is_file():
        text = path.read_text("utf-8-sig")
    return tuple(name for name in (part.strip() for part in text.replace("\n", ",").split(",")) if name)
