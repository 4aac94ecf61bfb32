"""Pairs that are a view of a corpus: the same numbers as a copy, nothing copied, refused when the corpus is another."""

import json
import shutil

import numpy as np
import pytest
from eeg_files import write_edf

import eegprep
from dreamdiff.finetuning.data import PairStream
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.view import RecordingWindows
from dreamdiff.training.shuffled import ShuffledBatches
from eegprep.corpus.reader import Corpus
from eegprep.errors import DataError, StoreError, UsageError

RATE, SECONDS, NAMES = 128.0, 20, ("Fp1", "Fp2", "C3", "C4", "O1", "O2", "P3", "P4")
SETTINGS = {"channels": 16, "window": 128, "stride": 128, "min_uv": 0.0}


def signal(seed):
    rng = np.random.default_rng(seed)
    return eegprep.band_pass(rng.normal(0, 20, (len(NAMES), int(SECONDS * RATE))).astype(np.float32), RATE, 2.0, 60.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two people with a recording each, cut into windows of 1 s that follow each other, and a folder of pictures."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("view")
    for number, person in enumerate(("sub-01", "sub-02")):
        (folder / "study" / person).mkdir(parents=True)
        write_edf(folder / "study" / person / "view.edf", signal(number), RATE, NAMES, [(1.0, 1.0, "x")])
    eegprep.build(str(folder / "study"), folder / "c.zarr", **SETTINGS)
    (folder / "pictures").mkdir()
    for name in ("cat.png", "dog.png"):
        Image.new("RGB", (16, 16), "white" if name == "cat.png" else "black").save(folder / "pictures" / name)
    return folder


def write(file, rows, header="recording,onset,image,label,subject"):
    file.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return file


def trials_of(study, rows, name="t.csv", header="recording,onset,image,label,subject", out="p.zarr", **more):
    table = write(study / name, rows, header)
    config = ImportConfig(kind="corpus", trials=str(table), images=str(study / "pictures"), split_by="trial", **more)
    return import_pairs(study / "c.zarr", study / out, config)


ROWS = [
    (
        f"sub-0{1 + k % 2}/0.view",
        1.0 + 0.75 * k,
        "cat.png" if k % 3 else "dog.png",
        "cat" if k % 3 else "dog",
        f"sub-0{1 + k % 2}",
    )
    for k in range(12)
]


def run_names(study):
    corpus = Corpus.open(study / "c.zarr")
    return {key: [f"{r['session']}.{r['run']}" for r in corpus.attributes_of(key)["recordings"]] for key in corpus.keys}


def rows_of(study):
    names = {key.rpartition("/")[2]: runs[0] for key, runs in run_names(study).items()}
    people = sorted(names)
    return [
        (f"{people[k % 2]}/{names[people[k % 2]]}", onset, image, label, people[k % 2])
        for k, (_, onset, image, label, _) in enumerate(ROWS)
    ]


def continuous(study, key):
    """The whole filtered recording again, from windows that follow each other."""
    corpus = Corpus.open(study / "c.zarr")
    part = corpus.select(subjects=key)
    return np.concatenate(list(part.read(np.arange(len(part)))), axis=1)


def test_a_trial_across_two_windows_is_the_stretch_of_the_recording(study):
    """To the bit: windows are cut from one filtered signal. Nothing of it is copied."""
    pairs = trials_of(study, rows_of(study))

    assert len(pairs) == 12 and pairs.eeg_shape == (16, 128) and not list((study / "p.zarr").rglob("eeg"))
    for position in range(len(pairs)):
        whole = continuous(study, pairs.subjects[pairs.person[position]])
        start = round(float(pairs.onset[position]) * RATE)
        np.testing.assert_array_equal(pairs.eeg([position])[0], whole[:, start : start + 128])
    assert {name: facts["sfreq"] for name, facts in pairs.attributes.items()} == dict.fromkeys(pairs.subjects, RATE)
    assert sum(path.stat().st_size for path in (study / "p.zarr").rglob("*") if path.is_file()) < 100_000


def test_windows_are_bound_by_number_too(study):
    """Whole windows, as `corpus.read` gives them."""
    pairs = trials_of(study, [(k, "cat.png", "cat") for k in (3, 0, 25, 7)], "w.csv", "window,image,label", out="w.zarr")

    np.testing.assert_array_equal(pairs.eeg(), Corpus.open(study / "c.zarr").read([0, 3, 7, 25]))
    assert pairs.onset.tolist()[:3] == [0.0, 3.0, 7.0]


def test_the_name_of_the_file_names_its_recording(study):
    """Where several are called so, the message says which there are."""
    with pytest.raises(DataError, match="2 recordings are called so"):
        trials_of(study, [("view.edf", 1.0, "cat.png", "cat")], "n.csv", "recording,onset,image,label", out="n.zarr")
    person = rows_of(study)[1][4]
    rows = [("view.edf", onset, "cat.png", "cat", person) for onset in (1.0, 2.0, 3.0, 4.0)]
    assert trials_of(study, rows, "n.csv", out="n.zarr").subjects == [person]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("sub-01/nowhere", 1.0, "cat.png", "cat", "sub-01"), "names the recording 'sub-01/nowhere'"),
        (("FIRST", 19.5, "cat.png", "cat", "sub-01"), r"do not hold 1 of 1 trials whole: row 1 .* at 19.5 s"),
        (("FIRST", 1.0, "cat.png", "cat", "sub-09"), "is of subject 'sub-09', its recording of"),
    ],
)  # fmt: skip
def test_rows_without_a_window_are_named(study, row, says):
    """Before anything is written."""
    first = rows_of(study)[0][0]
    with pytest.raises(DataError, match=says):
        trials_of(study, [tuple(first if cell == "FIRST" else cell for cell in row)], "bad.csv", out="bad.zarr")
    assert not (study / "bad.zarr").exists()


