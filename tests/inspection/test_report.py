"""The report says what is in the store, in one file that needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from matplotlib.figure import Figure
from PIL import Image

import eegprep
from cli.main import eegprep_app, run
from eegprep.errors import StoreError
from eegprep.inspection import report
from eegprep.inspection import report_figures as figures
from eegprep.inspection.page import Page
from eegprep.inspection.report import compose
from eegprep.inspection.store_facts import Listed, ListedOut, StoreFacts
from eegprep.recording import Facts, Finding, LeftOut
from eegprep.signals.spectra import SUMMARY_FREQS, spectrum, summarise
from eegprep.store.records import CorpusRecording

POSITIONS = [[0.07 * np.cos(a), 0.07 * np.sin(a), 0.05] for a in np.linspace(0, 6, 8)]


def record(dataset: str = "Cho2017", subject: str = "1", person: str = "", **changes: Any) -> Listed:
    """A recording of eight channels as `build` would describe it."""
    psd = [100.0 / f if f < 250 else None for f in SUMMARY_FREQS]
    made: dict[str, Any] = {
        "session": "0", "run": "0", "pad_mode": "replicate", "segments": [], "reference": "", "line_freq": None, "person": "", "software": {},
        "sfreq": 500.0, "original_sfreq": 500.0, "n_samples": 500 * 3600, "channels": [f"C{i}" for i in range(8)],
        "n_channels": 8, "positions": POSITIONS, "band": [5.0, 95.0], "licence": "CC-BY-4.0", "doi": "10.1/abc", "findings": [],
        "windows": 10, "summary": {"psd_before": psd, "psd_after": psd, "std": [10.0] * 8},
    }  # fmt: skip
    return Listed(dataset, subject, person or f"{dataset}/{subject}", CorpusRecording.from_json(made | changes))


def lost(*findings: Finding, amplitude: float | None = None, dataset: str = "A") -> ListedOut:
    """A recording that was left out."""
    facts = None if amplitude is None else Facts(500.0, 8, amplitude)
    return ListedOut(dataset, "1", f"{dataset}/1", LeftOut(f"{dataset}/1/0.0", findings, facts=facts))


def html(*recordings: Listed, left_out: tuple[ListedOut, ...] = ()) -> str:
    """The whole page, pictures included."""
    return compose(StoreFacts("x.zarr", {}, recordings, left_out)).html()


def words(section: Callable[[Page, StoreFacts], None], *recordings: Listed, left_out: tuple[ListedOut, ...] = ()) -> str:
    """One section that draws nothing."""
    page = Page("test")
    section(page, StoreFacts("x.zarr", {}, recordings, left_out))
    return page.html()


def pictures(text: str) -> list[np.ndarray]:
    """All embedded images, decoded."""
    result = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("L")) for content in result]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample recordings, built."""
    path = tmp_path_factory.mktemp("report") / "corpus.zarr"
    eegprep.build("sample", path)
    return path


@pytest.fixture(scope="module")
def page(corpus: Path) -> str:
    return report.report(corpus, corpus.parent / "report.html").read_text()


# -- of a real store --------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    """It is mailed, archived, and opened without a network."""
    assert set(re.findall(r'src="([^:"]+):', page)) == {"data"}
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page


def test_every_picture_shows_something(page: str) -> None:
    """Windows a person, channels and rates, spectra, topography, amplitudes: five, none blank."""
    drawn = pictures(page)

    assert len(drawn) == 5
    assert all(picture.std() > 5 for picture in drawn)


def test_the_numbers_are_those_of_the_store(page: str, corpus: Path) -> None:
    """Counted a second way, from the windows."""
    opened = eegprep.Corpus.open(corpus)

    assert f"{len(opened):,} windows, 2 people, 4 recordings" in page
    assert "128 (1), 160 (3)" in page  # rates and how many recordings have them
    assert "5-57.6 Hz, 5-72 Hz" not in re.sub(r"base64,[^\"]+", "", page)  # drawn, not written
    assert "ODC-By-1.0" in page
    assert "upper edge 72 Hz instead of 95 at 160 Hz" in page
    assert opened.attributes["fingerprint"] in page
    assert "BCI2000: A General-Purpose Brain-Computer Interface" in page  # the citation that the manifest gives


