"""Data sets as their users have them: tiny files of the true form, with values that are known."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from packaging.version import Version
from PIL import Image

from cli.main import dreamdiff_app, run
from dreamdiff.pairs.importers.epochs import POSTERIOR
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from eegprep.errors import DataError, UsageError

TRAINING, TEST = ("00001_aardvark", "00002_abacus", "00003_accordion"), ("00001_aircraft_carrier", "00002_antelope")
CAP = (*POSTERIOR, "Fp1", "Fz", "Cz")


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = int.from_bytes(path.name.encode(), "little") % 2**32
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (12, 12, 3), np.uint8)).save(path)


def things_images(folder: Path) -> Path:
    """Two images of three training concepts, one of two test concepts."""
    for concept in TRAINING:
        for k in "ab":
            draw(folder / "training_images" / concept / f"{concept[6:]}_0{k}.jpg")
    for concept in TEST:
        draw(folder / "test_images" / concept / f"{concept[6:]}_06s.jpg")
    return folder


def preprocessed(conditions: int, repetitions: int, seed: int) -> dict:
    """250 samples of data and 300 times, as the files of 250 Hz have them."""
    data = np.random.default_rng(seed).standard_normal((conditions, repetitions, len(CAP), 250)).astype(np.float32)
    return {"preprocessed_eeg_data": data, "ch_names": list(CAP), "times": np.round(np.arange(-50, 250) / 250, 4)}


@pytest.fixture
def things(tmp_path: Path) -> Path:
    root = tmp_path / "THINGS-EEG2"
    things_images(root / "Image_set")
    (root / "sub-01").mkdir()
    np.save(root / "sub-01/preprocessed_eeg_training.npy", preprocessed(6, 4, 1), allow_pickle=True)
    np.save(root / "sub-01/preprocessed_eeg_test.npy", preprocessed(2, 8, 2), allow_pickle=True)
    return root


def imported(source: Path, kind: str, name: str = "pairs.zarr", **changes: object):
    return import_pairs(source, source.parent / name, ImportConfig(kind=kind, **changes))  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------- THINGS-EEG2, preprocessed


def test_the_last_times_belong_to_the_data(things):
    """Of 300 times 250 are the data's: it begins at the onset, at 250 Hz, and nothing is stretched or filled up."""
    pairs = imported(things, "things-eeg2", recipe="image")

    facts = pairs.attributes["01"]
    assert pairs.eeg_shape == (len(CAP), 250)
    assert facts["sfreq"] == pytest.approx(250.0) and facts["t0"] == pytest.approx(0.0, abs=1e-6)
    assert facts["channels"] == list(CAP)
    np.testing.assert_array_equal(pairs.eeg([0])[0], preprocessed(6, 4, 1)["preprocessed_eeg_data"][0, 0])


def test_longer_times_are_read_by_the_papers_recipe_too(things):
    """512 samples and 128 rows, from the onset on."""
    pairs = imported(things, "things-eeg2")

    assert pairs.eeg_shape == (128, 512)
    assert pairs.attributes["01"]["t0"] == pytest.approx(0.0, abs=1e-6)


def test_seventeen_posterior_electrodes_and_a_window_in_ms(things):
    """Named electrodes in their order, and only the samples of the window."""
    pairs = imported(things, "things-eeg2", recipe="image", electrodes="posterior", window_ms=(100, 500))

    assert pairs.eeg_shape == (17, 100)
    assert pairs.attributes["01"]["channels"] == list(POSTERIOR)
    assert pairs.attributes["01"]["t0"] == pytest.approx(0.1)
    np.testing.assert_array_equal(pairs.eeg([0])[0], preprocessed(6, 4, 1)["preprocessed_eeg_data"][0, 0, :17, 25:125])