def test_a_table_is_needed(study):
    """The corpus alone knows no image."""
    with pytest.raises(UsageError, match="by a table"):
        import_pairs(study / "c.zarr", study / "x.zarr", ImportConfig(kind="corpus"))


def test_a_changed_corpus_is_refused_by_content_and_a_moved_pair_of_folders_opens(study, tmp_path):
    """Both lie beside each other, wherever that is; another corpus in the place of the first is noticed when the view is opened."""
    trials_of(study, rows_of(study))
    for name in ("c.zarr", "p.zarr", "pictures"):
        shutil.copytree(study / name, tmp_path / "elsewhere" / name)
    moved = Pairs.open(tmp_path / "elsewhere" / "p.zarr")

    np.testing.assert_array_equal(moved.eeg(), Pairs.open(study / "p.zarr").eeg())
    assert str(study) not in json.dumps(json.loads((study / "p.zarr" / "zarr.json").read_text())["attributes"]["corpus"])
    shutil.rmtree(tmp_path / "elsewhere" / "c.zarr")
    eegprep.build(str(study / "study"), tmp_path / "elsewhere" / "c.zarr", **{**SETTINGS, "high": 40.0})
    with pytest.raises(StoreError, match="not the corpus that it was made of") as raised:
        Pairs.open(tmp_path / "elsewhere" / "p.zarr")
    assert "pairs import" in raised.value.fix
    shutil.rmtree(tmp_path / "elsewhere" / "c.zarr")
    with pytest.raises(StoreError, match="cannot be opened"):
        Pairs.open(tmp_path / "elsewhere" / "p.zarr")


def test_trials_across_a_seam_or_a_gap_are_not_found():
    """Windows of 10 samples at 0, 10, 25 and 35 with a seam at 25: nothing lies across it, and 20 to 24 are in none."""
    windows = RecordingWindows(np.array([4, 5, 6, 7]), np.array([0, 10, 25, 35]), 10, [(0, 25), (25, 50)])

    assert windows.find(0) == (4, 0, -1, 0) and windows.find(3) == (4, 3, 5, 0) and windows.find(25) == (6, 0, -1, 0)
    assert windows.find(11) is None and windows.find(22) is None and windows.find(36) is None
    overlapping = RecordingWindows(np.array([0, 1]), np.array([0, 4]), 10, [(0, 14)])
    assert overlapping.find(3) == (0, 3, 1, 6)


def test_the_stream_of_a_view_reads_ahead_and_is_taken_up_at_the_next_batch():
    """The order is that of reading when asked; an interrupted stream goes on with the very next batch."""
    asked = []

    def read(rows):
        asked.append(rows)
        return {"index": rows}

    plain = [batch["index"].tolist() for batch in ShuffledBatches(np.arange(10), read, 3, seed=1)]
    ahead = ShuffledBatches(np.arange(10), read, 3, seed=1, prefetch=2)
    given = iter(ahead)
    first = next(given)["index"].tolist()
    state = ahead.state_dict()
    given.close()
    again = ShuffledBatches(np.arange(10), read, 3, seed=1, prefetch=2)
    again.load_state_dict(state)

    assert [first, *(batch["index"].tolist() for batch in again)] == plain and state == {"epoch": 0, "done": 1}
    assert again.epoch == 1


def test_fine_tuning_streams_a_view(study):
    """`PairStream` keeps none of its EEG and hands over what the corpus holds."""
    from types import SimpleNamespace

    pairs = trials_of(study, rows_of(study))
    parts = {"train": np.arange(8)}
    data = SimpleNamespace(pairs=pairs, parts=parts, batch=lambda positions, eeg: {"eeg": pairs.eeg(positions), "held": eeg})

    batches = list(PairStream(data, 3, seed=0))

    assert [len(batch["eeg"]) for batch in batches] == [3, 3, 2] and all(batch["held"] is None for batch in batches)
