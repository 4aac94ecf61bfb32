"""Exit codes, one-line errors, the guard, and how fast help answers."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import typer

from cli import main
from eegprep.errors import SourceError, UsageError


def app_that(action):
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def command():
        action()

    return app


def raising(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SourceError("a.edf: 3 channels (at least 8)", "choose another file"), 1, "  fix: choose another file"),
        (UsageError("there is no preset 'x'", "choose one of: tiny"), 2, "choose one of: tiny"),
        (OSError(errno.ENOSPC, "No space left on device", "corpus.zarr"), 1, "fix: free disk space"),
        (OSError(errno.EROFS, "Read-only file system", "corpus.zarr"), 1, "fix: choose an output folder"),
    ],
)
def test_an_error_becomes_its_cause_its_fix_and_its_exit_code(error, code, text, capsys):
    """A traceback tells a researcher nothing."""
    assert main.run(app_that(raising(error)), "eegprep", []) == code

    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert text in printed
    assert "Traceback" not in printed


def test_a_defect_of_ours_is_not_hidden():
    """Only our own errors are turned into lines; the rest must be seen and mended."""
    with pytest.raises(ZeroDivisionError):
        main.run(app_that(lambda: 1 / 0), "eegprep", [])


def test_wrong_usage_is_exit_2(capsys):
    """Scripts tell a typing mistake from a failed job."""
    assert main.run(app_that(lambda: None), "eegprep", ["--nonsense"]) == 2


def test_quarantined_recordings_are_exit_3():
    """The command raises typer.Exit(3); the boundary passes it on."""
    assert main.run(app_that(raising(typer.Exit(3))), "eegprep", []) == 3


@pytest.mark.parametrize("script", ["eegprep", "dreamdiff"])
def test_a_foreign_eegprep_stops_every_command(script, monkeypatch, capsys):
    """Python imports only one of two packages of one name, and says nothing."""
    monkeypatch.setattr(main, "foreign_eegprep", lambda: "0.4.0")

    assert main.run(app_that(lambda: pytest.fail("must not run")), script, []) == 1

    printed = capsys.readouterr().err
    assert "version 0.4.0" in printed
    assert "fix:" in printed


def test_doctor_runs_beside_a_foreign_eegprep(monkeypatch):
    """The command that explains a broken environment must run in it."""
    monkeypatch.setattr(main, "foreign_eegprep", lambda: "0.4.0")
    ran = []
    app = typer.Typer()
    app.command("doctor")(lambda: ran.append(1))
    app.command("other")(lambda: None)

    assert main.run(app, "eegprep", ["doctor"]) == 0
    assert ran == [1]


HEAVY = [
    "torch",
    "numpy",
    "scipy",
    "zarr",
    "mne",
    "moabb",
    "pandas",
    "pydantic",
    "diffusers",
    "open_clip",
    "eegprep",
    "dreamdiff",
]


@pytest.mark.parametrize("script", ["eegprep", "dreamdiff"])
def test_help_imports_nothing_heavy(script):
    """What makes help slow is imports; the list of modules is the same on every machine, seconds are not."""
    code = (
        "import sys, contextlib, io\nfrom cli import main\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    code = main.run(main.{script}_app, '{script}', ['--help'])\n"
        f"print(code, sorted(set({HEAVY}) & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "0 []"