def test_noise_is_normalised_by_training_trials_alone(things):
    """Whitened training trials have the identity for a covariance; what the test trials hold changes nothing."""
    first = imported(things, "things-eeg2", recipe="image", mvnn=True)
    loud = preprocessed(2, 8, 2)
    loud["preprocessed_eeg_data"] *= 50
    np.save(things / "sub-01/preprocessed_eeg_test.npy", loud, allow_pickle=True)
    second = imported(things, "things-eeg2", "other.zarr", recipe="image", mvnn=True)

    train = first.splits["train"]
    x = first.eeg(train).astype(float)
    x -= x.mean(2, keepdims=True)
    covariance = np.einsum("nct,ndt->cd", x, x) / (len(x) * x.shape[2])
    np.testing.assert_allclose(covariance, np.eye(len(CAP)), atol=0.03)
    np.testing.assert_array_equal(first.eeg(train), second.eeg(train))
    np.testing.assert_allclose(second.eeg(second.splits["test"]), 50 * first.eeg(first.splits["test"]), rtol=1e-4)
    assert first.attributes["01"]["noise_normalisation"] == {"fitted_on": "training trials", "trials": len(train), "sessions": 1}


def test_a_missing_posterior_electrode_is_named(things):
    """Nothing stands in for it."""
    short = preprocessed(6, 4, 1)
    short["ch_names"] = ["X1" if name == "Oz" else name for name in CAP]
    np.save(things / "sub-01/preprocessed_eeg_training.npy", short, allow_pickle=True)

    with pytest.raises(DataError, match=r"1 of the 17 posterior electrodes are not there \(Oz\)"):
        imported(things, "things-eeg2", recipe="image", electrodes="posterior")


# ------------------------------------------------------------------------------------------------ THINGS-EEG2, raw


def raw_file(codes: dict[int, int], seed: int, seconds: int = 24) -> dict:
    """1 kHz, V, a stimulus channel; at each code a step of 30 uV on Oz from 100 to 200 ms, so that trials are known."""
    rng = np.random.default_rng(seed)
    data = 10e-6 * rng.standard_normal((len(CAP) + 1, seconds * 1000))
    data[-1] = 0
    for sample, code in codes.items():
        data[CAP.index("Oz"), sample + 100 : sample + 200] += 60e-6
        data[-1, sample : sample + 20] = code
    return {"raw_eeg_data": data, "ch_names": [*CAP, "stim"], "ch_types": ["eeg"] * len(CAP) + ["stim"], "sfreq": 1000}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two sessions; 99999 is a target, and the last image has no room for its window."""
    root = tmp_path / "raw"
    things_images(root / "Image_set")
    for session in (1, 2):
        folder = root / f"sub-01/ses-0{session}"
        folder.mkdir(parents=True)
        training = {2000 * (k + 1): code for k, code in enumerate((1, 3, 99999, 5, 2, 4, 6))}
        np.save(folder / "raw_eeg_training.npy", raw_file(training | {23_900: 1}, session), allow_pickle=True)
        np.save(folder / "raw_eeg_test.npy", raw_file({3000: 2, 6000: 1, 9000: 2}, 10 + session), allow_pickle=True)
    return root


def test_raw_recordings_are_cut_at_the_stimulus_channel(raw):
    """Images by their number, sessions, onsets, the data set's own test part; the response is where it was put."""
    pairs = imported(raw, "things-eeg2-raw")

    assert len(pairs) == 2 * (6 + 3)
    assert pairs.eeg_shape == (len(CAP), 300)
    assert sorted({pairs.classes[k] for k in pairs.labels[pairs.splits["test"]]}) == ["aircraft_carrier", "antelope"]
    assert len(pairs.splits["test"]) == 6 and len(pairs.splits["train"]) + len(pairs.splits["val"]) == 12
    facts = pairs.attributes["01"]
    assert facts["sfreq"] == 250 and facts["t0"] == pytest.approx(-0.2) and facts["unit"] == "uV"
    mean_T = pairs.eeg()[:, CAP.index("Oz")].mean(0)
    time = -0.2 + np.arange(300) / 250
    assert mean_T[(time > 0.12) & (time < 0.18)].mean() - mean_T[time < 0].mean() > 30
    assert abs(mean_T[time < 0].mean()) < 1e-3  # the baseline


def test_raw_recordings_of_another_image_set_are_refused(raw):
    """An image number beyond the set would be somebody else's picture."""
    np.save(raw / "sub-01/ses-01/raw_eeg_test.npy", raw_file({3000: 7}, 3), allow_pickle=True)

    with pytest.raises(DataError, match="image 7 at 3 s, there are 2"):
        imported(raw, "things-eeg2-raw")


