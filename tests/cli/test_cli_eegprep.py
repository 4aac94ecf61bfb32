"""The commands as a person meets them: exit codes, one-line causes, tables, pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eeg_files import eeg, write_edf, write_people

from cli._app import eegprep_app
from cli.main import run
from eegprep.catalogue.manifests import shipped_folder

SAMPLE = shipped_folder() / "sample/MNE-eegbci-data/files/eegmmidb/1.0.0"


def eegprep(*words, capsys) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of one command."""
    code = run(eegprep_app, "eegprep", [str(word) for word in words])
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path / "people", 2)


def test_the_four_steps_and_build_run_and_agree(people, tmp_path, capsys):
    """fetch, filter, pad, inspect, verify, build: each ends with 0 and says what it did."""
    for words in (
        ("fetch", people, "--out", tmp_path / "r.zarr"),
        ("filter", tmp_path / "r.zarr", tmp_path / "f.zarr"),
        ("pad", tmp_path / "f.zarr", tmp_path / "c.zarr"),
        ("verify", tmp_path / "c.zarr"),
        ("build", people, "--out", tmp_path / "b.zarr"),
    ):
        code, _, err = eegprep(*words, capsys=capsys)
        assert code == 0, err

    facts = []
    for name in ("c.zarr", "b.zarr"):
        code, out, _ = eegprep("inspect", tmp_path / name, "--json", capsys=capsys)
        content = json.loads(out)
        facts.append({key: content[key] for key in ("windows", "subjects", "recordings", "rows", "fingerprint")})
    assert facts[0] == facts[1] and facts[0]["windows"] == 8


def bad_inputs(folder: Path) -> dict[str, tuple[tuple, str]]:
    (folder / "text.edf").write_text("dear diary")
    content = (SAMPLE / "S001/S001R04.edf").read_bytes()
    (folder / "cut.edf").write_bytes(content[:1_000_000])
    write_edf(folder / "eog.edf", eeg(2, 2000, 200.0), 200.0, ["EOG left", "EOG right"])
    write_edf(folder / "short.edf", eeg(4, 400, 200.0), 200.0)
    write_edf(folder / "good.edf", eeg(4, 2000, 200.0), 200.0)
    (folder / "letters").mkdir()
    (folder / "letters/a.txt").write_text("x")
    out = ("--out", folder / "new/c.zarr")
    return {
        "missing file": (("build", f"files:{folder}/none.edf", *out), "no file matches"),
        "not an EEG file": (("build", f"files:{folder}/text.edf", *out), "not an EDF"),
        "truncated": (
            ("build", f"files:{folder}/cut.edf", *out),
            "truncated, 1,000,000 bytes where its header promises 2,596,896",
        ),
        "no EEG channel": (("build", f"files:{folder}/eog.edf", *out), "0 of 2 channels are EEG"),
        "short": (("build", f"files:{folder}/short.edf", *out), "400 samples without a seam (least 512)"),
        "unknown data set": (("build", "moabb:PhysionetM", *out), "did you mean 'PhysionetMI'"),
        "unknown manifest": (("build", "sampel", *out), "did you mean 'sample'"),
        "unknown kind": (("build", "moab:PhysionetMI", *out), "not of a known kind"),
        "foreign folder": (("build", f"files:{folder}/good.edf", "--out", folder / "letters"), "letters: not a corpus"),
        "file as output": (("build", f"files:{folder}/good.edf", "--out", folder / "good.edf"), "is a file, not a folder"),
        "fetch, not EEG": (("fetch", f"files:{folder}/text.edf", *out), "not an EDF"),
        "filter, no store": (("filter", folder / "letters", folder / "new/f.zarr"), "not a recordings store"),
        "pad, no store": (("pad", folder / "none.zarr", folder / "new/c.zarr"), "none.zarr does not exist"),
        "inspect, no store": (("inspect", folder / "letters"), "no zarr group here"),
        "verify, no store": (("verify", folder / "none.zarr"), "none.zarr does not exist"),
        "band": (("build", f"files:{folder}/good.edf", *out, "--low", "50", "--high", "40"), "band from 50 to 40 Hz is empty"),
        "option": (("build", f"files:{folder}/good.edf", *out, "--nyquist", "clap"), "clap"),
        "no source": (("build", "--out", folder / "new/c.zarr"), "Missing argument"),
        "memory": (("build", f"files:{folder}/good.edf", *out, "--max-memory", "lots"), "not an amount of memory"),
    }