def test_the_same_store_gives_the_same_page(page: str, corpus: Path, tmp_path: Path) -> None:
    """Also with points that are scattered so as not to hide each other."""
    assert report.report(corpus, tmp_path / "again.html").read_text() == page


def test_a_recordings_store_is_reported_too(tmp_path: Path) -> None:
    """Before anything is cut into windows."""
    from eegprep.steps.build import fetch

    fetch("sample", tmp_path / "recordings.zarr", subjects="88")

    text = report.report(tmp_path / "recordings.zarr", tmp_path / "r.html").read_text()

    assert "1 person, 1 recording" in text
    assert "windows, " not in text


def test_the_command_writes_the_page(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And says where."""
    assert run(eegprep_app, "eegprep", ["report", str(corpus), "--out", str(tmp_path / "r.html")]) == 0
    assert f"{tmp_path / 'r.html'}: written" in capsys.readouterr().err
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """A folder, somebody else's zarr, and a corpus with nothing in it."""
    with pytest.raises(StoreError, match="no zarr group here"):
        report.report(tmp_path, tmp_path / "r.html")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match=r"other\.zarr: holds None, which is not a store of this software"):
        report.report(tmp_path / "other.zarr", tmp_path / "r.html")
    from eegprep.store.root import create_corpus

    create_corpus(tmp_path / "empty.zarr", {}, "0")
    with pytest.raises(StoreError, match=r"empty\.zarr: no recording is in it"):
        report.report(tmp_path / "empty.zarr", tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


# -- what it warns of -------------------------------------------------------------------------------------------------------


def test_a_licence_that_forbids_sharing_is_the_first_thing_said() -> None:
    """One NC-ND data set among ten makes the whole corpus unshareable."""
    text = words(report._verdict, record(), record("BNCI2015_004", licence="CC-BY-NC-ND-4.0"))

    assert "CC-BY-NC-ND-4.0: non-commercial use only, derivatives" in text
    assert 'class="warning"' in text


def test_open_licences_are_said_to_be_open() -> None:
    """With the duty that remains."""
    text = words(report._verdict, record())

    assert "allows sharing it with attribution" in text
    assert 'class="warning"' not in text


def test_people_in_several_data_sets_are_counted_once_and_pointed_out() -> None:
    """A split by data set would leak them."""
    twice = (record("Lee2019_MI", person="Lee2019/1"), record("Lee2019_ERP", person="Lee2019/1"))

    assert report._lead(StoreFacts("x.zarr", {}, twice, ())).startswith("20 windows, 1 person, 2 recordings, 2.0 hours")
    assert "1 person in several data sets, for instance Lee2019/1 in Lee2019_ERP, Lee2019_MI" in words(report._verdict, *twice)


def test_families_without_published_identities_are_pointed_out() -> None:
    """Nguyen2017's four classes share people under other numbers."""
    assert "In Nguyen2017_L people overlap with other data sets" in words(report._verdict, record("Nguyen2017_L"))


def test_recordings_unlike_the_catalogue_are_tabled() -> None:
    """Declared 64 channels at 512 Hz, observed 8 at 500; a data set that MOABB does not know is not compared."""
    row = report._declared_row("Cho2017", [record(), record(sfreq=128.0, original_sfreq=512.0)])

    assert row == {
        "data set": "Cho2017", "declared channels": 64, "observed channels": "8", "declared rate (Hz)": 512.0,
        "observed rates (Hz)": "500 (1), 512 (1)",
    }  # fmt: skip
    assert report._declared_row("Cho2017", [record(n_channels=64, original_sfreq=512.00009)]) is None
    assert report._declared_row("MyClinic", [record("MyClinic")]) is None


def test_left_out_recordings_are_listed_with_both_numbers() -> None:
    """The reason is the last gate that closed."""
    findings = (
        Finding("joined", "A/1/0.0", None, 3, 1, "noted"),
        Finding("units", "A/1/0.0", None, 2e7, 300.0, "quarantined", "would need a factor of 1e-06"),
    )

    text = words(report._findings, record(), left_out=(lost(*findings),))

    assert "1 recording left out" in text
    assert "<td>A/1/0.0</td><td>units</td><td>2e+07</td><td>300</td><td>would need a factor of 1e-06</td>" in text


def test_a_subject_left_out_whole_is_listed_from_the_root(corpus: Path, tmp_path: Path) -> None:
    """It has no group that could tell."""
    rng = np.random.default_rng(0)
    for name, scale in (("1", 1e-5), ("2", 1.0)):  # the second in V where uV were meant
        _write_edf(tmp_path / f"P{name}.edf", rng.normal(0, scale, (8, 4000)))
    manifest = tmp_path / "m.toml"
    manifest.write_text('[[source]]\nspec = "files:P*.edf"\ndataset = "Clinic"\npattern = "P(?P<subject>.)"\n')
    eegprep.build(manifest, tmp_path / "c.zarr")

    text = report.report(tmp_path / "c.zarr", tmp_path / "r.html").read_text()

    assert "1 recording left out" in text
    assert "Clinic/2/" in text


def _write_edf(path: Path, signal_CT: np.ndarray) -> None:
    import edfio

    signals = [
        edfio.EdfSignal(row * 1e6, 200, label=f"EEG {name}", physical_dimension="uV")
        for name, row in zip("ABCDEFGH", signal_CT, strict=True)
    ]
    edfio.Edf(signals).write(path)


def test_a_long_list_is_cut_and_says_so() -> None:
    """A page of ten thousand rows helps nobody."""
    text = words(report._findings, record(), left_out=(lost(),) * (report.LISTED + 1))

    assert f"The first {report.LISTED};" in text


def test_names_are_text_not_markup() -> None:
    """Labels come out of other people's files."""
    text = words(report._licences, record("<script>alert(1)</script>", doi='"><img src=x>'))

    assert "<script" not in text
    assert "<img src=x" not in text


@pytest.mark.slow
def test_twenty_data_sets_fit_on_a_page() -> None:
    """The largest are drawn, all are tabled, and it says how many were not drawn."""
    many = [record(f"Set{n:02d}", subject=str(s), windows=n + 1) for n in range(20) for s in range(3)]

    text = html(*many)

    assert f"The {figures.PANELS} largest of 20 data sets." in text
    assert all(f"<td>Set{n:02d}</td>" in text for n in range(20))


def test_a_corpus_without_summaries_still_has_a_page() -> None:
    """Made by `from_arrays`, or by an older release."""
    listed = record()

    text = html(replace(listed, record=replace(listed.record, made=None)))

    assert "Subjects and windows" in text
    assert "Spectra" not in text


def test_a_store_in_which_everything_was_left_out_has_a_page() -> None:
    """It is exactly then that a person looks."""
    assert "1 recording left out" in html(left_out=(lost(),))


def test_a_citation_of_the_manifest_is_shown() -> None:
    """Authors ask for a text, not only a DOI."""
    facts = StoreFacts("x.zarr", {}, (record("Clinic"),), (), {"Clinic": "Meyer et al. 2020"})

    row = report._citation_row(facts, "Clinic")

    assert row == {"data set": "Clinic", "cite": "Meyer et al. 2020", "doi": "https://doi.org/10.1/abc"}


# -- the numbers in the pictures --------------------------------------------------------------------------------------------


def test_a_channel_of_ten_times_the_amplitude_stands_20_db_out() -> None:
    """Power in dB against the median channel; the mean over recordings."""
    loud = [10.0] * 7 + [100.0]

    values_C, positions_C3 = figures._mean_power([record(summary={"std": loud}), record(summary={"std": [10.0] * 8})])

    np.testing.assert_allclose(values_C, [0] * 7 + [10.0], atol=1e-9)
    np.testing.assert_allclose(positions_C3, POSITIONS)


def test_channels_without_a_position_or_a_value_are_left_out_of_the_map() -> None:
    """One of each."""
    places = [*POSITIONS[:7], [None, None, None]]

    values_C, _ = figures._mean_power([record(positions=places, summary={"std": [None, *[10.0] * 7]})])

    assert len(values_C) == 6


def test_the_spectrum_panel_draws_median_and_band() -> None:
    """Three recordings of 1, 2 and 9 uV^2/Hz: the line is at 2."""
    flat = [{"psd_before": [v] * 64, "psd_after": [v] * 64, "std": []} for v in (1.0, 2.0, 9.0)]
    axes = Figure().subplots()

    figures._spectrum_panel(axes, "A", figures._with_spectra([record(summary=s) for s in flat]))

    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), 2.0)
    assert "5-95 Hz" in axes.get_title()


