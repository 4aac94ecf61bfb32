"""`train align` and `retrieve`: what is typed wins over what a file says."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cli._app import dreamdiff_app
from eegprep.settings import Settings


class Reached(Exception):
    """The work would begin now."""


@pytest.fixture
def settings_of(monkeypatch, tmp_path):
    """The settings that a command line comes to, with a configuration file; the work itself is not done."""
    (tmp_path / "pairs.zarr").mkdir()
    (tmp_path / "aligned").mkdir()

    def reach(*arguments, **options):
        raise Reached(next(value for value in arguments if isinstance(value, Settings)))

    monkeypatch.setattr("dreamdiff.alignment.prepare.prepare", reach)
    monkeypatch.setattr("dreamdiff.evaluation.retrieve.retrieve", reach)

    def settings(command, *options, file):
        (tmp_path / "settings.toml").write_text(file)
        line = [*command.split(), *options, "--pairs", tmp_path / "pairs.zarr", "--out", tmp_path / "out"]
        line += ["--config", tmp_path / "settings.toml"]
        (result,) = CliRunner().invoke(dreamdiff_app, [str(part) for part in line]).exception.args
        return result

    return settings


def test_loss_wins_over_a_file_and_one_weight_can_still_be_set(settings_of):
    """A file with weights of its own must not turn `--loss cosine` into something else without a word."""
    file = "[loss]\nerror = 3.0\nscale = 5.0\n"

    loss = settings_of("train align", "--loss", "cosine", "--set", "loss.contrastive=0.5", file=file).loss

    assert (loss.error, loss.contrastive, loss.cosine, loss.scale) == (0.0, 0.5, 1.0, 5.0)


def test_options_of_retrieve_win_over_a_file(settings_of, tmp_path):
    """`--repetitions` and `--target` as every other option."""
    result = settings_of(
        "retrieve", "--model", tmp_path / "aligned", "--repetitions", "1, all", "--target", "second",
        file='repetitions = ["2"]\ntarget = "first"\nseed = 7\n',
    )  # fmt: skip

    assert (result.repetitions, result.target, result.seed) == (("1", "all"), "second", 7)
