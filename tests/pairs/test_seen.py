"""What a model saw earlier: recordings, people and data sets of the test part are found under other names, and nobody is accused wrongly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from dreamdiff.lineage import seen
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.writer import PairsWriter
from dreamdiff.sameness.same_signal import people_twice, recordings_heard

RATE, SECONDS, CHANNELS = 128.0, 30, [f"E{k}" for k in range(8)]
ONSETS = 1.0 + 1.7 * np.arange(12)


def recording(person: int) -> np.ndarray:
    """(8, T) uV: slow background of one's own, and a response that everybody has."""
    rng = np.random.default_rng([person, 7])
    signal = np.cumsum(rng.normal(size=(8, int(SECONDS * RATE))), axis=1)
    signal = sosfiltfilt(butter(2, [1, 40], "band", fs=RATE, output="sos"), signal)
    wave = np.exp(-(((np.arange(64) - 25) / 8) ** 2))
    for onset in ONSETS:
        signal[:, int(onset * RATE) : int(onset * RATE) + 64] += 1.0 * wave
    return 10 * signal / signal.std()


def encoded_again(signal: np.ndarray) -> np.ndarray:
    """Another gain, 0.1 uV of resolution, a filter of another shape: what an export to another format does."""
    return np.round(1.3 * sosfiltfilt(butter(4, [0.7, 45], "band", fs=RATE, output="sos"), signal) / 0.1) * 0.1


def digest(name: str) -> str:
    """SHA-256 of a file that is not there."""
    return hashlib.sha256(name.encode()).hexdigest()


def cut(signal: np.ndarray) -> np.ndarray:
    return np.stack([signal[:, int(onset * RATE) : int(onset * RATE) + 96] for onset in ONSETS]).astype(np.float32)


def stored(folder: Path, people: Mapping[str, np.ndarray], test: list[str], *, times: bool = True) -> Pairs:
    """Pairs of these recordings; those of `test` are the test part."""
    writer = PairsWriter(
        folder / "pairs.zarr",
        recipe={"kind": "table"},
        classes=["x", "y"],
        provenance="recorded",
        licence="CC0",
        channels=8,
        samples=96,
    )
    writer.set_images(np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), [f"{k}.png" for k in range(12)])
    rows = {"train": [], "val": [], "test": []}
    for number, (name, signal) in enumerate(people.items()):
        facts = {
            "sfreq": RATE, "t0": 0.0, "channels": CHANNELS, "sources": [["trials.csv", 1, "f" * 64], [f"{name}.edf", 1, digest(name)]],
            "recordings": [{"name": f"table {name}"}],
        }  # fmt: skip
        with writer.subject(name, "k", facts) as target:
            target.add(cut(signal), image=np.arange(12), label=np.arange(12) % 2, onset=ONSETS if times else None)
        rows["test" if name in test else "train"] += list(range(12 * number, 12 * number + 12))
    writer.finish(rows)
    return Pairs.open(folder / "pairs.zarr")