def test_the_amplitude_of_a_left_out_recording_is_what_the_gate_measured() -> None:
    """It has no summary; its gate has the number."""
    assert figures._refused_amplitudes([lost(amplitude=5.0), lost()]) == [5.0]
    assert figures._amplitudes_of([record(summary={"std": [1.0, None, 3.0]})]) == [2.0]


def test_spectra_agree_with_scipy() -> None:
    """A second implementation: scipy's Welch with the same windows, interpolated the same way."""
    from scipy.signal import welch

    signal_CT = np.random.default_rng(0).normal(0, 10, (5, 32 * 256)).astype(np.float32)  # 16 windows of 2 s, none left over
    freqs, power_CF = welch(signal_CT, 256, "hann", 512, 0, detrend="constant")
    expected = np.interp(SUMMARY_FREQS, freqs, np.median(power_CF, axis=0))

    result = np.array([np.nan if v is None else v for v in spectrum(signal_CT, 256.0)])

    known = np.asarray(SUMMARY_FREQS) <= 128
    np.testing.assert_allclose(result[known], expected[known], rtol=2e-3)
    assert np.isnan(result[~known]).all()


def test_white_noise_has_its_variance_in_its_spectrum() -> None:
    """Parseval: 10 uV over 0-500 Hz is 0.2 uV^2/Hz, on a sampled recording longer than the windows that are looked at."""
    signal_CT = np.random.default_rng(1).normal(0, 10, (8, 200_000)).astype(np.float32)

    result = summarise(signal_CT, 1000.0, signal_CT, 1000.0)

    assert np.mean(result.psd_before) == pytest.approx(0.2, rel=0.05)
    np.testing.assert_allclose(result.std, 10, rtol=0.01)