# ---------------------------------------------------------------------------------------------------- THINGS-EEG1


@pytest.fixture
def eeg1(tmp_path: Path) -> Path:
    """Onsets in samples, Windows paths, targets and test images, as in ds003825."""
    root = tmp_path / "ds003825"
    folder = root / "sub-01/eeg"
    folder.mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0", "License": "CC0"}')
    for concept in ("cat", "dog", "hat"):
        for k in range(3):
            draw(root / "stimuli" / concept / f"{concept}_{k}.jpg")
    samples = 30_000
    lines = [
        "Brain Vision Data Exchange Header File Version 1.0",
        "[Common Infos]",
        "Codepage=UTF-8",
        "DataFile=sub-01_task-rsvp_eeg.eeg",
    ]
    lines += ["DataFormat=BINARY", "DataOrientation=MULTIPLEXED", f"NumberOfChannels={len(CAP)}", "SamplingInterval=1000"]
    lines += [
        "[Binary Infos]",
        "BinaryFormat=IEEE_FLOAT_32",
        "[Channel Infos]",
        *(f"Ch{k + 1}={name},,1,µV" for k, name in enumerate(CAP)),
    ]
    (folder / "sub-01_task-rsvp_eeg.vhdr").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (20 * np.random.default_rng(0).standard_normal((samples, len(CAP)))).astype("<f4").tofile(folder / "sub-01_task-rsvp_eeg.eeg")
    rows = ["onset\tduration\tobject\tstim\tisteststim\tistarget"]
    for k in range(12):
        concept = ("cat", "dog", "hat")[k % 3]
        rows.append(
            f"{1000 + 2000 * k}\t50\t{concept}\tstimuli\\{concept}\\{concept}_{k // 3 % 3}.jpg\t{int(k >= 9)}\t{int(k == 4)}"
        )
    (folder / "sub-01_task-rsvp_events.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.skipif(Version(mne.__version__) < Version("1.13"), reason="reads no BrainVision header without a marker file")
def test_things_eeg1_reads_onsets_in_samples_without_the_targets(eeg1, monkeypatch):
    """A recording of 30 s stands for one of hours: beyond the longest one, onsets are samples."""
    monkeypatch.setattr("dreamdiff.pairs.importers.layouts.things_eeg1.LONGEST_S", 60.0)
    said: list[str] = []
    pairs = import_pairs(eeg1, eeg1.parent / "pairs.zarr", ImportConfig(kind="things-eeg1"), tell=said.append)

    assert len(pairs) == 11 and pairs.eeg_shape == (len(CAP), 300)
    np.testing.assert_allclose(np.asarray(pairs.trials.time[:3], float), [1, 3, 5])
    assert pairs.classes == ["cat", "dog", "hat"]
    assert sorted(pairs.splits["test"]) == [8, 9, 10]
    assert "1 targets were left out" in said and any("samples at 1000 Hz" in line for line in said)


# -------------------------------------------------------------------------------------------------------- Alljoined


def test_alljoined_trials_take_their_pictures_from_the_metadata(tmp_path):
    """Dropped trials are not in the files; sessions come one after the other; one trial too many is refused."""
    root = tmp_path / "Alljoined-1.6M"
    (root / "sub-01").mkdir(parents=True)
    rows = []
    for session in (2, 1):
        for k in range(6):
            concept = "ab"[k % 2]
            draw(root / "images" / concept / f"{session}{k:04d}.jpg")
            rows.append((f"images/{concept}/{session}{k:04d}.jpg", "stim_test" if k == 5 else "stim_train", session, k == 2))
    pd.DataFrame(rows, columns=["image_path", "partition", "session", "dropped"]).to_parquet(
        root / "sub-01/experiment_metadata.parquet"
    )
    rng = np.random.default_rng(0)

    def flat(count: int) -> dict:
        return {
            "preprocessed_eeg_data": rng.standard_normal((count, len(CAP), 250)),
            "ch_names": list(CAP),
            "times": np.arange(250) / 250,
        }

    training = flat(8)
    np.save(root / "sub-01/preprocessed_eeg_training_flat.npy", training, allow_pickle=True)
    np.save(root / "sub-01/preprocessed_eeg_test_flat.npy", flat(2), allow_pickle=True)
    pairs = imported(root, "alljoined")

    shown = [pairs.image_names[k] for k in pairs.image[:4]]
    assert shown == [
        "images/a/10000.jpg",
        "images/b/10001.jpg",
        "images/b/10003.jpg",
        "images/a/10004.jpg",
    ]  # session 1 first, 2 was dropped
    np.testing.assert_allclose(pairs.eeg([0])[0], training["preprocessed_eeg_data"][0], rtol=1e-6)
    assert pairs.licence == "CC-BY-NC-ND-4.0" and len(pairs.splits["test"]) == 2
    np.save(root / "sub-01/preprocessed_eeg_training_flat.npy", flat(9), allow_pickle=True)
    with pytest.raises(DataError, match=r"holds 9 trials, experiment_metadata\.parquet lists 8"):
        imported(root, "alljoined", "b.zarr")


# ------------------------------------------------------------------------------------------------------ the recipe


def test_the_image_recipe_has_its_own_defaults_and_the_papers_stay(things, capsys):
    """0.5 to 100 Hz and 250 Hz for images; options of one recipe are refused by the other."""
    assert (ImportConfig(kind="table").low, ImportConfig(kind="table").high) == (5.0, 95.0)
    image = ImportConfig(kind="table", recipe="image")
    assert (image.low, image.high, image.resample, image.offset, image.window_samples) == (0.5, 100.0, 250.0, -0.2, 300)
    line = ["pairs", "import", str(things), "--kind", "things-eeg2", "--out", str(things.parent / "p.zarr"), "--mvnn"]
    assert run(dreamdiff_app, "dreamdiff", line) == 2
    assert "belongs to the image recipe" in capsys.readouterr().err
    assert run(dreamdiff_app, "dreamdiff", [*line, "--recipe", "image", "--window-ms", "0:400"]) == 0


def test_a_person_without_training_trials_has_no_noise_to_normalise_by(things):
    """Test trials never help to fit it."""
    from dreamdiff.pairs.importers.epochs import NoiseNormaliser
    from dreamdiff.pairs.importers.importer import Batch

    with pytest.raises((DataError, UsageError), match="no training trial"):
        NoiseNormaliser("x").fit([Batch(np.zeros((3, 2, 5), np.float32), {})], np.zeros(3, bool))


def test_a_recording_gets_the_baseline_of_the_training_pairs(tmp_path):
    """A trial of a recording that a model is given later is the array that the import made of it."""
    import mne

    from dreamdiff.eeg_input import SignalConfig, signal_of
    from dreamdiff.generation.trials import cut_events
    from eegprep.recording import Origin
    from eegprep.sources.reading import read_file

    rng = np.random.default_rng(0)
    info = mne.create_info(list(CAP), 500.0, "eeg")
    raw = mne.io.RawArray(20e-6 * rng.standard_normal((len(CAP), 10_000)) + 30e-6, info, verbose="error")
    raw.set_annotations(mne.Annotations([4.0, 8.0], [0.0, 0.0], ["see", "see"]))
    raw.save(tmp_path / "a_raw.fif", verbose="error")
    for k in range(3):
        draw(tmp_path / f"{k}.png")
    (tmp_path / "trials.csv").write_text(
        "recording,onset,image,label\na_raw.fif,4.0,0.png,x\na_raw.fif,8.0,1.png,y\na_raw.fif,12.0,2.png,x\n"
    )
    pairs = imported(tmp_path / "trials.csv", "table", recipe="image")
    signal = signal_of([pairs.attributes[name] for name in pairs.subjects], pairs.recipe["settings"])

    trials = cut_events(read_file(tmp_path / "a_raw.fif", Origin("d", "s", "0", "a")), signal, *pairs.eeg_shape)

    assert tuple(signal.baseline_ms) == (-200.0, 0.0)
    np.testing.assert_allclose(trials.read([0, 1]), pairs.eeg([0, 1]), atol=1e-3)
    assert "baseline_ms" not in SignalConfig().model_dump(mode="json")
