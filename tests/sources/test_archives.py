"""Data sets of OpenNeuro and NEMAR by id, from archives in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import archive_server
import mne
import numpy as np
import pytest
import zarr
from eeg_files import eeg, names, write_edf

import eegprep
from eegprep import offline
from eegprep.catalogue import manifests
from eegprep.download import archives, meter
from eegprep.errors import FetchError, LicenceError, SourceError, StoreError, UsageError
from eegprep.readers import serving_copy
from eegprep.steps import build

RATE, CHANNELS = archive_server.RATE, archive_server.CHANNELS


@pytest.fixture
def archive(monkeypatch):
    with archive_server.serving() as running:
        monkeypatch.setenv("EEGPREP_MIRRORS", running.mirrors)
        yield running


def copies_of(archive, source: Path, target: str, work: Path, paths: list[str] | None = None, **options) -> list[str]:
    """Zarr copies of the recordings of a data set, served and listed."""
    found = paths or sorted(path.relative_to(source).as_posix() for path in source.glob("sub-*/eeg/*.edf"))
    for path in found:
        raw = mne.io.read_raw_edf(source / path, preload=True, verbose=False)
        store = work / path.replace(".edf", ".zarr")
        archive_server.serving_store(store, raw.get_data(units="uV"), raw.ch_names, rate=raw.info["sfreq"], **options)
    archive.put_tree(work, f"/zarr/{target}/zarr")
    return found


SETTINGS = {"low": 5.0, "high": 95.0, "channels": CHANNELS, "window": 512}


def test_openneuro_brings_only_the_eeg_of_the_people_asked_for(archive, tmp_path):
    archive.put_tree(archive_server.dataset(tmp_path / "src", people=3), "/openneuro/ds000001")

    summary = eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", subjects="1-2", data_dir=tmp_path / "data", **SETTINGS)

    here = {
        path.relative_to(tmp_path / "data" / "openneuro" / "ds000001").as_posix()
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and ".eegprep" not in path.parts
    }
    assert summary.subjects == 2 and summary.windows > 0
    assert {name for name in here if name.startswith("sub-")} == {
        f"sub-{n}/eeg/sub-{n}_task-rest_{end}" for n in ("01", "02") for end in ("eeg.edf", "events.tsv")
    }
    corpus = eegprep.Corpus.open(tmp_path / "c.zarr")
    assert corpus.recordings["licence"].unique().tolist() == ["CC0-1.0"]
    record = corpus.attributes_of("ds000001/01")["recordings"][0]
    assert record["reference"] == "Cz" and record["doi"] == "10.18112/x" and len(record["sources"]) == 3


def test_a_build_from_an_archive_equals_one_from_its_files(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src")
    archive.put_tree(source, "/openneuro/ds000001")

    eegprep.build("openneuro:ds000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    eegprep.build(f"bids:{source}", tmp_path / "b.zarr", dataset="ds000001", **SETTINGS)

    one, other = (eegprep.Corpus.open(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(one.read(np.arange(len(one))), other.read(np.arange(len(other))))


def test_what_is_here_is_asked_for_no_more_and_works_offline(archive, tmp_path):
    archive.put_tree(archive_server.dataset(tmp_path / "src"), "/openneuro/ds000001")
    with pytest.raises(FetchError, match="is offline"):
        eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", offline=True, **SETTINGS)
    eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", **SETTINGS)
    archive.requests.clear()

    again = eegprep.build("openneuro:ds000001", tmp_path / "d.zarr", data_dir=tmp_path / "data", offline=True, **SETTINGS)
    assert again.subjects == 2 and archive.requests == []


def plan(spec, tmp_path, **settings):
    return build.plan(spec, tmp_path / "c.zarr", data_dir=tmp_path / "data", **{**SETTINGS, **settings})


def test_a_plan_says_what_the_listing_of_an_archive_knows_and_brings_nothing(archive, tmp_path):
    """Of files it knows people, recordings and bytes; the length of a recording is in the file."""
    source = archive_server.dataset(tmp_path / "src", people=3)
    archive.put_tree(source, "/openneuro/ds000001")

    (row,) = plan("openneuro:ds000001", tmp_path, subjects="1-2")
    assert (row.subjects, row.recordings, row.windows, row.unknown, row.windows_most) == (2, 2, 0, 2, None)
    assert row.licence == "CC0-1.0" and "not here yet" in row.note
    own = sum(path.stat().st_size for number in (1, 2) for path in (source / f"sub-{number:02d}" / "eeg").iterdir())
    assert own < row.bytes_in < own + 2 * 2000  # and the texts that hold for all
    assert not [request for request in archive.requests if ".edf" in request] and not (tmp_path / "data").exists()
    assert plan("openneuro:ds000001", tmp_path, max_per_subject=5)[0].windows_most == 15
    with pytest.raises(FetchError, match="this is offline"):
        plan("openneuro:ds000001", tmp_path, offline=True)

    eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", subjects="1", data_dir=tmp_path / "data", **SETTINGS)
    archive.requests.clear()
    (here,) = plan("openneuro:ds000001", tmp_path, subjects="1")
    assert (here.subjects, here.done, here.note) == (1, 1, "") and archive.requests == []


def test_a_plan_counts_the_windows_of_copies_whose_length_is_listed(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src")
    archive.nemar_manifest("nm000001", source)
    paths = copies_of(archive, source, "nm000001", tmp_path / "work")
    group = {
        "name": "eeg_250hz",
        "modality": "EEG",
        "rate": 250.0,
        "n_channels": CHANNELS,
        "n_samples": 30 * RATE,
        "source_rate_hz": 250.0,
    }
    archive.nemar_index("nm000001", {path: {"groups": [group]} for path in paths})

    (row,) = plan("nemar:nm000001", tmp_path)
    built = eegprep.build("nemar:nm000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", **SETTINGS)
    assert (row.recordings, row.windows, row.unknown) == (2, built.windows, 0)
    signal = sum(path.stat().st_size for path in (tmp_path / "data").rglob("0/c/0/*"))
    assert 0.9 * signal < row.bytes_in < 1.1 * signal + 5000  # noise cannot be compressed; and the texts beside


def test_a_broken_download_is_continued_where_it_stopped(archive, tmp_path):
    archive.put_tree(archive_server.dataset(tmp_path / "src", people=1), "/openneuro/ds000001")
    path = "/openneuro/ds000001/sub-01/eeg/sub-01_task-rest_eeg.edf"
    archive.cut[path] = 20_000

    eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", **SETTINGS)
    first, second = [request for request in archive.requests if request.startswith(path)][:2]
    assert first == path
    assert 10_000 < int(second.removeprefix(f"{path} bytes=").removesuffix("-")) <= 20_000


def test_an_unclear_licence_has_to_be_accepted_before_any_recording_travels(archive, tmp_path):
    archive.put_tree(archive_server.dataset(tmp_path / "src", licence="CC BY-NC 4.0"), "/openneuro/ds000001")

    with pytest.raises(LicenceError, match=r"CC-BY-NC-4\.0"):
        eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", **SETTINGS)
    assert [request for request in archive.requests if request.endswith(".edf")] == []
    rows = build.fetch_plan("openneuro:ds000001", data_dir=tmp_path / "data")
    assert rows[0].needs_accept and rows[0].subjects == 2 and rows[0].bytes > 10_000
    done = eegprep.build(
        "openneuro:ds000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", accept=["CC-BY-NC-4.0"], **SETTINGS
    )
    assert done.subjects == 2


def test_a_file_that_was_replaced_in_the_archive_is_refused_by_name(archive, tmp_path):
    archive.put_tree(archive_server.dataset(tmp_path / "src"), "/openneuro/ds000001")
    eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", subjects="1", data_dir=tmp_path / "data", **SETTINGS)
    path = "/openneuro/ds000001/sub-01/eeg/sub-01_task-rest_events.tsv"
    archive.files[path] += b"5.0\t0.5\tface\n"

    with pytest.raises(FetchError, match=r"1 files that are here have been replaced.*sub-01_task-rest_events\.tsv"):
        eegprep.build("openneuro:ds000001", tmp_path / "d.zarr", data_dir=tmp_path / "data", **SETTINGS)
    offline = eegprep.build(
        "openneuro:ds000001", tmp_path / "d.zarr", subjects="1", data_dir=tmp_path / "data", offline=True, **SETTINGS
    )
    assert offline.subjects == 1


def test_a_listing_that_leads_out_of_its_folder_is_refused(archive, tmp_path):
    archive.put_tree(archive_server.dataset(tmp_path / "src", people=1), "/openneuro/ds000001")
    archive.files["/openneuro/ds000001/sub-01/../../evil"] = b"x"

    with pytest.raises(FetchError, match="outside of its folder"):
        eegprep.build("openneuro:ds000001", tmp_path / "c.zarr", data_dir=tmp_path / "data", **SETTINGS)


def test_ids_of_archives_are_checked_and_nobody_is_asked_for_a_wrong_one():
    assert manifests.parse_source("nemar:ds003825").target == "on003825"
    assert manifests.parse_source("openneuro:DS003825").dataset == "ds003825"
    for wrong in ("openneuro:3825", "nemar:x", "openneuro:ds1/../.."):
        with pytest.raises(UsageError, match="no id of a data set"):
            manifests.parse_source(wrong)


# ------------------------------------------------------------------------------------------------------- NEMAR's copies


def test_a_build_from_a_copy_equals_one_from_the_edf_within_quantisation(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src")
    archive.nemar_manifest("nm000001", source)
    paths = copies_of(archive, source, "nm000001", tmp_path / "work")
    archive.nemar_index("nm000001", paths)

    eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    eegprep.build(f"bids:{source}", tmp_path / "b.zarr", dataset="nm000001", **SETTINGS)

    one, other = (eegprep.Corpus.open(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    ours, theirs = one.read(np.arange(len(one))), other.read(np.arange(len(other)))
    assert ours.shape == theirs.shape and len(ours) > 10
    assert np.abs(ours - theirs).max() < 0.01  # uV; the steps of 16 bits over 200 uV are 0.003
    assert one.column("label").tolist() == other.column("label").tolist()
    record = one.attributes_of("nm000001/01")["recordings"][0]
    assert record["reference"] == "Cz" and any("cccccccccccc" in finding["message"] for finding in record["findings"])
    assert one.recordings["licence"].unique().tolist() == ["CC0-1.0"]


def test_of_a_copy_only_the_signal_and_the_events_travel(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src", people=1)
    archive.nemar_manifest("nm000001", source)
    archive.nemar_index("nm000001", copies_of(archive, source, "nm000001", tmp_path / "work"))

    eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    assert [request for request in archive.requests if "/view/" in request or request.split()[0].endswith(".edf")] == []
    shards = [request for request in archive.requests if "/eeg_250hz/0/c/0/" in request]
    assert {request.split()[0].rsplit("/", 1)[1] for request in shards} == {"0", "1"}


def test_only_usable_channels_become_eeg(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src", people=1)
    wrong = names(CHANNELS)[2]
    archive.nemar_manifest("nm000001", source)
    paths = copies_of(archive, source, "nm000001", tmp_path / "work", unusable={wrong: "EEG"})
    archive.nemar_index("nm000001", paths)

    eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    record = eegprep.Corpus.open(tmp_path / "a.zarr").attributes_of("nm000001/01")["recordings"][0]
    assert wrong not in record["channels"] and len(record["channels"]) == CHANNELS - 1
    assert [finding["channel"] for finding in record["findings"] if finding["code"] == "not_usable"] == [wrong]


@pytest.mark.parametrize("lost", ["scale", "offset"])
def test_raw_counts_never_reach_a_window(tmp_path, lost):
    store = archive_server.serving_store(tmp_path / "sub-01_task-rest_eeg.zarr", eeg(CHANNELS, 5000, RATE), names(CHANNELS))
    array = zarr.open_group(store)["eeg_250hz/0"]
    attributes = {key: value for key, value in array.attrs.asdict().items() if key != lost}
    array.attrs.put(attributes)

    with pytest.raises(SourceError, match="scales and"):
        eegprep.build(str(store), tmp_path / "a.zarr", **SETTINGS)


def test_a_copy_in_volts_gives_microvolts(tmp_path):
    signal = eeg(CHANNELS, 5000, RATE)
    store = archive_server.serving_store(tmp_path / "sub-01_task-rest_eeg.zarr", signal * 1e-6, names(CHANNELS), unit="V")

    eegprep.fetch(str(store), tmp_path / "r.zarr")
    stored = next(
        item
        for _, item in zarr.open_group(tmp_path / "r.zarr", mode="r")[
            next(iter(zarr.open_group(tmp_path / "r.zarr").group_keys()))
        ].groups()
    )
    array = next(item for _, item in stored.arrays())
    assert np.abs(array[:] - signal).max() < 0.01


def test_a_store_that_changes_while_it_is_read_is_refused_and_forgotten(archive, tmp_path, monkeypatch):
    source = archive_server.dataset(tmp_path / "src", people=1)
    archive.nemar_manifest("nm000001", source)
    archive.nemar_index("nm000001", copies_of(archive, source, "nm000001", tmp_path / "work"))
    path = "/zarr/nm000001/zarr/sub-01/eeg/sub-01_task-rest_eeg.zarr/zarr.json"
    plain = archives.serving.download

    def overwritten(url, *args, **more):
        if "/0/c/0/1" in url:
            archive.files[path] = archive.files[path].replace(b"2026-09-08", b"2026-11-01")
        return plain(url, *args, **more)

    monkeypatch.setattr(archives.serving, "download", overwritten)
    with pytest.raises(FetchError, match=r"sub-01_task-rest_eeg\.zarr: was overwritten"):
        eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    assert not list((tmp_path / "data").rglob("c/0/*"))
    monkeypatch.undo()
    monkeypatch.setenv("EEGPREP_MIRRORS", archive.mirrors)
    assert eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS).subjects == 1


def test_a_store_that_was_made_anew_since_is_refused_by_name(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src")
    archive.nemar_manifest("nm000001", source)
    paths = copies_of(archive, source, "nm000001", tmp_path / "work")
    archive.nemar_index("nm000001", paths)
    eegprep.build("nemar:nm000001", tmp_path / "a.zarr", subjects="1", data_dir=tmp_path / "data", **SETTINGS)
    archive.nemar_index("nm000001", {path: {"updated_utc": "2026-11-01T00:00:00Z"} for path in paths}, commit="d" * 40)

    with pytest.raises(FetchError, match=r"sub-01/eeg/sub-01_task-rest_eeg\.zarr"):
        eegprep.build("nemar:nm000001", tmp_path / "b.zarr", data_dir=tmp_path / "data", **SETTINGS)


def test_originals_are_read_where_a_copy_is_missing_or_too_slow(archive, tmp_path):
    source = archive_server.dataset(tmp_path / "src", rate=500)
    archive.nemar_manifest("nm000001", source)
    paths = copies_of(archive, source, "nm000001", tmp_path / "work")
    slow = {"groups": [{"name": "eeg_250hz", "modality": "EEG", "rate": 250.0, "n_channels": 4, "source_rate_hz": 500.0}]}
    archive.nemar_index("nm000001", {paths[0]: slow})  # nothing of the second person

    eegprep.build("nemar:nm000001", tmp_path / "a.zarr", data_dir=tmp_path / "data", resample=400.0, **SETTINGS)
    edf = {request.split()[0].rsplit("/", 1)[1] for request in archive.requests if request.split()[0].endswith(".edf")}
    assert edf == {"sub-01_task-rest_eeg.edf", "sub-02_task-rest_eeg.edf"}


def test_a_missing_part_of_the_signal_is_an_error_not_zeros(tmp_path):
    store = archive_server.serving_store(tmp_path / "sub-01_task-rest_eeg.zarr", eeg(CHANNELS, 10_000, RATE), names(CHANNELS))
    (store / "eeg_250hz" / "0" / "c" / "0" / "1").unlink()

    with pytest.raises(SourceError, match="part 0/1 of its signal is missing"):
        eegprep.build(str(store), tmp_path / "a.zarr", **SETTINGS)


def test_a_corpus_beside_recordings_is_not_taken_for_one(tmp_path):
    folder = tmp_path / "study"
    write_edf(folder / "a.edf", eeg(CHANNELS, 5000, RATE), RATE, names(CHANNELS))
    eegprep.build(str(folder), folder / "corpus.zarr", **SETTINGS)

    assert eegprep.build(str(folder), tmp_path / "again.zarr", **SETTINGS).recordings == 1
    shutil.rmtree(folder)


def test_the_meter_says_bytes_rate_and_time_left():
    now = [0.0]
    counted = meter.Meter(100_000_000, clock=lambda: now[0])
    counted.see(0)
    now[0] = 10.0
    counted.see(20_000_000)

    assert counted.text == "20.0 MB of 100 MB, 2.0 MB/s, about 40 s left"
    counted.finish(20_000_000)
    assert counted.text.startswith("20.0 MB of 100 MB")


def remote(archive, tmp_path, **options) -> Path:
    """A manifest that reads the copies of a data set by ranges."""
    source = archive_server.dataset(tmp_path / "src", **options)
    archive.nemar_manifest("nm000001", source)
    archive.nemar_index("nm000001", copies_of(archive, source, "nm000001", tmp_path / "work"))
    manifest = tmp_path / "remote.toml"
    manifest.write_text('[[source]]\nspec = "nemar:nm000001"\noptions = { copy = "ranges" }\n')
    return manifest


def test_copies_are_read_by_ranges_and_no_signal_is_kept(archive, tmp_path):
    """Equal, to the bit, to what a copy on the disk gives; through a view as well."""
    manifest = remote(archive, tmp_path, people=1)

    eegprep.build(manifest, tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    eegprep.index(manifest, tmp_path / "v.zarr", data_dir=tmp_path / "data", **SETTINGS)
    ranges = [request for request in archive.requests if "/0/c/0/" in request]
    eegprep.build("nemar:nm000001", tmp_path / "b.zarr", data_dir=tmp_path / "other", **SETTINGS)

    assert any(" bytes=" in request for request in ranges)
    assert not list((tmp_path / "data").rglob("c/0/*")) and list((tmp_path / "other").rglob("c/0/*"))
    one, other = (eegprep.Corpus.open(tmp_path / name) for name in ("a.zarr", "b.zarr"))
    np.testing.assert_array_equal(one.read(np.arange(len(one))), other.read(np.arange(len(other))))
    view = eegprep.Corpus.open(tmp_path / "v.zarr")
    np.testing.assert_allclose(view.read([0, 3]), one.read([0, 3]), atol=1e-3)


def test_a_stretch_of_a_copy_costs_its_chunks_and_not_the_recording(archive, tmp_path):
    eegprep.build(remote(archive, tmp_path, people=1), tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    store = tmp_path / "data" / "nemar" / "nm000001" / "sub-01" / "eeg" / "sub-01_task-rest_eeg.zarr"
    kept = zarr.open_group(tmp_path / "work" / "sub-01" / "eeg" / store.name, mode="r")["eeg_250hz/0"]
    archive.requests.clear()
    before = archive.sent

    stretch = serving_copy.signal_of(store, "eeg_250hz", zarr.open_group(store, mode="r")["eeg_250hz/0"]).read(100, 900)
    np.testing.assert_array_equal(stretch, kept[:, 100:900])
    parts = [request for request in archive.requests if "/0/c/0/" in request]
    assert parts and all(" bytes=" in part for part in parts)
    whole = sum(path.stat().st_size for path in (tmp_path / "work").rglob("eeg_250hz/0/c/0/*"))
    assert archive.sent - before < whole / 3, archive.requests


@pytest.mark.parametrize("kept", [True, False], ids=["on the disk", "at the archive"])
def test_a_window_of_a_view_of_a_copy_costs_its_chunks(archive, tmp_path, kept):
    """Chunks of 4 s with the margin of the filter, whether they are here or read by ranges; one that was altered is refused."""
    manifest = "nemar:nm000001" if kept else remote(archive, tmp_path, people=1, seconds=120)
    if kept:
        remote(archive, tmp_path, people=1, seconds=120)
    eegprep.index(manifest, tmp_path / "v.zarr", data_dir=tmp_path / "data", **SETTINGS)
    eegprep.build(manifest, tmp_path / "c.zarr", data_dir=tmp_path / "data", **SETTINGS)
    view, corpus = (eegprep.Corpus.open(tmp_path / name) for name in ("v.zarr", "c.zarr"))
    (placed,) = view.attributes_of("nm000001/01")["view"]["integers"]
    assert placed["group"] == "eeg_250hz" and placed["chunk"] == 4 * RATE

    everything = corpus.read(np.arange(len(corpus)))
    np.testing.assert_allclose(view.read(np.arange(len(view))), everything, atol=1e-5 * everything.std())
    archive.requests.clear()
    before = archive.sent
    middle = eegprep.Corpus.open(tmp_path / "v.zarr").read([len(view) // 2])
    np.testing.assert_allclose(middle[0], everything[len(view) // 2], atol=1e-5 * everything.std())
    work = tmp_path / "work" / "sub-01" / "eeg" / "sub-01_task-rest_eeg.zarr" / "eeg_250hz" / "0" / "c" / "0"
    assert archive.sent - before < sum(path.stat().st_size for path in work.iterdir()) / 6
    assert (archive.requests == []) == kept

    place = "/zarr/nm000001/zarr/sub-01/eeg/sub-01_task-rest_eeg.zarr/eeg_250hz/0/c/0/0"
    other = archive.files[place.removesuffix("0") + "1"]
    if kept:
        (tmp_path / "data" / "nemar" / "nm000001" / place.removeprefix("/zarr/nm000001/zarr/")).write_bytes(other)
    else:
        archive.files[place] = other
    with pytest.raises(StoreError, match="chunk 0 is not what was indexed"):
        eegprep.Corpus.open(tmp_path / "v.zarr").read([0])


def test_a_store_that_was_overwritten_is_refused_when_it_is_read_by_ranges(archive, tmp_path):
    manifest = remote(archive, tmp_path, people=1)
    eegprep.build(manifest, tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    path = "/zarr/nm000001/zarr/sub-01/eeg/sub-01_task-rest_eeg.zarr/zarr.json"
    archive.files[path] = archive.files[path].replace(b"2026-09-08", b"2026-11-01")

    with pytest.raises(SourceError, match=r"sub-01_task-rest_eeg\.zarr: was overwritten"):
        eegprep.build(manifest, tmp_path / "b.zarr", data_dir=tmp_path / "data", **SETTINGS)


def test_offline_a_signal_at_its_archive_is_an_error_that_says_so(archive, tmp_path):
    manifest = remote(archive, tmp_path, people=1)
    eegprep.build(manifest, tmp_path / "a.zarr", data_dir=tmp_path / "data", **SETTINGS)
    archive.requests.clear()

    with offline.no_network(everywhere=True), pytest.raises(SourceError, match="its signal is at its archive"):
        eegprep.build(manifest, tmp_path / "b.zarr", data_dir=tmp_path / "data", offline=True, **SETTINGS)
    assert archive.requests == []