def test_a_seam_is_not_power() -> None:
    """Ten stretches of a 10 Hz rhythm on offsets of 1 mV: across the seams the steps would drown everything below 5 Hz."""
    time_T = np.arange(1024) / 256
    pieces = [np.sin(2 * np.pi * 10 * time_T)[None] + 1000 * (n % 2) for n in range(10)]
    signal_CT = np.concatenate(pieces, axis=1).astype(np.float32)
    segments = [(1024 * n, 1024 * (n + 1)) for n in range(10)]

    inside, across = spectrum(signal_CT, 256.0, segments), spectrum(signal_CT[:, 100:], 256.0)

    at_2_hz = int(np.argmin(np.abs(np.asarray(SUMMARY_FREQS) - 2)))
    assert inside[at_2_hz] < 1e-6  # type: ignore[operator]
    assert across[at_2_hz] > 1  # type: ignore[operator]


def test_stretches_shorter_than_two_seconds_give_a_coarser_spectrum() -> None:
    """Kaneshiro2015: 32 samples each. White noise of 10 uV at 64 Hz is 100 / 32 uV^2/Hz."""
    signal_CT = np.random.default_rng(2).normal(0, 10, (8, 32 * 40)).astype(np.float32)
    segments = [(32 * n, 32 * (n + 1)) for n in range(40)]

    result = [value for value in spectrum(signal_CT, 64.0, segments) if value is not None]

    # the mean is removed from each short window, which takes from the lowest frequencies
    assert np.mean(result[30:]) == pytest.approx(100 / 32, rel=0.1)


def test_a_recording_of_a_few_samples_has_no_spectrum() -> None:
    """Seven samples say nothing about frequencies; nothing breaks."""
    assert spectrum(np.zeros((2, 7), np.float32), 100.0) == [None] * len(SUMMARY_FREQS)
    assert len(spectrum(np.ones((2, 20), np.float32), 100.0)) == len(SUMMARY_FREQS)
