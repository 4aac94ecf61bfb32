"""Tables 1 and 2: the paper's rows as they are printed, runs that resume, and a table that does not flatter."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path

import numpy as np
import pytest
from tiny_evaluation import tiny_pairs, tiny_parts

from dreamdiff.certificates.check import check_report
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder, parameter_count
from dreamdiff.figures.tables import tables_page
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.pairs.reader import Pairs
from dreamdiff.programs import ablations as a
from dreamdiff.programs import tables as a_tables
from dreamdiff.programs.ablate_config import ABLATE_PRESETS, ROWS, TABLE2
from dreamdiff.programs.label_input import label_pairs
from dreamdiff.protocols.frame import SIMULATED
from eegprep.errors import DataError, UsageError
from eegprep.pool import Budget, run_jobs
from eegprep.settings import resolve

# facts of the paper, Table 2: row, pre-training, CLIP, mask ratio, tuned, parameters, accuracy
PRINTED = """
full yes yes 0.75 E+A 297 45.8
1 no no - E+A 297 4.2
2 no no - E+A 18.3 3.7
3 no yes - E+A 297 32.3
4 no yes - E+A 18.3 24.5
5 yes yes 0.25 E+A 297 19.7
6 yes yes 0.5 E+A 297 38.3
7 yes yes 0.85 E+A 297 33.4
8 yes yes 0.75 E+A 458 38.5
9 yes yes 0.75 E+A 162 36.6
10 yes yes 0.75 E+A 74 29.8
11 yes yes 0.75 E+A 18.3 28.7
12 yes yes 0.75 Eonly 297 22.4
13 yes no 0.75 E+A 297 28.3
14 yes no 0.75 Aonly 297 20.9
"""


def tiny_config(**extra) -> a.AblateConfig:
    sd, clip = tiny_parts()
    plain = {
        "pairs": str(tiny_pairs()), "sd": str(sd), "clip": str(clip), "pretrain_steps": 2, "finetune_epochs": 1, "trials": 4,
        "samples": 1, "steps": 1, "baseline_epochs": 1, "classifier": "efficientnet-lite0",
    }  # fmt: skip
    return a.AblateConfig(**{**plain, **extra})


def measured(name: str, values: list[float], paper: float | None) -> dict:
    found = {"value": float(np.mean(values)), "low": 0.0, "high": 1.0, "floor": 0.1}
    return {
        "row": name, "msm": True, "clip": True, "mask": 0.75, "tuned": "E + A", "params_paper": "297 M", "params": 1_500_000,
        "paper": paper, "measured": {a_tables.ACCURACY: found}, "values": {a_tables.ACCURACY: values},
    }  # fmt: skip


def test_rows_are_those_of_the_paper():
    """A slip in one of fifteen rows would compare with the wrong number."""
    for line in PRINTED.split("\n")[1:-1]:
        name, msm, clip, mask, tuned, size, accuracy = line.split()
        row = ROWS[name]
        assert (row.mask is not None) == (msm == "yes") and row.clip == (clip == "yes"), name
        assert row.mask == (None if mask == "-" else float(mask)) and row.size == size and row.paper == float(accuracy), name
        assert row.tuned.replace(" ", "") == tuned, name
    assert len(TABLE2) == 15


def test_rows_change_what_they_say_and_nothing_else():
    """An ablation that changes two things explains neither."""
    config = a.AblateConfig()
    full = a.finetune_config(ROWS["full"], config).model_dump()

    def differences(name: str) -> dict:
        other = a.finetune_config(ROWS[name], config).model_dump()
        return {
            f"{section}.{key}": value
            for section, values in other.items()
            for key, value in values.items()
            if value != full[section][key]
        }

    assert differences("1") == {"losses.w_clip": 0.0} and differences("13") == {"losses.w_clip": 0.0}
    assert differences("3") == differences("5") == differences("8") == {}
    assert differences("12") == {"what.trains": "none"}
    assert differences("14") == {"losses.w_clip": 0.0, "what.train_encoder": False}
    assert differences("labels") == {"losses.w_clip": 0.0, "losses.w_class": 1.0}
    assert a.pretrain_config(0.25, "297", config).model.mask_ratio == 0.25
    assert a.pretrain_config(0.25, "297", config).model.encoder == a.pretrain_config(0.75, "297", config).model.encoder


def test_paper_scale_is_the_papers():
    """Same presets and lengths as `dreamdiff train`, nothing of the small scale."""
    config = resolve(a.AblateConfig, presets=ABLATE_PRESETS, preset="paper")
    tuned = a.finetune_config(ROWS["full"], config)

    assert tuned.loop.epochs == FinetuneConfig().loop.epochs == 300 and tuned.optim == FinetuneConfig().optim
    taught = a.pretrain_config(0.75, "297", config)
    assert taught.model.encoder.width == 1024 and taught.model.encoder.depth == 24 and taught.loop.epochs == 500
    assert a.encoder_settings(ROWS["2"], "paper") == "shallow2" and a.encoder_settings(ROWS["8"], "paper") == "w1280"


def test_small_sizes_keep_the_order_of_the_printed_ones():
    """18.3 < 74 < 162 < 297 < 458, and the shallow encoder has two layers."""
    counts = [parameter_count(EEGEncoder(EncoderConfig(**a.SMALL_SIZES[s]))) for s in ("18.3", "74", "162", "297", "458")]

    assert counts == sorted(counts) and len(set(counts)) == 5
    shallow = a.encoder_settings(ROWS["2"], "small")
    assert shallow["depth"] == 2 and shallow["width"] == a.SMALL_SIZES["297"]["width"]


@pytest.mark.slow
def test_rows_run_resume_and_are_tabled(tmp_path, monkeypatch):
    """Two rows end to end; run again they are kept, and a third is added without touching them."""
    config = tiny_config()
    table = a.ablate(tmp_path, ["2", "14"], config)

    assert [row["row"] for row in table] == ["2", "14"] and all(a_tables.ACCURACY in row["measured"] for row in table)
    text = (tmp_path / "table2.md").read_text()
    assert "| 2 | no | no | - | E + A | 18.3 M | " in text and " 3.7 | " in text and "Floor of 50-way-top-1" in text
    assert json.loads((tmp_path / "table2.json").read_text())["rows"] == table
    page = tables_page(tmp_path).read_text()
    shown = a_tables.figures_of(table)
    assert len(shown) == sum(len(row["measured"]) for row in table) > 2
    for figure in shown:
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert escape(f"{figure['protocol']}; n = {figure['n']}, seed {figure['seed']}, 95 % intervals") in page
        assert f"{100 * figure['value']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]" in page
    assert (SIMULATED in page) == (SIMULATED in text) == (Pairs.open(config.pairs).provenance == "simulated")
    checked = check_report(tmp_path)
    assert checked.hashes == ("model", "pairs", "images")
    assert [line.split(":")[0] for line in checked.sentence.splitlines()] == ["2", "14"]
    whole = (tmp_path / "table2.json").read_text()
    content = json.loads(whole)
    content["rows"][0]["measured"][a_tables.ACCURACY]["value"] = 0.9
    (tmp_path / "table2.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"row 2, .*: the table does not say what the report of the row says"):
        check_report(tmp_path)
    (tmp_path / "table2.json").write_text(whole)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished row was run again")

    monkeypatch.setattr(a, "finetune", refuse)
    assert a.ablate(tmp_path, ["2", "14"], config) == table
    with pytest.raises(UsageError, match=r"rows of other settings \(finetune_epochs: 1.0 there, 2.0 now\)"):
        a.ablate(tmp_path, ["2"], tiny_config(finetune_epochs=2))


def test_order_is_judged_trial_by_trial_and_open_where_it_is_open():
    """With few trials most differences prove nothing, and the table must say so."""
    rng = np.random.default_rng(0)
    base = rng.random(200) * 0.1
    table = [
        measured("full", (base + 0.5).tolist(), 45.8), measured("1", base.tolist(), 4.2),
        measured("5", (base + 0.8).tolist(), 19.7), measured("6", (rng.permutation(base) + 0.5).tolist(), 38.3),
    ]  # fmt: skip

    order = a_tables.order_of(table)

    assert {row["row"]: row["order"] for row in order["against_full"]} == {"1": "as in the paper", "5": "reversed", "6": "open"}
    assert order["against_full"][0]["full_minus_row"] == pytest.approx(0.5)
    assert -1 <= order["rank_correlation"] < 1
    assert "1 as in the paper, 1 open, 1 reversed" in a_tables.table2_text(table)
    assert a_tables.order_of(table[1:])["against_full"] == []


def test_rank_correlation_says_what_drives_it_and_that_pre_training_showed_no_effect():
    """A correlation that rests on the rows without CLIP is no evidence for the rest of the table."""
    rng = np.random.default_rng(1)
    noise = lambda: (rng.random(300) < 0.3).astype(float)  # noqa: E731
    table = []
    for name in ("full", "3", "5", "6", "7", "8", "13", "1", "14"):
        row = ROWS[name]
        level = noise() if row.clip else 0.1 * noise()
        table.append(
            {**measured(name, level.tolist(), row.paper), "clip": row.clip, "msm": row.mask is not None, "mask": row.mask}
        )

    order = a_tables.order_of(table)

    assert order["driver"] == "rows without CLIP" and order["rows"] == 9
    without = {found["left_out"]: found["rank_correlation"] for found in order["without"]}
    assert without["rows without CLIP"] < order["rank_correlation"] and order["low"] <= order["rank_correlation"]
    assert "Pre-training showed no effect: row full minus row 3" in order["sentence"]
    table[0]["values"][a_tables.ACCURACY] = [1.0] * 300
    assert "Pre-training helped: row full minus row 3" in a_tables.order_of(table)["sentence"]


def test_table1_names_what_was_measured_in_place_of_the_papers_metric():
    """KID under the name FID would be a lie; a missing metric stays empty."""
    number = {"value": 12.0, "low": 11.0, "high": 13.0}
    ours = [{"name": "psnr", **number}, {"name": "lite0-kernel", **number}, {"name": "fid", **number}]
    theirs = [{"name": "psnr", **number}, {"name": "lite0-kernel", **number}]

    rows = {row["metric"]: row for row in a_tables.table1_rows({"DreamDiffusion": ours, "Brain2Image-VAE": theirs})}

    assert rows["FID"]["measured_as"] == "lite0-kernel" and rows["PSNR"]["measured_as"] == "psnr"
    assert rows["LPIPS"]["measured_as"] == "not measured" and rows["LPIPS"]["DreamDiffusion"] is None
    assert (rows["FID"]["paper Brain2Image"], rows["FID"]["paper DreamDiffusion"]) == (18.76, 3.61)
    text = a_tables.table1_text(list(rows.values()))
    assert "| PSNR | 12.8 | 14.6 | psnr | 12 [11, 13] | 12 [11, 13] |" in text


@pytest.mark.slow
def test_table1_runs_both_forms_of_brain2image_on_the_same_trials(tmp_path):
    """The paper's only comparison in numbers; Table 2 of other rows, made before, stays as it is."""
    a.ablate(tmp_path, ["2"], tiny_config())
    table = a.table1(tmp_path, tiny_config())
    assert [row["row"] for row in json.loads((tmp_path / "table2.json").read_text())["rows"]] == ["2"]

    assert {row["metric"] for row in table} == {"FID", "IS", "PSNR", "SSIM", "LPIPS"}
    psnr = next(row for row in table if row["metric"] == "PSNR")
    assert {psnr[s]["n"] for s in ("DreamDiffusion", "Brain2Image-VAE", "Brain2Image-GAN")} == {4}
    assert re.search(r"\| IS \| 5.06 \| 28.54 \| \S", (tmp_path / "table1.md").read_text())
    before = check_report(tmp_path).accuracies
    content = json.loads((tmp_path / "table1.json").read_text())
    shares = [m for m in content["systems"]["Brain2Image-VAE"] if m["unit"] == "share"]
    assert shares and before > 2 * len(shares)
    shares[0]["value"] += 0.1
    (tmp_path / "table1.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"Brain2Image-VAE, .*: value is"):
        check_report(tmp_path)


def touch(out: str, name: str, plain: dict) -> None:
    """A job for the test below, importable by other processes."""
    Path(out, name).write_text(str(plain["seed"]))


def test_trainings_run_in_processes_of_their_own(tmp_path):
    """Rows do not depend on each other, and the pool of the corpus runs them."""
    seen = []
    jobs = [a.Training("row", touch, (str(tmp_path), name, {"seed": 3})) for name in ("x", "y")]
    run_jobs(jobs, Budget(workers=2), lambda done, total, message: seen.append((done, total, message)))

    assert (tmp_path / "x").read_text() == (tmp_path / "y").read_text() == "3"
    assert {message for *_, message in seen} == {"row: x", "row: y"} and seen[-1][:2] == (2, 2)


def test_trainings_run_on_a_dask_cluster(tmp_path):
    """`--scheduler` hands the same jobs to a cluster."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        run_jobs([a.Training("row", touch, (str(tmp_path), "z", {"seed": 5}))], Budget(scheduler=cluster.scheduler_address), None)

    assert (tmp_path / "z").read_text() == "5"


def test_unknown_rows_are_refused_before_anything_runs(tmp_path):
    """A typo must not cost a night."""
    with pytest.raises(UsageError, match="no row '15'"):
        a.ablate(tmp_path / "new", ["full", "15"], tiny_config())
    assert not (tmp_path / "new").exists()


def test_the_row_that_is_told_the_label_has_no_eeg(tmp_path):
    """Section 4.4's 97.2 %: equal trials for equal labels, and the same images and splits as before."""
    source = Pairs.open(tiny_pairs())

    told = Pairs.open(label_pairs(source, tmp_path / "told.zarr"))

    eeg = told.eeg(np.arange(len(told)))
    for label in np.unique(told.labels):
        assert np.ptp(eeg[told.labels == label], axis=0).max() == 0
    assert len(np.unique(eeg[:, 0, 0])) == len(told.classes)
    assert np.array_equal(told.labels, source.labels)
    assert told.image_sha256 == source.image_sha256
    assert {name: rows.tolist() for name, rows in told.splits.items()} == {n: r.tolist() for n, r in source.splits.items()}
    assert told.provenance == "simulated"
