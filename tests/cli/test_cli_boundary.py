"""Exit codes, one-line errors, the guard, and how fast help answers."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cli import main
from cli._app import App
from cli._defaults import DEFAULTS
from cli._output import emit_json, note
from eegprep.errors import SourceError, UsageError

ROOT = Path(__file__).parents[2]


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


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["inspect", "nothing.zarr", "--json"], 1, "nothing.zarr does not exist"),
        (["pad", "a", "b", "--mode", "replicat", "--json"], 2, "did you mean 'replicate'?"),
        (["pad", "a", "--json"], 2, "Missing argument"),
        (["verify", "x.zarr", "--quick", "--json"], 2, "No such option: --quick"),
    ],
)
def test_an_error_under_json_is_one_document_on_stdout(arguments, code, error, capsys, tmp_path, monkeypatch):
    """A script that reads stdout learns the cause there, whatever failed."""
    monkeypatch.chdir(tmp_path)

    assert main.run(main.eegprep_app, "eegprep", arguments) == code

    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert list(document) == ["error", "fix"]
    assert error in document["error"]
    assert printed.err == ""


READERS = [
    ("eegprep", "inspect {}"), ("eegprep", "verify {}"), ("eegprep", "report {}"), ("eegprep", "export {} out.h5"),
    ("eegprep", "filter {} out"), ("eegprep", "pad {} out"), ("eegprep", "merge {} --out out"),
    ("dreamdiff", "pairs audit {}"), ("dreamdiff", "pairs import {} --kind table --out out"),
    ("dreamdiff", "train msm --store {} --out out --preset tiny"), ("dreamdiff", "train finetune --pairs {} --encoder random:tiny --out out"),
    ("dreamdiff", "generate --model {0} --eeg {0} --out out"), ("dreamdiff", "evaluate --model {0} --pairs {0} --out out"),
    ("dreamdiff", "probe --model {0} --store {0}"), ("dreamdiff", "convert {} --out out"), ("dreamdiff", "app --model {}"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "line"), READERS)
def test_a_path_that_does_not_exist_is_the_same_error_everywhere(script, line, capsys, tmp_path, monkeypatch):
    """One cause, one sentence, one exit code, and the name that was probably meant."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.zarr").mkdir()

    assert main.run(getattr(main, f"{script}_app"), script, line.format("stor.zarr").split()) == 1

    assert capsys.readouterr().err == "error: stor.zarr does not exist\n  fix: check the path; did you mean store.zarr?\n"


@pytest.mark.parametrize("line", ["generate --model nothing --eeg x --out y", "train msm --store nothing --out run"])
def test_an_error_comes_before_heavy_imports(line, tmp_path):
    """Half a minute of imports before "does not exist" is what people complain about."""
    code = (
        f"import sys\nfrom cli import main\ncode = main.run(main.dreamdiff_app, 'dreamdiff', {line.split()!r})\n"
        "print(code, sorted({'torch', 'numpy', 'pandas', 'diffusers', 'zarr'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "1 []"


def test_dreamdiff_without_its_models_says_what_to_install(monkeypatch, capsys):
    """The base install has no PyTorch; a traceback from an import would not say what is missing."""
    monkeypatch.setattr(main, "MODELS", ("no_such_module",))

    assert main.run(app_that(lambda: pytest.fail("must not run")), "dreamdiff", ["demo"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: dreamdiff needs PyTorch and other packages that are not installed: no_such_module",
        "  fix: pip install 'eeg-dreamdiff[models]'",
    ]
    assert main.run(app_that(lambda: None), "eegprep", []) == 0


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_leaves_results_and_errors(flag, capsys):
    """A cron job wants the result and nothing else."""
    app = App()
    app.callback()(lambda: None)

    @app.command("work")
    def work():
        note("a message")
        emit_json({"result": 1})

    assert main.run(app, "eegprep", ["work", flag]) == 0
    printed = capsys.readouterr()
    assert (json.loads(printed.out), printed.err) == ({"result": 1}, "")
    assert main.run(app, "eegprep", ["work"]) == 0
    assert capsys.readouterr().err == "a message\n"


def test_verbose_shows_where_an_error_comes_from(capsys):
    """The traceback is for a report of a defect; without `-v` nobody sees it."""
    app = App()
    app.callback()(lambda: None)
    app.command("work")(raising(SourceError("a.edf is empty", "choose another file")))

    assert main.run(app, "eegprep", ["work", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert main.run(app, "eegprep", ["work"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def every_command(command: object, path: tuple[str, ...]) -> list[tuple[str, object]]:
    children = getattr(command, "commands", {})
    return [one for name, child in children.items() for one in every_command(child, (*path, name))] or [(" ".join(path), command)]


COMMANDS = [
    one
    for name in ("eegprep", "dreamdiff")
    for one in every_command(typer.main.get_command(getattr(main, f"{name}_app")), (name,))
]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_help_is_laid_out_as_people_know_it(name, command, monkeypatch):
    """Types are N or PATH, no brackets of the parser show, examples stand at the end, no line is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    text = command.get_help(typer.Context(command, info_name=name))

    assert "<int" not in text and "<str" not in text and "<path" not in text and "x>=" not in text
    assert "{" not in text.partition("\n")[0]
    assert f"\nExamples:\n  {name}" in text
    shown = re.sub(r"\s+", " ", text)
    for option in command.params:
        if option.name in DEFAULTS.get(command.settings, {}):
            messages = shown.partition(f"{max(option.opts, key=len)} ")[2][:250]
            assert "default" in messages, f"{option.name} shows no default"
    described = text.partition("Examples:")[0].splitlines()
    assert [line for line in described if len(line) > 80] == []


@pytest.mark.parametrize("script", ["eegprep", "dreamdiff"])
def test_every_command_has_one_line_under_a_heading(script, monkeypatch):
    """The list of commands is the first page that a newcomer reads: in the order of work, nothing cut."""
    monkeypatch.setenv("COLUMNS", "80")
    group = typer.main.get_command(getattr(main, f"{script}_app"))
    text = group.get_help(typer.Context(group, info_name=script))

    assert "..." not in text.partition("\n")[2]
    assert "\nMore:\n" not in text
    for name in group.commands:
        assert sum(line.startswith(f"  {name} ") for line in text.splitlines()) == 1


def test_ctrl_c_during_the_first_imports_is_one_line():
    """Half a second in, a traceback of somebody's import system helps nobody."""
    code = "import os, signal, sys; sys.argv = ['eegprep']; import cli; os.kill(os.getpid(), signal.SIGINT)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.returncode, done.stderr) == (130, "interrupted; nothing was done\n")


def test_ctrl_c_later_says_how_to_resume(monkeypatch, capsys):
    """The command can be run again; that is worth a line."""

    def interrupt():
        raise KeyboardInterrupt

    assert main.run(app_that(interrupt), "eegprep", []) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to resume\n"
