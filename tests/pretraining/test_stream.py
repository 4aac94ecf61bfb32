"""The stream: every window once, the same order everywhere, and a continuation that starts with the very next window."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import eegprep
from dreamdiff.pretraining import order as stream_module
from dreamdiff.pretraining.order import held_out, shuffled
from dreamdiff.pretraining.stream import WindowStream
from eegprep.errors import DataError, StoreError, UsageError

SIZES = {"A/1": 30, "A/2": 41, "B/1": 50}
N = sum(SIZES.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "c.zarr"
    rng = np.random.default_rng(0)
    entries = [
        {"dataset": key[0], "subject": key[2], "windows": rng.standard_normal((n, 4, 16), np.float32), "person": key}
        for key, n in SIZES.items()
    ]
    eegprep.from_arrays(path, entries, sfreq=100.0, pad_to=4, shard=16)
    return path


@pytest.fixture
def corpus(folder) -> eegprep.Corpus:
    return eegprep.Corpus.open(folder)


def indices(stream) -> list[int]:
    """What one pass over a stream or loader yields."""
    return [i for batch in stream for i in batch["index"].tolist()]


def test_a_batch_holds_the_windows_that_its_index_names(corpus):
    """The index is what scaling factors, labels and logs are looked up by."""
    for batch in WindowStream(corpus, 8):
        assert batch["eeg"].dtype == torch.float32 and batch["eeg"].shape[1:] == (4, 16)
        assert np.array_equal(batch["eeg"].numpy(), corpus.read(batch["index"].numpy()))


@pytest.mark.parametrize("prefetch", [0, 1, 4])
@pytest.mark.parametrize(("batch_size", "ranks"), [(8, 1), (8, 2), (7, 3), (1, 5), (64, 2), (121, 1), (500, 4)])
def test_every_window_comes_once_and_all_ranks_work_equally_long(corpus, batch_size, ranks, prefetch):
    """A rank with a batch less hangs the others in their all-reduce; a window read twice is counted twice."""
    batches = [list(WindowStream(corpus, batch_size, rank=r, world_size=ranks, prefetch=prefetch)) for r in range(ranks)]

    everything = [i for rank in batches for batch in rank for i in batch["index"].tolist()]
    assert sorted(everything) == list(range(N))
    assert len({len(rank) for rank in batches}) == 1
    assert {len(rank) for rank in batches} == {len(WindowStream(corpus, batch_size, rank=0, world_size=ranks))}
    for step in zip(*batches, strict=True):
        sizes = [len(batch["index"]) for batch in step]
        assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


def test_drop_last_gives_only_full_batches(corpus):
    """Compiled models want one shape."""
    batches = list(WindowStream(corpus, 10, rank=1, world_size=3, drop_last=True))

    assert [len(batch["index"]) for batch in batches] == [10] * 4
    stream = WindowStream(corpus, 40, world_size=3, rank=0, drop_last=True)
    next(iter(stream))
    assert (stream.state_dict()["epoch"], stream.state_dict()["position"]) == (1, 0)


def test_the_order_depends_on_seed_and_epoch_alone(corpus):
    """Not on threads, prefetch or what was iterated before."""
    first = WindowStream(corpus, 16, seed=3)
    epochs = [indices(first) for _ in range(3)]

    again = WindowStream(corpus, 5, seed=3, prefetch=0)
    again.set_epoch(2)
    assert indices(again) == epochs[2]
    assert first.epoch == 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert indices(WindowStream(corpus, 16, seed=4)) != epochs[0]


def test_the_order_is_the_same_in_every_version():
    """A run that was stopped before an upgrade continues after it: these numbers may never change."""
    assert shuffled(12, 0, 0).tolist() == [4, 5, 1, 10, 3, 7, 0, 11, 8, 9, 2, 6]
    assert shuffled(12, 0, 1).tolist() != shuffled(12, 0, 0).tolist()
    assert shuffled(5, 2**70 - 1, 3).tolist() == shuffled(5, (2**70 - 1) % 2**64, 3).tolist()


def test_all_orders_are_equally_likely():
    """Chi-square over the 24 orders of four windows: the 99.99 % point of 23 degrees of freedom is 57.7."""
    counts = Counter(tuple(shuffled(4, seed, epoch).tolist()) for seed in range(20) for epoch in range(240))
    expected = 4800 / 24

    assert len(counts) == 24
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 57.7


def test_neighbours_do_not_stay_neighbours():
    """Windows of one recording are alike; a batch of them would be a bad gradient."""
    order = shuffled(100_000, 0, 0)

    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert (np.abs(np.diff(order)) < 10).mean() < 0.001


def test_without_shuffling_the_order_is_that_of_the_corpus(corpus):
    """Validation scores are compared window by window."""
    assert indices(WindowStream(corpus, 16, shuffle=False)) == list(range(N))


def test_a_hundred_interruptions_lose_no_window_and_repeat_none(corpus):
    """Stopped anywhere, continued with another batch size, number of ranks, threads and prefetch, as clusters do."""
    rng = np.random.default_rng(0)
    for trial in range(100):
        state, seen = None, []
        while True:
            ranks, batch_size = int(rng.integers(1, 4)), int(rng.integers(2, 12))
            streams = [
                WindowStream(
                    corpus, batch_size, seed=trial, rank=r, world_size=ranks, prefetch=int(rng.integers(0, 4)), threads=2
                )
                for r in range(ranks)
            ]
            if state is not None and N - state["position"] < ranks:
                continue  # refused, see below; another draw of ranks comes
            for stream in streams if state is not None else []:
                stream.load_state_dict(json.loads(json.dumps(state)))
            stop = int(rng.integers(1, 8))
            for iterator in [itertools.islice(stream, stop) for stream in streams]:
                seen += indices(iterator)
            states = [json.dumps(stream.state_dict(), sort_keys=True) for stream in streams]
            assert len(set(states)) == 1, "all ranks stand at the same place"
            state = json.loads(states[0])
            if state["epoch"] == 1:
                break
        assert sorted(seen) == list(range(N))


def test_a_rest_that_is_too_small_for_all_ranks_is_refused(corpus):
    """One rank with a batch and three without would wait for each other for ever."""
    stream = WindowStream(corpus, 118)
    next(iter(stream))

    with pytest.raises(DataError, match="3 windows are left of epoch 0 for 4 ranks"):
        WindowStream(corpus, 8, rank=0, world_size=4).load_state_dict(stream.state_dict())


def test_weights_of_one_are_no_weights(corpus):
    """The order must not depend on how the same thing is said."""
    assert indices(WindowStream(corpus, 8, weights={"A": 1.0})) == indices(WindowStream(corpus, 8))


def test_a_continued_stream_goes_on_with_the_very_next_window(corpus):
    """Read ahead does not count: only what was handed over."""
    whole = [*indices(s := WindowStream(corpus, 10, prefetch=4)), *indices(s)]
    stream = WindowStream(corpus, 10, prefetch=4)
    head = indices(itertools.islice(stream, 9))

    other = WindowStream(corpus, 10, prefetch=1)
    other.load_state_dict(stream.state_dict())

    assert head == whole[:90]
    assert [*indices(other), *indices(other)] == whole[90:]


def test_the_state_costs_nothing(corpus, monkeypatch):
    """It is asked for at every step: nothing is read, copied or waited for."""
    stream = WindowStream(corpus, 8)
    iterator = iter(stream)
    next(iterator)
    monkeypatch.setattr(eegprep.Corpus, "identity", property(lambda self: pytest.fail("identity is computed anew")))
    monkeypatch.setattr(stream_module.EpochDraws, "order", lambda *a: pytest.fail("the order is computed anew"))

    state = stream.state_dict()

    assert state["position"] == 8 and len(json.dumps(state)) < 300


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_worker_processes_change_nothing_and_the_state_follows(corpus, workers):
    """Stopped with some workers and continued with others."""
    whole = indices(WindowStream(corpus, 8))
    stream = WindowStream(corpus, 8)
    head = indices(itertools.islice(stream.loader(workers, context="fork"), 5))
    state = stream.state_dict()

    other = WindowStream(corpus, 8)
    other.load_state_dict(state)
    tail = indices(other.loader(4 - workers, context="fork"))

    assert head + tail == whole
    assert other.epoch == 1 and other.state_dict()["position"] == 0


def test_a_data_loader_of_ones_own_gets_even_shares(corpus):
    """PyTorch Lightning and friends bring their own; its batches are counted by the caller."""
    from torch.utils.data import DataLoader

    stream = WindowStream(corpus, 8, rank=1, world_size=2)
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")

    whole = indices(WindowStream(corpus, 8, rank=1, world_size=2))
    assert len(loader) == len(stream) == 8
    assert indices(itertools.islice(loader, 3)) == whole[:24]
    stream.load_state_dict(stream.state_dict(batches=3))
    assert indices(stream) == whole[24:]


def test_the_loader_without_workers_is_the_stream(corpus):
    """workers=0 must not fail on options that only workers have."""
    stream = WindowStream(corpus, 8)

    assert indices(stream.loader(0)) == indices(WindowStream(corpus, 8))
    assert len(stream.loader(0)) == len(stream)


def test_weights_say_how_often_windows_come(corpus):
    """A data set of weight 2 comes twice, one of weight 0 not at all, others once."""
    counts = Counter(indices(WindowStream(corpus, 8, weights={"B": 2, "A/2": 0})))

    assert counts == Counter({**dict.fromkeys(range(30), 1), **dict.fromkeys(range(71, N), 2)})


def test_a_fraction_goes_round_all_windows(corpus):
    """With weight 0.3, ten epochs of 15 windows show each of the 50 three times."""
    stream = WindowStream(corpus, 8, weights={"A": 0, "B": 0.3})
    counts = Counter(itertools.chain.from_iterable(indices(stream) for _ in range(10)))

    assert stream.windows == 15
    assert counts == Counter(dict.fromkeys(range(71, N), 3))


@pytest.mark.parametrize("seed", range(5))
def test_people_are_in_training_or_in_validation(corpus, seed):
    """Windows of one person in both would measure how well the person is known."""
    parts = {name: indices(WindowStream(corpus, 8, split=name, split_seed=seed)) for name in ("train", "validation")}
    people = {name: set(corpus.group_of(result)) for name, result in parts.items()}

    assert sorted(parts["train"] + parts["validation"]) == list(range(N))
    assert not people["train"] & people["validation"]
    assert len(people["validation"]) == 1


def test_one_person_in_two_data_sets_stays_on_one_side(tmp_path):
    """People take part in several studies of one laboratory."""
    data = np.zeros((3, 2, 4))
    people = [{"dataset": d, "subject": s, "person": p, "windows": data} for d, s, p in ("A1x", "A2y", "B1x", "B2z", "B3y")]
    corpus = eegprep.from_arrays(tmp_path / "c", people, sfreq=1.0, pad_to=2)

    for seed in range(8):
        kept = set(corpus.group_of(indices(WindowStream(corpus, 4, split="train", split_seed=seed))))
        assert all(({0, 2} <= kept or not {0, 2} & kept, {1, 4} <= kept or not {1, 4} & kept))


def test_who_is_held_out_does_not_depend_on_the_order_of_people():
    """Adding a data set must not reshuffle everybody: names are ranked by their hash."""
    people = [f"person {i}" for i in range(40)]
    out = held_out(people, 0.25, 0)

    assert set(held_out(people[::-1] * 2, 0.25, 0)) == set(out) and len(out) == 10
    assert len(held_out(people, 0.0001, 0)) == 1 and len(held_out(people, 0.9999, 0)) == 39
    assert set(held_out([*people, "new"], 0.25, 0)) - {"new"} <= set(held_out(people, 0.275, 0))


def test_a_split_of_a_selection_counts_in_the_selection(corpus):
    """index refers to what the stream was given."""
    part = corpus.select(dataset="A")
    for batch in WindowStream(part, 8, split="train"):
        assert np.array_equal(batch["eeg"].numpy(), part.read(batch["index"].numpy()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "another seed: 0, here 1"),
        ({"split": "train"}, r"another number of windows: 121, here \d+"),
        ({"corpus": range(21, 121)}, "another number of windows: 121, here 100"),
    ],
)
def test_a_state_of_another_stream_is_refused(corpus, change, message):
    """Continuing with other windows would repeat some and lose others without a word."""
    state = WindowStream(corpus, 8).state_dict()

    other = corpus.take(change.pop("corpus")) if "corpus" in change else corpus
    with pytest.raises(DataError, match=message):
        WindowStream(other, 8, **change).load_state_dict(state)
    with pytest.raises(DataError, match="another corpus, selection or weights"):
        WindowStream(corpus.take(range(100)), 8).load_state_dict(WindowStream(corpus.take(range(21, 121)), 8).state_dict())
    with pytest.raises(DataError, match=r"stream state of version 2 \(known: 1\)"):
        WindowStream(corpus, 8).load_state_dict({**state, "version": 2})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, UsageError, "batch_size 0 and prefetch 4"),
        ({"rank": 2, "world_size": 2}, UsageError, "rank 2 of 2 does not exist"),
        ({"world_size": 122}, DataError, "121 windows for 122 ranks"),
        ({"split": "test"}, UsageError, "split 'test' is unknown"),
        ({"split": "train", "fraction": 1.0}, UsageError, r"fraction 1.0 is not between 0 and 1"),
        ({"weights": {"C": 1}}, UsageError, "there is no 'C'"),
        ({"weights": {"A": -1}}, UsageError, "'A' has weight -1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(corpus, arguments, error, message):
    """Before the first batch, not after a night."""
    with pytest.raises(error, match=message):
        WindowStream(corpus, **{"batch_size": 8, **arguments})


def test_one_person_cannot_be_split(corpus):
    """There would be nobody to validate on."""
    with pytest.raises(DataError, match=r"1 person cannot be split by person \(at least 2\)"):
        WindowStream(corpus.select(subjects="B/1"), 8, split="train")


def test_the_launchers_ranks_are_taken_from_the_environment(corpus, monkeypatch):
    """torchrun and accelerate set them."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")

    assert indices(WindowStream(corpus, 8)) == indices(WindowStream(corpus, 8, rank=1, world_size=3))


