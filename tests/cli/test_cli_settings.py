"""Settings are listed, written as TOML and completed by the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli import _settings, main
from eegprep.settings import resolve

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> int:
    return main.run(main.dreamdiff_app, "dreamdiff", [str(one) for one in arguments])


@pytest.mark.parametrize("command", ["train msm", "train align", "train finetune", "generate", "build"])
def test_a_created_file_gives_back_the_settings_that_it_was_made_of(command, tmp_path):
    """Every key is in it, with a value that TOML reads as the same."""
    schema, presets = _settings.load(command)
    for preset in [None, *presets]:
        text = _settings.toml(command, preset)
        (tmp_path / "settings.toml").write_text(text)

        assert resolve(schema, presets=presets, preset=preset, file=tmp_path / "settings.toml") == resolve(
            schema, presets=presets, preset=preset
        )
        for one in _settings.settings(command, preset):
            assert f"{one.key.rpartition('.')[2]} = " in text


def test_create_config_needs_no_other_option(tmp_path, capsys):
    """One asks for the file before one knows what else the command wants; an existing file is left alone."""
    file = tmp_path / "msm.toml"

    assert run("train", "msm", "--preset", "tiny", "--create-config", file) == 0
    assert tomllib.loads(file.read_text())["model"]["encoder"]["width"] == 64
    assert run("train", "msm", f"--create-config={file}") == 2
    assert "exists already" in capsys.readouterr().err


def test_settings_lists_keys_values_and_presets(capsys):
    """`--set` needs the names of the keys."""
    assert run("settings", "train", "msm", "--preset", "tiny", "--json") == 0
    listed = {one["key"]: one["value"] for one in json.loads(capsys.readouterr().out)}
    assert listed["model.encoder.width"] == 64

    assert run("settings", "tran", "msm") == 2
    assert "did you mean 'train msm'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "words", "expected"),
    [
        ("dreamdiff", "dreamdiff train msm --preset tin", ["tiny"]),
        ("dreamdiff", "dreamdiff train msm --set loop.e", ["loop.ema=", "loop.epochs="]),
        ("dreamdiff", "dreamdiff ev", ["evaluate"]),
        ("eegprep", "eegprep build sa", ["sample.toml"]),
        ("eegprep", "eegprep pad a b --mode re", ["replicate"]),
    ],
)
def test_the_shell_completes_values(script, words, expected):
    """Commands, choices, presets, settings and manifests on TAB."""
    code = f"from cli.main import {script}; {script}()"
    variables = {f"_{script.upper()}_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **variables}
    )

    assert sorted(done.stdout.split()) == expected


WRONG = [  # what is wrong with a command line, and what it is told
    ("train msm --store {store} --out run --preset tny", "did you mean 'tiny'?"),
    ("train finetune --pairs {store} --encoder random:tiny --out run --preset tny", "did you mean 'tiny'?"),
    ("train align --pairs {store} --out run --preset tny", "did you mean 'tiny'?"),
    ("adapt --model {store} --pairs {store} --out run --set optim.lrr=1", "optim.lrr"),
    ("generate --model {store} --eeg {store} --out images --set stepps=1", "did you mean 'steps'?"),
    ("retrieve --model {store} --pairs {store} --out found --set wayz=4", "did you mean 'ways'?"),
    ("evaluate --model {store} --pairs {store} --out found --set sampels=4", "did you mean 'samples'?"),
    ("evaluate --model {store} --pairs {store} --out found --figure 5", "dreamdiff ablate"),
    ("evaluate --model {store} --pairs {store} --out found --figure 7", "there is no Figure 7"),
    ("evaluate --model {store} --pairs {store} --out found --lpips nothing.pth", "nothing.pth does not exist"),
    ("evaluate --check nothing", "nothing does not exist"),
    ("evaluate --pairs {store} --out found", "missing --model"),
    ("ablate --out tables --rows 1,99", "Table 2 has no row '99'"),
    ("ablate --out tables --set pairs=nothing.zarr", "nothing.zarr does not exist"),
    ("ablate --out tables --preset quik", "did you mean 'quick'?"),
    ("ablate --out tables --table 1 --figure 5", "leave --table out"),
    ("demo --out {full}", "is not a demo folder"),
    ("demo --out new --set trails=5", "did you mean 'trials'?"),
]


@pytest.mark.parametrize(("line", "says"), WRONG)
def test_a_mistake_is_an_error_before_pytorch_is_loaded(line, says, tmp_path):
    """Seconds of imports before a spelling mistake is named are seconds too many."""
    store, full = tmp_path / "c.zarr", tmp_path / "full"
    for folder in (store, full):
        folder.mkdir()
    (full / "thesis.tex").touch()
    arguments = line.format(store=store, full=full).split()
    code = (
        f"import sys\nfrom cli import main\ncode = main.run(main.dreamdiff_app, 'dreamdiff', {arguments!r})\n"
        "print(code, sorted({'torch', 'diffusers'} & set(sys.modules)))"
    )

    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)

    assert done.stdout.strip() in ("1 []", "2 []")
    assert says in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.zarr", "full"]
