"""Importers on small files of the same format: what goes in comes out, and damage stops them."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.interpolate import interp1d

from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs, parse_window
from dreamdiff.pairs.reader import Pairs
from eegprep.errors import CheckpointError, DataError, UsageError
from eegprep.signals.filters import band_pass

SYNSETS = ["n02389026", "n03888257", "n09999999"]  # sorrel, parachute, and one that is not among the 40
N_IMAGES = 3  # of each class


def write_image(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 16, 3), value % 256, np.uint8)).save(path)


def draw_image(path: Path) -> None:
    """A picture of its own for every name: equal pictures would count as one stimulus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(list(path.name.encode())).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize((16, 12), Image.Resampling.BICUBIC).save(path)


# ----------------------------------------------------------------------------------------------------- ImageNet-EEG


def imagenet_trials(lengths: dict[int, int] | None = None) -> dict:
    """Two subjects, three classes of three images, one trial each; sample t of channel c of trial i is i + c / 100 + t / 1000."""
    images = [f"{synset}_{k}" for synset in SYNSETS for k in range(N_IMAGES)]
    trials = []
    for subject in (1, 4):
        for image in range(len(images)):
            index = len(trials)
            t = (lengths or {}).get(index, 500)
            eeg = index + np.arange(128)[:, None] / 100 + np.arange(t) / 1000
            trials.append(
                {"eeg": torch.tensor(eeg, dtype=torch.float32), "image": image, "label": image // N_IMAGES, "subject": subject}
            )
    return {"dataset": trials, "labels": SYNSETS, "images": images}


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    folder = tmp_path / "imagenet-eeg"
    folder.mkdir()
    torch.save(imagenet_trials(), folder / "eeg_5_95_std.pth")
    split = {"train": [0, 1, 3, 4, 6, 9, 10], "val": [2, 11], "test": [5, 8, 17]}
    torch.save({"splits": [split, {**split, "test": [7]}]}, folder / "block_splits_by_image_all.pth")
    for k, name in enumerate(imagenet_trials()["images"]):
        write_image(tmp_path / "ILSVRC" / name.partition("_")[0] / f"{name}.JPEG", 20 * k)
    return folder


def from_imagenet(folder: Path, name: str = "pairs.zarr", **changes: object) -> Pairs:
    settings = {"kind": "imagenet-eeg", "images": str(folder.parent / "ILSVRC"), **changes}
    return import_pairs(folder, folder.parent / name, ImportConfig(**settings))  # type: ignore[arg-type]


def test_imagenet_eeg_is_cut_and_stretched_as_the_reference_code_does(imagenet: Path):
    """Samples 20 to 460, linear interpolation to 512: `interp1d` as there is the second implementation."""
    pairs = from_imagenet(imagenet)
    original = imagenet_trials()["dataset"][5]["eeg"].numpy()[:, 20:460]
    expected = interp1d(np.linspace(0, 1, 440), original)(np.linspace(0, 1, 512))

    assert len(pairs) == 18 and pairs.subjects == ["1", "4"]
    np.testing.assert_allclose(pairs.eeg([5])[0], expected, rtol=1e-6)
    attributes = pairs.attributes["4"]
    assert attributes["t0"] == 0.02 and attributes["sfreq"] == pytest.approx(1000 * 511 / 439)
    assert pairs.provenance == "recorded" and attributes["unit"] == "as in the file"


def test_imagenet_eeg_keeps_names_labels_and_images(imagenet: Path):
    """The 40 synsets have readable names, others keep their identifier."""
    pairs = from_imagenet(imagenet)

    assert pairs.class_ids == SYNSETS and pairs.classes[2] == "n09999999" and pairs.classes[0] != SYNSETS[0]
    assert pairs.image_names[pairs.image[12]] == "n03888257/n03888257_0.JPEG"
    np.testing.assert_array_equal(pairs.labels, np.tile(np.repeat(np.arange(3), 3), 2))
    assert abs(int(pairs.images([4])[0, 0, 0, 0]) - 80) < 4  # JPEG


def test_imagenet_eeg_split_lists_are_translated(imagenet: Path):
    """Places in the file become numbers in the store, also when only one subject is imported."""
    both = from_imagenet(imagenet)
    one = from_imagenet(imagenet, "four.zarr", subjects=("4",))

    assert both.splits["test"].tolist() == [5, 8, 17] and both.splits["split1/test"].tolist() == [7]
    assert one.splits["test"].tolist() == [17 - 9] and one.splits["train"].tolist() == [0, 1]
    np.testing.assert_array_equal(one.eeg(one.splits["test"]), both.eeg([17]))


def test_imagenet_eeg_leaves_out_trials_of_odd_length_and_says_how_many(imagenet: Path):
    """450 to 600 samples, both included; the lists skip what is left out."""
    torch.save(imagenet_trials({0: 449, 1: 450, 2: 600, 5: 601}), imagenet / "eeg_5_95_std.pth")
    pairs = from_imagenet(imagenet)

    assert len(pairs) == 16 and pairs.attributes["1"]["left_out"] == 2 and pairs.attributes["4"]["left_out"] == 0
    assert pairs.trial[:4].tolist() == [1, 2, 3, 4]
    assert [int(pairs.trial[i]) + 9 * 0 for i in pairs.splits["test"]] == [8, 17]


def test_imagenet_eeg_single_lists_count_within_one_subject(imagenet: Path):
    """As in the reference code; with more subjects they would point at other trials."""
    single = imagenet / "block_splits_by_image_single.pth"
    torch.save({"splits": [{"train": [0, 1], "val": [2], "test": [8]}]}, single)
    pairs = from_imagenet(imagenet, subjects=("4",), splits=str(single))

    assert pairs.splits["test"].tolist() == [8] and pairs.trial[8] == 17
    with pytest.raises(UsageError, match="numbers trials within one subject, 2 are imported"):
        from_imagenet(imagenet, "both.zarr", splits=str(single))


def test_imagenet_eeg_list_that_reaches_one_past_the_end_is_an_error(imagenet: Path):
    """The reference code lets index = length through, and fails in the middle of training."""
    torch.save({"splits": [{"train": [0], "val": [1], "test": [18]}]}, imagenet / "block_splits_by_image_all.pth")
    with pytest.raises(DataError, match=r"lists trial 18, there are 18 \(0\.\.17\)"):
        from_imagenet(imagenet)


def test_imagenet_eeg_audit_tells_what_no_split_can_repair(imagenet: Path):
    """One block per class is documented, sessions and times are not in the file."""
    result = from_imagenet(imagenet).audit("default")

    assert result.verdict == "leaks" and result.block_design == "class blocks" and result.blocks_per_class == 1.0
    assert any("one block per person" in sentence for sentence in result.unrepairable)
    assert any("order of classes differed between persons, which is not recorded here" in s for s in result.unrepairable)
    assert any("Li et al." in note for note in result.notes)
    assert {row.factor: row.n_unknown for row in result.shared}["session"] == result.n_test


def test_imagenet_eeg_without_a_split_file_is_parted_by_image(imagenet: Path):
    """And images stay apart."""
    (imagenet / "block_splits_by_image_all.pth").unlink()
    pairs = from_imagenet(imagenet)

    assert not set(pairs.image[pairs.splits["train"]].tolist()) & set(pairs.image[pairs.splits["test"]].tolist())


def test_a_missing_image_stops_the_import(imagenet: Path):
    """The reference code shows noise instead."""
    (imagenet.parent / "ILSVRC/n03888257/n03888257_1.JPEG").unlink()
    with pytest.raises(DataError, match=r"1 of 9 images are missing from .*, the first is n03888257/n03888257_1\.JPEG"):
        from_imagenet(imagenet)
    assert not (imagenet.parent / "pairs.zarr").exists()


def test_a_pickle_that_runs_code_is_refused(imagenet: Path):
    """Files come from shared drives."""

    class Evil:
        def __reduce__(self):
            return (os.system, ("touch pwned",))

    torch.save({"dataset": Evil(), "labels": [], "images": []}, imagenet / "eeg_5_95_std.pth")
    with pytest.raises(CheckpointError, match="refused"):
        from_imagenet(imagenet)
    assert not Path("pwned").exists()


def test_imagenet_eeg_files_that_do_not_fit_are_refused(imagenet: Path, tmp_path: Path):
    """With what was found and what was wanted."""
    file = imagenet / "eeg_5_95_std.pth"

    def refused(content: object, message: str) -> None:
        torch.save(content, file)
        with pytest.raises(DataError, match=message):
            from_imagenet(imagenet)

    refused({"weights": 1}, "holds no ImageNet-EEG trials")
    content = imagenet_trials()
    content["dataset"][3]["eeg"] = torch.zeros(96, 500)
    refused(content, r"trial 3 has EEG of shape \(96, 500\), expected \(128, T\)")
    content = imagenet_trials()
    content["dataset"][2]["label"] = 40
    refused(content, "trial 2 has label 40, there are 3")
    content = imagenet_trials()
    content["dataset"][2]["image"] = 99
    refused(content, "image 99 is named, there are 9")
    refused(imagenet_trials(dict.fromkeys(range(18), 300)), "0 of 18 trials have 450 to 600 samples")
    torch.save(imagenet_trials(), file)
    torch.save({"folds": []}, imagenet / "block_splits_by_image_all.pth")
    with pytest.raises(DataError, match="holds no splits"):
        from_imagenet(imagenet)
    with pytest.raises(UsageError, match="there is no subject '7'"):
        from_imagenet(imagenet, subjects=("7",))
    with pytest.raises(UsageError, match="window 460:20 is empty"):
        from_imagenet(imagenet, window=(460, 20))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"0 files named eeg\*\.pth"):
        import_pairs(tmp_path / "empty", tmp_path / "x.zarr", ImportConfig(kind="imagenet-eeg"))


