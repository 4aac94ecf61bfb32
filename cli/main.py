"""Entry points of both scripts, and the only place that turns an error into an exit code."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any, NoReturn

import typer

from . import (
    _commands,  # noqa: F401  (registers the commands)
    stop,
)
from ._app import dreamdiff_app, eegprep_app
from ._env import foreign_eegprep, foreign_message
from ._help import closest
from ._output import DETAIL, emit_json

# Typer brings its own click since 0.29 and uses the public one before: the base class is taken from what Typer itself raises
CLICK_ERROR = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")
# these import nothing that could be the wrong package, or is missing
ALWAYS = {"--help", "-h", "--version", "--install-completion", "--show-completion"}
MODELS = ("torch", "diffusers", "open_clip", "safetensors")  # what `[models]` adds, by the names that Python imports
MODELS_MESSAGE = "dreamdiff needs PyTorch and other packages that are not installed: {}"
MODELS_FIX = "pip install 'eeg-dreamdiff[models]'"


def eegprep(args: list[str] | None = None) -> NoReturn:
    """The `eegprep` script."""
    sys.exit(run(eegprep_app, "eegprep", args))


def dreamdiff(args: list[str] | None = None) -> NoReturn:
    """The `dreamdiff` script."""
    sys.exit(run(dreamdiff_app, "dreamdiff", args))


def run(app: typer.Typer, name: str, args: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 3 done with quarantined recordings."""
    if signal.getsignal(signal.SIGINT) is stop:  # from here on an interrupted command can be resumed
        signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = sys.argv[1:] if args is None else args
    as_json = "--json" in arguments
    if not ALWAYS & set(arguments):
        foreign = foreign_eegprep()
        if foreign and "doctor" not in arguments:  # which explains a broken environment
            typer.echo(foreign_message(foreign), err=True)
            return 1
        missing = missing_models() if name == "dreamdiff" and arguments and not foreign else []  # without arguments it shows help
        if missing:
            return _show(MODELS_MESSAGE.format(", ".join(missing)), MODELS_FIX, as_json, 1)
    try:
        with _network(arguments):
            result = app(args=arguments, prog_name=name, standalone_mode=False)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (what reads our output has enough; nothing is left to flush)
        return 0
    except Exception as error:
        if DETAIL.verbose and not isinstance(error, typer.Exit):
            import traceback

            traceback.print_exception(error)
        return _report(error, as_json)
    except KeyboardInterrupt:
        return _interrupted()
    return _interrupted() if result == 130 else result if isinstance(result, int) else 0


def missing_models() -> list[str]:
    """Modules of the `models` extra that are not installed; none of them is imported."""
    return [module for module in MODELS if find_spec(module) is None]


def _network(arguments: list[str]) -> AbstractContextManager[object]:
    """Under `--offline` no internet socket in this process and in those that it starts, from before the first library is imported."""
    if "--offline" not in arguments:
        return nullcontext()
    from eegprep.offline import no_network  # late: only commands with the option pay for it

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return no_network(everywhere=True)


def _interrupted() -> int:
    typer.echo("interrupted; run the same command again to resume", err=True)
    return 130


def _report(error: Exception, as_json: bool) -> int:
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        return _interrupted()
    if isinstance(error, CLICK_ERROR):
        if type(error).__name__ == "NoArgsIsHelpError":  # the help that Typer shows instead is no error
            error.show()
            return error.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context else ""
        return _show(_message(error), f"{command} --help".strip() + " lists what it takes", as_json, error.exit_code)

    from eegprep.errors import ToolkitError  # late: `--help` stays free of imports

    if isinstance(error, ToolkitError):
        return _show(error.problem, error.fix, as_json, error.exit_code)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _show(f"{where}{error.strerror or error}", _os_fix(error), as_json, 1)
    if isinstance(error, MemoryError):
        return _show("not enough memory", "ask for less at once, or use a machine with more memory", as_json, 1)
    raise error  # a defect of ours: the traceback is what we need


def _show(problem: str, fix: str, as_json: bool, code: int) -> int:
    """Print an error: one document on stdout for programs, else two lines on stderr."""
    if as_json:
        emit_json({"error": problem, "fix": fix})
    else:
        typer.echo(f"error: {problem}\n  fix: {fix}", err=True)
    return code


def _message(error: Any) -> str:
    """What is wrong with the command line, with the nearest choice where a value is misspelt."""
    text = error.format_message().rstrip(".")
    parameter = getattr(error, "param", None)
    choices = getattr(getattr(parameter, "type_descriptor", None), "choices", None)
    value = text.partition(": ")[2].removeprefix("Value error, ").split("'")
    if not choices or len(value) < 2:
        return text
    known = [str(getattr(choice, "value", choice)) for choice in choices]
    near = closest(value[1], known)
    return f"{max(parameter.opts, key=len)}: {value[1]!r} is not one of {', '.join(known)}{near}"


def _os_fix(error: OSError) -> str:
    import errno

    return {
        errno.ENOSPC: "free disk space, then run the same command again; finished work is kept",
        errno.EDQUOT: "free disk quota, then run the same command again; finished work is kept",
        errno.EROFS: "choose an output folder that can be written",
        errno.EACCES: "check the permissions of that path",
        errno.ENOENT: "check that path",
        errno.EIO: "check the disk, then run the same command again; finished work is kept",
    }.get(error.errno or 0, "fix the cause, then run the same command again; finished work is kept")