class Windows:
    """A corpus of one-second windows in memory: what `recordings_heard` and `seen_in_corpus` ask of one."""

    url, identity, samples = "corpus.zarr", "0" * 64, int(RATE)

    def __init__(self, recordings: Mapping[str, np.ndarray]) -> None:
        self.keys = list(recordings)
        self._signals = list(recordings.values())
        self._per = [signal.shape[1] // self.samples for signal in self._signals]

    def __len__(self) -> int:
        return sum(self._per)

    def group_of(self, index: Any) -> np.ndarray:
        return np.repeat(np.arange(len(self.keys)), self._per)[np.asarray(index)]

    def column(self, name: str) -> np.ndarray:
        first = np.concatenate([np.arange(n) for n in self._per]) * self.samples
        return first if name == "start" else np.zeros(len(self), int)

    def record(self, index: int) -> Mapping[str, Any]:
        return {"sfreq": RATE, "channels": CHANNELS, "pad_map": [*range(8), 0, 1], "session": "0", "run": "1"}

    def read(self, index: list[int]) -> np.ndarray:
        starts = self.column("start")
        signals = [self._signals[int(self.group_of(k))][:, starts[k] : starts[k] + self.samples] for k in index]
        return np.stack([np.concatenate([one, one[:2]]) for one in signals])

    def attributes_of(self, key: str) -> Mapping[str, Any]:
        number = self.keys.index(key)
        sources = [{"name": "a.edf", "bytes": 1, "sha256": f"{number:064d}"}]
        return {"dataset": "d", "person": key, "recordings": [{**self.record(0), "sources": sources}]}


def test_twenty_planted_overlaps_are_all_found_and_none_is_accused_wrongly(tmp_path):
    """Ten people have a second name in training; ten recordings were exported to another format and pre-trained on."""
    judged = {f"t{k:02d}": recording(k) for k in range(20)}
    others = {f"n{k:02d}": recording(100 + k) for k in range(10)}
    doubles = {f"again{k:02d}": encoded_again(recording(k)) for k in range(10)}
    pairs = stored(tmp_path, {**judged, **others, **doubles}, list(judged))
    parts = pairs.split()

    found = people_twice(pairs, parts["train"], parts["test"])

    assert sorted(line.split(" in training")[0] for line in found) == [f"t{k:02d} in test and again{k:02d}" for k in range(10)]
    assert pairs.audit().verdict == "leaks" and any("under two names" in leak for leak in pairs.audit().leaks)

    corpus = Windows({f"other/{k}": encoded_again(recording(k if k < 20 else 200 + k)) for k in range(10, 40)})
    heard = recordings_heard(corpus, pairs, parts["test"])
    assert heard == {f"t{k:02d}": [f"other/{k} 0.1"] for k in range(10, 20)}


def test_people_without_recorded_times_are_compared_all_the_same(tmp_path):
    """Tables without onsets are common; there the trials of everybody are looked at."""
    people = {"a": recording(1), "b": recording(2), "c": encoded_again(recording(1))}
    pairs = stored(tmp_path, people, ["c"], times=False)
    parts = pairs.split()
    found = people_twice(pairs, parts["train"], parts["test"])
    assert len(found) == 1 and found[0].startswith("c in test and a in training")


def judged(tmp_path: Path, entries: list[dict], **recipe: str) -> seen.Overlaps:
    pairs = stored(tmp_path, {"sub-01": recording(1), "sub-02": recording(2)}, ["sub-02"])
    pairs.recipe = {"kind": "table", **recipe}
    return seen.overlaps(entries, pairs, pairs.split()["test"])


def entry(*rows: list, kind: str = "corpus") -> dict:
    return {"kind": kind, "where": "/nowhere/corpus.zarr", "content": "c", "recordings": list(rows)}


def test_the_same_file_is_named_whatever_person_and_data_set_are_called(tmp_path):
    """Its SHA-256 is enough."""
    found = judged(
        tmp_path, [entry(["other", "P7", "0.0", [digest("sub-02")[: seen.DIGITS]]], ["other", "P8", "0.0", ["a" * 16]])]
    )
    assert (
        len(found.found) == 1
        and "sub-02: sub-02.edf" in found.found[0]
        and "pre-trained on the very recordings" in found.found[0]
    )
    assert judged(tmp_path / "2", [entry(["other", "P8", "0.0", [digest("sub-01")[: seen.DIGITS]]])]).found == ()


def test_a_common_name_of_a_person_accuses_nobody_but_the_same_data_set_does(tmp_path):
    """There is a sub-02 in every study."""
    row = ["Things-EEG2", "sub-02", "0.0", ["a" * 16]]
    assert judged(tmp_path / "1", [entry(row)]).sentences == ()
    found = judged(tmp_path / "2", [entry(row)], dataset="things-eeg2").found
    assert len(found) == 1 and "other recordings of 1 of 1 judged people" in found[0] and "sub-02" in found[0]


def test_what_outsiders_say_of_themselves_counts_and_silence_is_unknown(tmp_path):
    """Published encoders are used through an object; what nobody wrote down cannot be ruled out."""

    class Encoder:
        pretrained_on = ("Things EEG2",)

    told = seen.seen_by_outsider("Encoder", Encoder())
    found = judged(
        tmp_path,
        [told, seen.seen_by_outsider("mine", object()), seen.seen_by_outsider("LaBraM", object())],
        dataset="things-eeg2",
    )
    assert len(found.found) == 1 and "which the judged trials belong to" in found.found[0]
    assert len(found.unknown) == 1 and "mine" in found.unknown[0]


def test_runs_keep_what_they_read_and_checkpoints_find_it(tmp_path):
    """The list lies in the run folder; weights may be read from a checkpoint below it."""
    corpus = Windows({"d/1": recording(1), "d/2": recording(2)})
    seen.write_seen(tmp_path, [seen.seen_in_corpus(corpus)])
    below = tmp_path / "checkpoints" / "step-00000001"
    below.mkdir(parents=True)
    assert seen.read_seen(below) == seen.read_seen(tmp_path)
    assert [row[1] for row in seen.read_seen(tmp_path)[0]["recordings"]] == ["d/1", "d/2"]
    assert seen.read_seen(tmp_path / "elsewhere" / "x")[0]["kind"] == "unknown"


@pytest.mark.parametrize("name", ["S001R04.edf", "other.edf"])
def test_only_the_files_of_a_person_are_theirs(tmp_path, name):
    """A table lists the files of everybody; the recordings of a person say which are theirs."""
    pairs = stored(tmp_path, {"a": recording(1)}, [])
    pairs.attributes["a"] = {
        "sources": [[name, 1, "a" * 64], ["x.edf", 1, "b" * 64]],
        "recordings": [{"name": "table a 0 S001R04"}],
    }
    files = seen.eeg_files(pairs, "a")
    assert files == ({"a" * 16: name} if name == "S001R04.edf" else {"a" * 16: name, "b" * 16: "x.edf"})