def test_an_image_of_another_class_than_its_label_is_noted(imagenet: Path):
    """Listings in another order than the file have been published."""
    content = imagenet_trials()
    content["dataset"][0]["image"] = 8
    torch.save(content, imagenet / "eeg_5_95_std.pth")

    assert any("1 trials show an image whose name belongs to another class" in n for n in from_imagenet(imagenet).audit().notes)


# ------------------------------------------------------------------------------------------------------- THINGS-EEG2

CONCEPTS, TEST_CONCEPTS = ("00001_aardvark", "00002_abacus", "00003_accordion"), ("00001_aircraft_carrier", "00002_antelope")
CHANNELS = [f"P{k}" for k in range(17)]


def things_data(conditions: int, repetitions: int, subject: int) -> dict:
    shape = (conditions, repetitions, len(CHANNELS), 100)
    data = np.random.default_rng([subject, conditions]).standard_normal(shape)
    return {"preprocessed_eeg_data": data, "ch_names": CHANNELS, "times": np.round(np.arange(-20, 80) / 100, 2)}


@pytest.fixture
def things(tmp_path: Path) -> Path:
    root = tmp_path / "things"
    for concept in CONCEPTS:
        for k in "ab":
            draw_image(root / "Image_set/training_images" / concept / f"{concept[6:]}_0{k}.jpg")
    for concept in TEST_CONCEPTS:
        draw_image(root / "Image_set/test_images" / concept / f"{concept[6:]}_06s.jpg")
    for subject in (1, 2):
        folder = root / f"sub-0{subject}"
        folder.mkdir()
        np.save(folder / "preprocessed_eeg_training.npy", things_data(6, 4, subject), allow_pickle=True)
        with (folder / "preprocessed_eeg_test.npy").open("wb") as file:  # both ways of saving are in circulation
            pickle.dump(things_data(2, 8, subject), file, protocol=4)
    return root


