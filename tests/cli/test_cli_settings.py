"""Settings are listed, written as TOML and completed by the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib

import pytest

from cli import _settings, main
from eegprep.settings import resolve


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


def test_a_wrong_preset_is_an_error_before_pytorch_is_loaded(tmp_path):
    """Seconds of imports before a spelling mistake is named are seconds too many."""
    (tmp_path / "c.zarr").mkdir()
    line = ["train", "msm", "--store", str(tmp_path / "c.zarr"), "--out", str(tmp_path / "run"), "--preset", "tny"]
    code = (
        f"import sys\nfrom cli import main\ncode = main.run(main.dreamdiff_app, 'dreamdiff', {line!r})\n"
        "print(code, sorted({'torch', 'diffusers'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "2 []"
    assert "did you mean 'tiny'?" in done.stderr
