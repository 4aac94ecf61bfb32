"""Baselines without a model of ours: one command, the same trials, what is missing by name."""

from __future__ import annotations

import json

from tiny_evaluation import tiny_pairs, tiny_parts

from cli.main import dreamdiff_app, run


def arguments(out, *more):
    sd, clip = tiny_parts()
    always = [
        "--pairs",
        tiny_pairs(),
        "--clip",
        clip,
        "--set",
        f"sd={sd}",
        "--set",
        "baseline_epochs=1",
        "--samples",
        "1",
        "--steps",
        "2",
    ]
    return [str(item) for item in ["evaluate", *always, "--out", out, *more]]


def test_one_command_measures_named_baselines_and_writes_a_page(tmp_path, capsys):
    """Seed, number of trials and interval stand beside every number, and the page says that the EEG is simulated."""
    code = run(
        dreamdiff_app, "dreamdiff", arguments(tmp_path / "out", "--baseline", "thoughtviz", "--baseline", "takagi", "--json")
    )

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [result["name"] for result in printed["baselines"]] == ["ThoughtViz", "Takagi and Nishimoto"]
    for result in printed["baselines"]:
        assert {"psnr", "ssim"} <= {m["name"] for m in result["measurements"]}
        assert all({"seed", "n", "low", "high", "protocol"} <= set(m) for m in result["measurements"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "simulated" in page and "ten imagined objects" in page


def test_a_baseline_without_its_generator_is_named_and_the_others_are_measured(tmp_path, capsys):
    """Nothing stands in for a missing part."""
    code = run(
        dreamdiff_app,
        "dreamdiff",
        arguments(tmp_path / "out", "--baseline", "takagi", "--baseline", "thoughtviz", "--clip", "none", "--json"),
    )

    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [result["name"] for result in printed["baselines"]] == ["ThoughtViz"]
    assert "needs the frozen generator" in printed["not_computed"]["baseline takagi"]


def test_an_unknown_baseline_is_refused_before_anything_is_read(tmp_path, capsys):
    """With the name that was meant."""
    assert run(dreamdiff_app, "dreamdiff", arguments(tmp_path / "out", "--baseline", "thoughtvis")) == 2
    assert "did you mean 'thoughtviz'" in capsys.readouterr().err