def from_things(root: Path, name: str = "pairs.zarr", **changes: object) -> Pairs:
    return import_pairs(root, root.parent / name, ImportConfig(kind="things-eeg2", **changes))  # type: ignore[arg-type]


def test_things_eeg2_repetitions_are_trials_of_their_own(things: Path):
    """(6 images x 4 + 2 x 8) x 2 subjects; channels replicated to 128, 100 samples stretched to 512."""
    pairs = from_things(things)
    data = things_data(6, 4, 2)["preprocessed_eeg_data"][3, 2].astype(np.float32)
    number = 40 + 3 * 4 + 2

    assert len(pairs) == 80 and pairs.subjects == ["01", "02"]
    expected = interp1d(np.linspace(0, 1, 100), data)(np.linspace(0, 1, 512))
    np.testing.assert_allclose(pairs.eeg([number])[0, :17], expected, atol=1e-5)
    np.testing.assert_array_equal(pairs.eeg([number])[0, 17:34], pairs.eeg([number])[0, :17])
    assert pairs.image_names[pairs.image[number]] == "training_images/00002_abacus/abacus_0b.jpg"
    assert pairs.classes == ["aardvark", "abacus", "accordion", "aircraft_carrier", "antelope"]
    attributes = pairs.attributes["01"]
    assert attributes["t0"] == -0.2 and attributes["original_sfreq"] == pytest.approx(100) and attributes["n_channels"] == 17


