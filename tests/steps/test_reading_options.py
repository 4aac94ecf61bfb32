"""What a person says about files on the command line: marks, rate, unit, names. The same in one pass and in three steps."""

from __future__ import annotations

import json

import mne
import numpy as np
import odd_edf
import pytest
from eeg_files import NAMES, eeg, write_edf
from scipy.io import savemat

import eegprep
from eegprep import filter_recordings, pad
from eegprep.errors import UsageError
from eegprep.steps.build import fetch
from eegprep.steps.remake import remake


@pytest.fixture
def marked(tmp_path):
    """40 s with a stretch marked bad at 12 to 18 s, in which the signal is ten times as large."""
    x_CT = eeg(8, 8000, 200.0)
    x_CT[:, 2400:3600] *= 10
    write_edf(tmp_path / "p/a.edf", x_CT, 200.0, events=[(2.0, 6.0, "face"), (12.0, 6.0, "BAD_artifact"), (22.0, 6.0, "house")])
    return f"files:{tmp_path}/p/a.edf"


def starts(store):
    return eegprep.Corpus.open(store).column("start").tolist()


def test_bad_stretches_are_kept_or_taken_as_not_recorded(tmp_path, marked):
    """Rejected, no window lies over them, and nothing of them reaches the others through the filter."""
    eegprep.build(marked, tmp_path / "keep.zarr")
    eegprep.build(marked, tmp_path / "reject.zarr", bad="reject")

    assert any(2400 <= start < 3600 for start in starts(tmp_path / "keep.zarr"))
    assert not [start for start in starts(tmp_path / "reject.zarr") if start < 3600 and start + 512 > 2400]
    assert len(starts(tmp_path / "reject.zarr")) == 4 + 8
    output = {name: eegprep.build(marked, tmp_path / f"{name}.zarr", bad=name).findings for name in ("keep", "reject")}
    for name, words in (("keep", "kept"), ("reject", "not recorded (--bad reject)")):
        (finding,) = [f for f in output[name] if f.code == "bad_spans"]
        assert words in finding.message and finding.value == 6.0


def test_one_pass_and_three_steps_agree_on_them(tmp_path, marked):
    """`fetch` takes the options, the later steps need not know them."""
    eegprep.build(marked, tmp_path / "one.zarr", bad="reject")
    fetch(marked, tmp_path / "r.zarr", bad="reject")
    filter_recordings(tmp_path / "r.zarr", tmp_path / "f.zarr")
    pad(tmp_path / "f.zarr", tmp_path / "three.zarr")

    one, three = (eegprep.Corpus.open(tmp_path / f"{name}.zarr") for name in ("one", "three"))
    np.testing.assert_array_equal(one.read(np.arange(len(one))), three.read(np.arange(len(three))))


def test_changing_an_option_builds_again_and_repair_remembers_it(tmp_path, marked):
    """The option is part of what a subject was made of."""
    out = tmp_path / "c.zarr"
    assert eegprep.build(marked, out, bad="reject").built == 1
    assert eegprep.build(marked, out, bad="reject").built == 0
    before = starts(out)
    remake(out, None, tmp_path / "again.zarr")
    assert starts(tmp_path / "again.zarr") == before


def test_a_lock_file_repeats_what_was_said(tmp_path):
    """Rate, unit and names of an array that has none of them."""
    savemat(tmp_path / "a.mat", {"data": eeg(8, 4000, 200.0)})
    eegprep.build(
        f"files:{tmp_path}/a.mat",
        tmp_path / "c.zarr",
        sfreq=200.0,
        unit="uV",
        channel_names=NAMES[:8],
        lock=tmp_path / "lock.toml",
    )
    eegprep.build(tmp_path / "lock.toml", tmp_path / "d.zarr")

    one, two = (eegprep.Corpus.open(tmp_path / f"{name}.zarr") for name in "cd")
    assert len(one) == 7
    np.testing.assert_array_equal(one.read(np.arange(7)), two.read(np.arange(7)))


def test_raws_in_memory_take_the_same_options(tmp_path):
    """`build` of an `mne.io.Raw` rejects what it marks bad."""
    raw = mne.io.RawArray(eeg(4, 4000, 200.0) * 1e-6, mne.create_info(NAMES[:4], 200.0, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations([5.0], [5.0], ["BAD blink"]))

    assert eegprep.build(raw, tmp_path / "c.zarr").windows == 7
    assert eegprep.build(raw, tmp_path / "d.zarr", bad="reject").windows == 1 + 3


def test_names_say_which_channels_are_eeg(tmp_path):
    """A cap with names of its own beside known places, and an earlobe that is wanted."""
    names = ["Fp1", "Cz", "mine", "A1", "yours"]
    signals = [odd_edf.of_values(name, row, 200) for name, row in zip(names, eeg(5, 4000, 200.0), strict=True)]
    path = odd_edf.write(tmp_path / "a.edf", signals)

    def channels(out, **options):
        eegprep.build(f"files:{path}", tmp_path / out, **options)
        (group,) = [json.loads(p.read_text()) for p in (tmp_path / out).glob("*/*/zarr.json") if "recordings" in p.read_text()]
        return group["attributes"]["recordings"][0]["channels"]

    assert channels("a.zarr") == ["Fp1", "Cz"]
    assert channels("b.zarr", channel_names=["mine", "A1", "Cz"]) == ["Cz", "mine", "A1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"unit": "pT"}, "no voltage"), ({"sfreq": -1.0}, "above 0"), ({"bad": "maybe"}, "not known")],
)
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, options, message):
    """With an example of a right one."""
    with pytest.raises(UsageError, match=message):
        eegprep.build(f"files:{tmp_path}/*.edf", tmp_path / "c.zarr", **options)
