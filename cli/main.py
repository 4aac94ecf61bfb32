"""Entry points of both scripts, and the only place that turns an error into an exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from . import _commands  # noqa: F401  (registers the commands)
from ._app import dreamdiff_app, eegprep_app
from ._env import foreign_eegprep, foreign_message

# Typer brings its own click since 0.29 and uses the public one before: the base class is taken from what Typer itself raises
CLICK_ERROR = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


def eegprep(args: list[str] | None = None) -> NoReturn:
    """The `eegprep` script."""
    sys.exit(run(eegprep_app, "eegprep", args))


def dreamdiff(args: list[str] | None = None) -> NoReturn:
    """The `dreamdiff` script."""
    sys.exit(run(dreamdiff_app, "dreamdiff", args))


def run(app: typer.Typer, name: str, args: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 3 done with quarantined recordings."""
    arguments = sys.argv[1:] if args is None else args
    foreign = foreign_eegprep()
    # `doctor` must run in a broken environment, and `--help` imports nothing that could be the wrong package
    if foreign and not {"doctor", "--help", "-h", "--version"} & set(arguments):
        typer.echo(foreign_message(foreign), err=True)
        return 1
    try:
        result = app(args=arguments, prog_name=name, standalone_mode=False)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (what reads our output has enough; nothing is left to flush)
        return 0
    except Exception as error:
        return _report(error)
    except KeyboardInterrupt:
        typer.echo("stopped; run the same command again to go on", err=True)
        return 130
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, CLICK_ERROR):
        error.show()
        return error.exit_code
    if isinstance(error, typer.Abort):
        typer.echo("stopped", err=True)
        return 130

    from eegprep.errors import ToolkitError  # late: pulls numpy and scipy in through the package

    if isinstance(error, ToolkitError):
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror or error}\n  fix: {_os_fix(error)}", err=True)
        return 1
    raise error  # a defect of ours: the traceback is what we need


def _os_fix(error: OSError) -> str:
    import errno

    return {
        errno.ENOSPC: "free disk space, then run the same command again; finished work is kept",
        errno.EDQUOT: "free disk quota, then run the same command again; finished work is kept",
        errno.EROFS: "choose an output folder that can be written",
        errno.EACCES: "check the permissions of that path",
        errno.ENOENT: "check that path",
        errno.EIO: "check the disk, then run the same command again; finished work is kept",
    }.get(error.errno or 0, "mend the cause, then run the same command again; finished work is kept")