def test_things_eeg2_repetitions_can_be_averaged(things: Path):
    """As published retrieval numbers do."""
    kept, averaged = from_things(things), from_things(things, "mean.zarr", repetitions="average")

    assert len(averaged) == 16
    np.testing.assert_allclose(averaged.eeg([1])[0], kept.eeg(range(4, 8)).mean(0), atol=1e-5)
    np.testing.assert_allclose(averaged.eeg([6])[0], kept.eeg(range(24, 32)).mean(0), atol=1e-5)


def test_things_eeg2_test_concepts_are_never_trained(things: Path):
    """Zero-shot by concept, and validation holds concepts out of training too."""
    pairs = from_things(things)
    shown = {name: set(pairs.labels[positions].tolist()) for name, positions in pairs.splits.items()}

    assert shown["test"] == {3, 4} and len(shown["val"]) == 1 and len(shown["train"]) == 2
    assert not shown["train"] & shown["val"] and sum(map(len, pairs.splits.values())) == 80


def test_things_eeg2_unknown_blocks_are_said_to_be_unknown(things: Path):
    """Sessions are merged in the preprocessed files."""
    result = from_things(things).audit("default")

    assert result.verdict == "unknown" and result.block_design == "unknown"
    assert any("merge the sessions" in note for note in result.notes)
    assert any("class that training never shows" in note for note in result.notes)


def test_things_eeg2_order_of_images_comes_from_the_metadata_when_it_is_there(things: Path):
    """Conditions are numbered by that list."""
    names = {
        "train_img_concepts": [c for c in reversed(CONCEPTS) for _ in "ab"],
        "train_img_files": [f"{c[6:]}_0{k}.jpg" for c in reversed(CONCEPTS) for k in "ab"],
        "test_img_concepts": list(TEST_CONCEPTS), "test_img_files": [f"{c[6:]}_06s.jpg" for c in TEST_CONCEPTS],
    }  # fmt: skip
    np.save(things / "Image_set/image_metadata.npy", names, allow_pickle=True)
    pairs = from_things(things)

    assert pairs.image_names[0] == "training_images/00003_accordion/accordion_0a.jpg" and pairs.classes[0] == "accordion"


def test_things_eeg2_files_that_do_not_fit_are_refused(things: Path, tmp_path: Path):
    """Counts of images and conditions, missing parts, and pickles that ask for more."""
    with pytest.raises(DataError, match=r"holds no folder sub-\*"):
        from_things(tmp_path)
    np.save(things / "Image_set/image_metadata.npy", {"x": 1}, allow_pickle=True)
    with pytest.raises(DataError, match="holds no train_img_concepts"):
        from_things(things)
    (things / "Image_set/image_metadata.npy").unlink()
    extra = things / "Image_set/training_images/00004_acorn/acorn_01b.jpg"
    write_image(extra)
    with pytest.raises(DataError, match=r"EEG of shape \(6, 4, 17, 100\) does not fit 7 images, 17 channels and 100 times"):
        from_things(things)
    extra.unlink()
    extra.parent.rmdir()
    file = things / "sub-02/preprocessed_eeg_training.npy"
    np.save(file, {"data": 1}, allow_pickle=True)
    with pytest.raises(DataError, match="is not a dictionary of preprocessed EEG"):
        from_things(things, "b.zarr")

    class Evil:
        def __reduce__(self):
            return (os.system, ("touch pwned",))

    np.save(file, {"preprocessed_eeg_data": Evil()}, allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"refused: it asks for posix\.system"):
        from_things(things, "c.zarr")
    file.unlink()
    with pytest.raises(DataError, match=r"sub-02/preprocessed_eeg_training\.npy is missing"):
        from_things(things, "d.zarr")
    with pytest.raises(DataError, match="holds no training_images and test_images"):
        import_pairs(things, tmp_path / "e.zarr", ImportConfig(kind="things-eeg2", images=str(tmp_path)))


def test_an_interrupted_import_goes_on_with_the_next_subject(things: Path):
    """Ten subjects of 20 GB take hours."""
    seen: list[str] = []

    def stop(done: int, total: int, message: str) -> None:
        if "02" in message:
            raise KeyboardInterrupt
        seen.append(message)

    with pytest.raises(KeyboardInterrupt):
        import_pairs(things, things.parent / "p.zarr", ImportConfig(kind="things-eeg2"), progress=stop)
    again: list[str] = []
    pairs = import_pairs(
        things, things.parent / "p.zarr", ImportConfig(kind="things-eeg2"), progress=lambda d, t, message: again.append(message)
    )

    assert seen and all("02" in message for message in again) and len(pairs) == 80
    np.testing.assert_array_equal(pairs.eeg(), from_things(things, "whole.zarr").eeg())


