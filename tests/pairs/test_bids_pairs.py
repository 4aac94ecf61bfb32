"""Pairs straight from a BIDS folder: EEG as it was recorded, and events.tsv with a column of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import main
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from eegprep.errors import DataError

SFREQ, SECONDS = 256.0, 30
CAP = ("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz", "P4")
NAMES = ("dog_1.png", "dog_2.png", "dog_3.png", "shoe_1.png", "shoe_2.png", "shoe_3.png")


def brainvision(path: Path, seed: int) -> None:
    """A header, markers and samples of 16 channels of noise, float32 in uV."""
    noise = (20 * np.random.default_rng(seed).standard_normal((16, int(SECONDS * SFREQ)))).astype("<f4")
    lines = [
        "Brain Vision Data Exchange Header File Version 1.0",
        "[Common Infos]",
        "Codepage=UTF-8",
        f"DataFile={path.stem}.eeg",
    ]
    lines += [f"MarkerFile={path.stem}.vmrk", "DataFormat=BINARY", "DataOrientation=MULTIPLEXED", "NumberOfChannels=16"]
    lines += [f"SamplingInterval={1e6 / SFREQ:.5f}", "[Binary Infos]", "BinaryFormat=IEEE_FLOAT_32", "[Channel Infos]"]
    lines += [f"Ch{k + 1}={name},,1,µV" for k, name in enumerate(CAP)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    noise.T.tofile(path.with_suffix(".eeg"))
    marker = "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\nCodepage=UTF-8\n[Marker Infos]\nMk1=New Segment,,1,1,0\n"
    path.with_suffix(".vmrk").write_text(marker, encoding="utf-8")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two people, one run of pictures each; the first has a resting run as well."""
    root = tmp_path / "study"
    (root / "stimuli").mkdir(parents=True)
    for k, name in enumerate(NAMES):
        Image.new("RGB", (12, 8), (30 * k, 90, 10)).save(root / "stimuli" / name)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0", "License": "CC0"}')
    for number, person in enumerate(("anna", "bert")):
        folder = root / f"sub-{person}/eeg"
        folder.mkdir(parents=True)
        brainvision(folder / f"sub-{person}_task-see_eeg.vhdr", number)
        lines = ["onset\tduration\ttrial_type\tstim_file", "0.1\t0\tfixation\tn/a"]
        lines += [f"{2 + 2 * k}\t0.5\t{name.split('_')[0]}\t{name}" for k, name in enumerate(NAMES * 2)]
        (folder / f"sub-{person}_task-see_events.tsv").write_text("\n".join(lines) + "\n")
    brainvision(root / "sub-anna/eeg/sub-anna_task-rest_eeg.vhdr", 7)
    (root / "sub-anna/eeg/sub-anna_task-rest_events.tsv").write_text("onset\tduration\ttrial_type\n1\t0\teyes_open\n")
    return root


def imported(root: Path, **changes: object):
    said: list[str] = []
    config = ImportConfig(kind="bids", **changes)  # type: ignore[arg-type]
    return import_pairs(root, root.parent / "pairs.zarr", config, tell=said.append), said


def test_events_that_name_pictures_become_trials(study):
    """People, onsets, pictures and the licence of the data set come from the folder; nothing has to be written by hand."""
    pairs, said = imported(study)

    assert pairs.subjects == ["anna", "bert"] and len(pairs) == 24
    assert pairs.classes == ["dog", "shoe"] and pairs.image_names == [f"stimuli/{name}" for name in NAMES]
    assert pairs.licence == "CC0-1.0"
    np.testing.assert_allclose(np.asarray(pairs.trials.time[:3], float), [2, 4, 6])
    assert said == [
        "24 of 26 events of 2 recordings name a picture in column 'stim_file'",
        "1 recording without a picture left out: sub-anna_task-rest_eeg.vhdr",
    ]


def test_a_trial_is_that_of_a_table_of_the_same_onsets(study):
    """One way from a recording to a window, whichever way the onsets come."""
    pairs, _ = imported(study)
    rows = [f"sub-anna/eeg/sub-anna_task-see_eeg.vhdr,{2 + 2 * k},stimuli/{name},{name[:3]}" for k, name in enumerate(NAMES)]
    (study / "trials.csv").write_text("recording,onset,image,label\n" + "\n".join(rows) + "\n")

    table = import_pairs(study / "trials.csv", study.parent / "table.zarr", ImportConfig(kind="table"))

    np.testing.assert_array_equal(pairs.eeg(range(6)), table.eeg())


def test_channels_that_a_sidecar_calls_something_else_are_no_eeg(study):
    """channels.tsv counts, as in `eegprep build bids:ROOT`; a table of files would keep them."""
    lines = ["name\ttype\tunits", *(f"{name}\t{'EOG' if name == CAP[0] else 'EEG'}\tuV" for name in CAP)]
    (study / "task-see_channels.tsv").write_text("\n".join(lines) + "\n")

    pairs, _ = imported(study)

    assert pairs.attributes["anna"]["n_channels"] == 15


def test_pictures_may_be_elsewhere(study):
    """Stimuli under copyright are often kept outside of the data set."""
    (study / "stimuli").rename(study.parent / "pictures")

    pairs, _ = imported(study, images=str(study.parent / "pictures"))

    assert pairs.image_names == list(NAMES) and pairs.images([0]).shape[0] == 1


def test_a_folder_without_stimuli_says_which_columns_there_are(study):
    """The option that names one is in the fix."""
    for file in study.rglob("*_task-see_events.tsv"):
        file.write_text(file.read_text().replace("stim_file", "shown"))

    with pytest.raises(DataError, match=r"no events.tsv names a picture .columns: onset, duration, trial_type, shown") as caught:
        imported(study)

    assert "--stimulus-column" in caught.value.fix
    assert len(imported(study, columns={"image": "shown"})[0]) == 24


def test_the_option_names_the_column(study, capsys, monkeypatch):
    """And an option that does not belong to the kind is refused rather than passed over."""
    monkeypatch.chdir(study.parent)
    line = ["pairs", "import", "study", "--kind", "bids", "--stimulus-column", "stim_file", "--out", "p.zarr"]

    assert main.run(main.dreamdiff_app, "dreamdiff", line) == 0

    assert "24 trials of 2 people" in capsys.readouterr().err
    assert main.run(main.dreamdiff_app, "dreamdiff", ["pairs", "import", "study", "--kind", "table", *line[5:]]) == 2
    assert "--columns image=stim_file" in capsys.readouterr().err