def test_memory_is_used_again_only_when_nobody_looks_at_it(corpus):
    """Batches of one size share a few arrays; a batch that is kept, or a view of it, must keep its values."""
    kept, views = [], []
    for batch in WindowStream(corpus, 4, prefetch=2, drop_last=True):
        kept.append(batch)
        views.append(batch["eeg"][1].numpy())
    everything = [(batch["index"], batch["eeg"]) for batch in kept]
    views_index = [int(batch["index"][1]) for batch in kept]
    del kept, batch

    for index_B, eeg_BCT in everything:
        assert np.array_equal(eeg_BCT.numpy(), corpus.read(index_B.numpy()))
    del everything, eeg_BCT, index_B
    assert np.array_equal(np.stack(views), corpus.read(views_index))


def test_memory_is_used_again(corpus):
    """Fresh memory costs as much as decoding into it."""
    addresses = [batch["eeg"].data_ptr() for batch in WindowStream(corpus, 4, prefetch=2, threads=1, drop_last=True)]

    assert len(set(addresses)) < len(addresses) / 2


def test_leaving_early_ends_the_threads(corpus):
    """A loop that breaks must not leave threads that read for nobody."""
    before = threading.active_count()
    for _ in WindowStream(corpus, 4):
        break
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert threading.active_count() <= before


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_ends_the_stream_with_its_name(folder, tmp_path, workers):
    """Neither a hang nor a batch of zeros."""
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    (copy / "B/1/windows/c/1/0/0").unlink()
    stream = WindowStream(copy, 8)

    with pytest.raises(StoreError if not workers else (StoreError, RuntimeError), match="this shard is missing"):
        indices(stream.loader(workers, context="fork", timeout=60) if workers else stream)


def test_batches_go_to_the_device_that_is_asked_for(corpus):
    """On a machine without CUDA the CPU is a device, too."""
    batch = next(iter(WindowStream(corpus, 8, device="cpu")))

    assert batch["eeg"].device.type == batch["index"].device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_are_pinned_and_copied_without_blocking(corpus):
    """The copy must still hold the right values."""
    for batch in WindowStream(corpus, 8, device="cuda"):
        assert np.array_equal(batch["eeg"].cpu().numpy(), corpus.read(batch["index"].cpu().numpy()))
    assert next(iter(WindowStream(corpus, 8)))["eeg"].is_pinned()