# -------------------------------------------------------------------------------------------------- a table of one's own

SFREQ, SECONDS = 256.0, 30


def write_recording(path: Path, n_channels: int = 16, seed: int = 0, sfreq: float = SFREQ) -> np.ndarray:
    """A FIF file of 1/f-like EEG in uV."""
    rng = np.random.default_rng(seed)
    signal = np.cumsum(rng.standard_normal((n_channels, int(SECONDS * sfreq))), axis=1)
    signal = 10 * (signal - signal.mean(1, keepdims=True)) / signal.std(1, keepdims=True) + 4 * rng.standard_normal(signal.shape)
    info = mne.create_info([f"EEG{k:03d}" for k in range(n_channels)], sfreq, "eeg")
    mne.io.RawArray(signal * 1e-6, info, verbose="error").save(path, verbose="error", overwrite=True)
    return signal


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "pictures").mkdir(parents=True)
    for k in range(8):
        write_image(folder / f"pictures/{k}.png", 30 * k)
    rows = []
    for subject, n_channels in (("anna", 16), ("bert", 130)):
        for run in (0, 1):
            write_recording(folder / f"{subject}-{run}_raw.fif", n_channels, seed=run)
            for trial in range(8):
                rows.append({
                    "recording": f"{subject}-{run}_raw.fif", "onset": 2.0 + 3 * trial, "image": f"pictures/{(trial * 3 + run) % 8}.png",
                    "label": ("cat", "dog")[(trial * 3 + run) % 8 // 4], "subject": subject, "block": f"b{trial // 4}",
                })  # fmt: skip
    table = pd.DataFrame(rows).sample(frac=1, random_state=0)  # order of rows must not matter
    table.to_csv(folder / "trials.csv", index=False)
    return folder


def from_table(table: Path, name: str = "pairs.zarr", **changes: object) -> Pairs:
    return import_pairs(table, table.parent / name, ImportConfig(kind="table", **changes))  # type: ignore[arg-type]


def test_a_trial_of_a_table_is_the_filtered_recording_at_its_onset(mine: Path):
    """The same filter as the corpus, on the whole recording, then cut; channels replicated to 128."""
    pairs = from_table(mine / "trials.csv", licence="CC0-1.0")
    raw = mne.io.read_raw(mine / "anna-0_raw.fif", preload=True, verbose="error")
    filtered = band_pass((raw.get_data() * 1e6).astype(np.float32), SFREQ, 5.0, 95.0)
    start = round(5.0 * SFREQ)

    trial = pairs.eeg([1])[0]
    np.testing.assert_allclose(trial[:16], filtered[:, start : start + 512], atol=1e-4)
    np.testing.assert_array_equal(trial[16:32], trial[:16])
    assert pairs.onset[1] == 5.0 and pairs.licence == "CC0-1.0" and pairs.attributes["anna"]["band"] == [5.0, 95.0]


def test_a_table_keeps_persons_runs_blocks_images_and_labels(mine: Path):
    """Whatever order its rows had."""
    pairs = from_table(mine / "trials.csv")
    frame = pairs.table

    assert pairs.subjects == ["anna", "bert"] and pairs.classes == ["cat", "dog"] and len(pairs) == 32
    np.testing.assert_array_equal(pairs.session, np.tile(np.repeat([0, 1], 8), 2))
    np.testing.assert_array_equal(pairs.block, np.tile(np.repeat([0, 1], 4), 4))
    assert frame["image"].tolist()[:3] == ["pictures/0.png", "pictures/3.png", "pictures/6.png"]
    assert frame["label"].tolist()[:3] == ["cat", "cat", "dog"]
    assert pairs.attributes["anna"]["blocks"] == "recorded"
    assert not set(pairs.image[pairs.splits["train"]].tolist()) & set(pairs.image[pairs.splits["test"]].tolist())


def test_of_more_than_128_channels_128_are_kept_and_recorded(mine: Path):
    """As in the corpus."""
    attributes = from_table(mine / "trials.csv").attributes["bert"]
    rows = attributes["recordings"][0]["pad_map"]

    assert attributes["n_channels"] == 130 and len(rows) == 128
    assert rows == sorted(set(rows)) and rows[0] >= 0 and rows[-1] < 130


def test_parquet_offset_and_given_splits(mine: Path):
    """Pre-stimulus windows, and a split that the table brings along; no block column means unknown."""
    table = pd.read_csv(mine / "trials.csv").drop(columns="block")
    table["split"] = np.where(table["onset"] > 20, "test", np.where(table["onset"] > 17, "val", "train"))
    table.to_parquet(mine / "trials.parquet")
    pairs, plain = from_table(mine / "trials.parquet", offset=-0.5), from_table(mine / "trials.csv", "plain.zarr")

    np.testing.assert_array_equal(pairs.eeg([3])[0, :, 128:], plain.eeg([3])[0, :, :384])
    assert pairs.attributes["anna"]["t0"] == -0.5 and pairs.attributes["anna"]["blocks"] == "unknown"
    assert set(pairs.onset[pairs.splits["test"]].tolist()) == {23.0} and (pairs.block == -1).all()


def test_a_column_of_numbers_with_gaps_stays_unknown_where_it_is_empty(mine: Path):
    """Half-filled columns are normal."""
    table = pd.read_csv(mine / "trials.csv")
    table.loc[table["subject"] == "bert", "block"] = np.nan
    table.to_csv(mine / "trials.csv", index=False)
    pairs = from_table(mine / "trials.csv")

    assert (pairs.block[pairs.person == 1] == -1).all() and (pairs.block[pairs.person == 0] >= 0).all()
    assert pairs.audit("default").block_design == "mixed blocks"  # by the onsets, which every row has


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="label"), "there is no column 'label'"),
        (lambda t: t.iloc[:0], "0 rows"),
        (lambda t: t.assign(image=t["image"].where(t.index > 0)), "row 1 has an empty cell"),
        (lambda t: t.assign(onset=["soon", *t["onset"].tolist()[1:]]), "row 1 has the onset 'soon'"),
        (lambda t: t.assign(onset=t["onset"] - 3), r"has the onset '-1\.0'"),
        (
            lambda t: t.assign(recording="gone.fif", onset=[float(k) for k in range(len(t))]),
            "1 of 1 recordings are missing, the first is gone.fif",
        ),
        (
            lambda t: t.assign(image=["pictures/99.png", *t["image"].tolist()[1:]]),
            "1 of 9 images are missing from .*, the first is pictures/99.png",
        ),
        (lambda t: t.assign(onset=t["onset"] + 5.5), r"at 28\.5 s needs 28\.500 to 30\.500 s, the recording has 30\.000 s"),
        (lambda t: t.assign(split="training"), "'training' in the column 'split'"),
        (lambda t: t.assign(subject="../x"), "cannot be a group"),
    ],
)
def test_tables_with_mistakes_are_refused(mine: Path, change, message: str):
    """Row, value and limit are named; nothing is left out in silence."""
    change(pd.read_csv(mine / "trials.csv")).to_csv(mine / "bad.csv", index=False)
    with pytest.raises(DataError, match=message):
        from_table(mine / "bad.csv")