CASES = (
    "missing file", "not an EEG file", "truncated", "no EEG channel", "short", "unknown data set", "unknown manifest",
    "unknown kind", "foreign folder", "file as output", "fetch, not EEG", "filter, no store", "pad, no store",
    "inspect, no store", "verify, no store", "band", "option", "no source", "memory",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gives_one_cause_one_fix_and_nothing_half_written(case, tmp_path, capsys):
    """Exit code 1 or 2, no traceback, and the folder is as it was."""
    words, message = bad_inputs(tmp_path)[case]
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())

    code, out, err = eegprep(*words, capsys=capsys)

    assert code in (1, 2), err
    assert message in err and "Traceback" not in err + out
    if not err.startswith("Usage"):
        assert err.splitlines()[-2].startswith("error: ") and err.splitlines()[-1].startswith("  fix: ")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert not (tmp_path / "new/c.zarr").exists()


def test_quarantined_recordings_give_exit_code_3_and_a_table(people, tmp_path, capsys):
    """Scripts must be able to tell "all" from "all but"."""
    (tmp_path / "people/sub-09_run-1.edf").write_bytes(b"broken")

    code, out, err = eegprep("build", people, "--out", tmp_path / "c.zarr", capsys=capsys)

    assert code == 3
    header, *lines = [line.split("\t") for line in out.splitlines()]
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    assert any(row["code"] == "unreadable" and row["action"] == "quarantined" and "09" in row["recording"] for row in rows)
    assert "1 recording quarantined" in err
    _, out, _ = eegprep("inspect", tmp_path / "c.zarr", capsys=capsys)
    assert "people/09/0.run-1\tunreadable\t" in out


def test_json_is_one_document_and_messages_are_elsewhere(people, tmp_path, capsys):
    """`eegprep build ... --json | jq` must work."""
    code, out, _ = eegprep("build", people, "--out", tmp_path / "c.zarr", "--json", capsys=capsys)

    content = json.loads(out)
    assert code == content["exit_code"] == 0 and content["windows"] == 8 and content["built"] == 2


def test_a_dry_run_shows_the_plan_and_writes_nothing(people, tmp_path, capsys):
    """Recordings, windows, bytes, minutes, memory."""
    code, out, err = eegprep("build", people, "--out", tmp_path / "c.zarr", "--dry-run", capsys=capsys)

    header, row = (line.split("\t") for line in out.splitlines())
    plan = dict(zip(header, row, strict=True))
    assert code == 0 and plan["windows"] == "8" and plan["recordings"] == "2" and "minutes" in err
    assert not (tmp_path / "c.zarr").exists()


def test_a_plan_says_what_it_cannot_know_and_whose_rate_carries_the_band(tmp_path, capsys):
    """Lengths of Lee2019_SSVEP are declared nowhere: not 0 windows. PhysionetMI's 160 Hz do not carry 95 Hz."""
    words = ("build", "moabb:Lee2019_SSVEP", "moabb:PhysionetMI", "moabb:Weibo2014", "--out", tmp_path / "c.zarr", "--dry-run")
    code, out, err = eegprep(*words, capsys=capsys)

    rows = {line.split("\t")[0]: line.split("\t") for line in out.splitlines()}
    place = rows["dataset"].index("windows")
    assert code == 0 and rows["Lee2019_SSVEP"][place] == "0 or more" and "54 subjects of unknown length" in err
    weibo = int(rows["Weibo2014"][place])
    assert f"of these, 64 people and {weibo:,} windows have a rate that carries the whole pass band" in err

    _, out, _ = eegprep(*words, "--max-per-subject", "5", "--json", capsys=capsys)
    totals = json.loads(out)["totals"]
    assert totals["windows_most"] - totals["windows"] == 54 * 5 and totals["full_band_people"] == 64


