"""A corpus of several sampling rates is said at the end of the step that made it."""

from eeg_files import eeg, write_edf

import eegprep


def test_build_says_that_a_corpus_holds_two_rates(tmp_path):
    """Windows of 512 samples are 4 and 2 s of it; with `resample` nothing is to be said."""
    for person, sfreq in (("sub-01", 128.0), ("sub-02", 256.0)):
        (tmp_path / "study" / person).mkdir(parents=True)
        write_edf(tmp_path / "study" / person / "rest.edf", eeg(8, int(20 * sfreq), sfreq), sfreq, events=[(1.0, 1.0, "x")])

    several = eegprep.build(str(tmp_path / "study"), tmp_path / "c.zarr")
    one = eegprep.build(str(tmp_path / "study"), tmp_path / "one.zarr", resample=128.0)

    (remark,) = several.remarks
    assert "2 sampling rates: 256 Hz (10 windows), 128 Hz (5 windows)" in remark and "--resample HZ" in remark
    assert one.remarks == ()