def test_recordings_that_do_not_fit_are_refused(mine: Path):
    """Too few channels, two rates, no EEG file, no table."""
    write_recording(mine / "anna-1_raw.fif", 4)
    with pytest.raises(DataError, match="cannot be used"):
        from_table(mine / "trials.csv")
    write_recording(mine / "anna-1_raw.fif", 16, sfreq=512.0)
    with pytest.raises(DataError, match="subject anna: recordings at 256 and 512 Hz"):
        from_table(mine / "trials.csv", "b.zarr")
    with pytest.raises(DataError, match=r"nothing.csv does not exist"):
        from_table(mine / "nothing.csv")
    (mine / "broken.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read as a table"):
        from_table(mine / "broken.parquet")


def test_too_many_channels_are_refused(mine: Path):
    """More than 256 is no EEG cap."""
    write_recording(mine / "anna-0_raw.fif", 257)
    with pytest.raises(DataError, match=r"257 EEG channels are outside 8\.\.256"):
        from_table(mine / "trials.csv")


def test_importing_again_leaves_the_store_alone_and_a_changed_source_is_refused(mine: Path):
    """The store belongs to its sources, by checksum."""
    first = from_table(mine / "trials.csv")
    assert from_table(mine / "trials.csv").fingerprint == first.fingerprint
    from eegprep.errors import StoreError

    write_recording(mine / "anna-0_raw.fif", 16, seed=77)
    with pytest.raises(StoreError, match="was made with other settings"):
        from_table(mine / "trials.csv")


def test_a_window_is_written_as_start_and_stop():
    """`--window 20:460`."""
    assert parse_window("20:460") == (20, 460)
    with pytest.raises(UsageError, match="is not START:STOP"):
        parse_window("20-460")