def test_a_plan_of_a_public_data_set_needs_neither_network_nor_data(tmp_path, capsys):
    """Size and licence before anything is downloaded."""
    code, out, _ = eegprep("fetch", "moabb:Cho2017", "--out", tmp_path / "r.zarr", "--dry-run", "--json", capsys=capsys)

    (row,) = json.loads(out)["plan"]
    assert code == 0 and row["licence"] == "CC-BY-4.0" and row["bytes"] > 1e9 and row["subjects"] == 52


def test_inspect_draws_a_window_and_a_recording(people, tmp_path, capsys):
    """PNG files of a plausible size, and a title that names where it is from."""
    eegprep("fetch", people, "--out", tmp_path / "r.zarr", capsys=capsys)
    eegprep("build", people, "--out", tmp_path / "c.zarr", capsys=capsys)

    for name, key in (("c.zarr", "people/02/1"), ("c.zarr", "3"), ("r.zarr", "people/01")):
        code, _, err = eegprep("inspect", tmp_path / name, key, "--plot", tmp_path / "w.png", capsys=capsys)
        assert code == 0 and "4 channels at 200 Hz" in err
        assert (tmp_path / "w.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "w.png").stat().st_size > 20_000


def test_inspect_lists_what_was_noted_about_a_recording(people, tmp_path, capsys):
    """A finding that only the build showed is forgotten a day later."""
    eegprep("build", people, "--out", tmp_path / "c.zarr", "--high", "200", capsys=capsys)
    _, out, err = eegprep("inspect", tmp_path / "c.zarr", capsys=capsys)
    assert "findings: few_channels 2, nyquist 2; with a key they are listed" in err and "nyquist" not in out
    name = next(line.split("\t")[0] for line in out.splitlines()[1:])

    _, out, _ = eegprep("inspect", tmp_path / "c.zarr", name, capsys=capsys)

    assert "upper edge" in out and "nyquist" in out


@pytest.mark.parametrize(
    ("key", "message"), [("peeple/01", "did you mean 'people/01'"), ("people/77", "there is no 'people/77' in the store")]
)
def test_inspect_names_the_nearest_key(people, tmp_path, capsys, key, message):
    """Typing errors are the usual reason."""
    eegprep("build", people, "--out", tmp_path / "c.zarr", capsys=capsys)

    code, _, err = eegprep("inspect", tmp_path / "c.zarr", key, capsys=capsys)

    assert code == 2 and message in err


def test_verify_tells_damage_by_exit_code_and_table(people, tmp_path, capsys):
    """And the repair that it proposes works."""
    eegprep("build", people, "--out", tmp_path / "c.zarr", capsys=capsys)
    (tmp_path / "c.zarr/people/01/windows/c/0/0/0").unlink()

    code, out, err = eegprep("verify", tmp_path / "c.zarr", capsys=capsys)
    assert code == 1 and "people/01\tmissing\twindows/c/0/0/0" in out and "--repair" in err

    assert eegprep("verify", tmp_path / "c.zarr", "--repair", capsys=capsys)[0] == 0
    assert eegprep("verify", tmp_path / "c.zarr", "--json", capsys=capsys)[0] == 0


def test_a_read_only_folder_gives_a_cause_and_a_fix(people, tmp_path, capsys, monkeypatch):
    """The way out of a shared machine; injected, because the superuser may write anywhere."""

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, _, err = eegprep("build", people, "--out", tmp_path / "c.zarr", capsys=capsys)

    assert code == 1 and "c.zarr: Permission denied" in err and "fix: check the permissions" in err
