"""The two Typer apps and their sub-apps. Nothing heavy is imported here, so that `--help` answers at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import _output
from ._help import Command, Group

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also print what libraries log, and a traceback with an error")]
Wide = Annotated[bool, typer.Option("--wide", help="Do not fit tables to the terminal, and list every finding")]
CreateConfig = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a commented TOML file with every setting of the preset, then stop")
]
JSON_NAMES = {"json", "json_", "as_json"}  # commands that print tables have one of these


class App(typer.Typer):
    """A Typer app whose commands show examples, take `-q` and `-v`, and check that the stores they are given exist."""

    def command(
        self, name: str | None = None, *, examples: str = "", inputs: Sequence[str] = (), settings: str = "", **options: Any
    ) -> Callable:
        """Register a command.

        Args:
            name: of the command; default: that of the function.
            examples: command lines that work, one a line; shown at the end of `--help` and parsed by a test.
            inputs: parameters that name stores, runs or files to read. One that does not exist is an error before anything
                heavy is imported, in the same words for every command.
            settings: name in `_settings.CONFIGURATIONS`: the command then has `--create-config`, and the shell completes its
                presets and `--set` keys.
        """

        def register(function: Callable) -> Callable:
            signature = inspect.signature(function, eval_str=True)
            added = {"quiet": Quiet, "verbose": Verbose} | ({"wide": Wide} if JSON_NAMES & set(signature.parameters) else {})
            added |= {"create_config": CreateConfig} if settings and "config" in signature.parameters else {}
            common = [
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None if kind is CreateConfig else False, annotation=kind
                )
                for name, kind in added.items()
            ]

            @functools.wraps(function)
            def call(*, quiet: bool, verbose: bool, wide: bool = False, create_config: Path | None = None, **values: Any) -> Any:
                _output.set_detail(quiet=quiet, verbose=verbose, wide=wide)
                for parameter in inputs:
                    require_existing(values.get(parameter))
                    values[parameter] = _local(values.get(parameter), bool(values.get("offline")))
                return function(**values)

            call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *common])  # type: ignore[attr-defined]
            call.__annotations__ = {one.name: one.annotation for one in call.__signature__.parameters.values()}  # type: ignore[attr-defined]
            del call.__wrapped__  # Typer would read the parameters of the function inside
            epilog = inspect.cleandoc(examples) or None
            kind = type("CommandWithSettings", (Command,), {"settings": settings})
            super(App, self).command(name, cls=kind, epilog=epilog, **options)(call)
            return function

        return register


def require_existing(value: Any) -> None:
    """Raise where a path that a command should read does not exist; addresses and names with a prefix are left to the reader."""
    for one in value if isinstance(value, list | tuple) else [value]:
        text = "" if one is None else str(one)
        # a colon: an address of a store, or a name such as random:PRESET
        if text and ":" not in text:
            from eegprep.errors import require_path

            require_path(text)


def _local(value: Any, offline: bool) -> Any:
    """A model or pairs of the Hub (`hf:owner/name@revision`, `hf://datasets/owner/name`) as the folder they were downloaded to."""
    text = str(value) if isinstance(value, str | Path) else ""
    if not text.startswith("hf:"):
        return value
    if not text.startswith("hf:/"):
        from dreamdiff.untrusted.hub import model_folder

        return type(value)(model_folder(text, offline=offline))
    # a Path has made one slash of two
    return value if isinstance(value, str) else _local_pairs(text, offline)


def _local_pairs(address: str, offline: bool) -> Path:
    from dreamdiff.untrusted.hub import pairs_folder

    return pairs_folder(address, offline=offline)


def _app(help: str, panels: dict[str, tuple[str, ...]] | None = None, leads: dict[str, str] | None = None) -> App:
    group = type("Panels", (Group,), {"panels": panels or {}, "leads": leads or {}})
    return App(
        help=help,
        cls=group,
        no_args_is_help=True,
        rich_markup_mode=None,  # brackets in help texts are brackets
        pretty_exceptions_enable=False,  # errors are printed by main.py, in one line
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


eegprep_app = _app(
    "Turn EEG recordings, public or your own, into one verified corpus.",
    {
        "Find and fetch": ("datasets", "fetch"),
        "Build a corpus": ("build", "filter", "pad", "index"),
        "Look and check": ("inspect", "verify", "report"),
        "Pass on": ("export", "merge", "push"),
        "Installation": ("doctor",),
    },
)
dreamdiff_app = _app(
    "Train EEG encoders, turn EEG into images, and measure what the images are worth.",
    {
        "Start here": ("demo", "app"),
        "Data": ("pairs",),
        "Train": ("train", "probe", "adapt"),
        "Use a model": ("generate", "retrieve"),
        "Judge": ("evaluate", "ablate"),
        "Pass on": ("convert", "push"),
        "Installation": ("settings", "doctor"),
    },
)
train_app = _app(
    "Train an encoder (msm), align it with images (align), train Stable Diffusion (finetune).",
    {"Commands": ("msm", "align", "finetune")},
    {
        "--store": "dreamdiff train msm {}, then dreamdiff train finetune --pairs PAIRS --encoder RUN --out RUN2",
        "--encoder": "dreamdiff train finetune {}",
        "--pairs": "dreamdiff train finetune {}, or dreamdiff train align for image vectors without a U-Net",
    },
)
pairs_app = _app("Import, simulate and audit EEG-image pairs.", {"Commands": ("table", "import", "fetch", "simulate", "audit")})
dreamdiff_app.add_typer(train_app, name="train")
dreamdiff_app.add_typer(pairs_app, name="pairs")
