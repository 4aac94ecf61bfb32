"""The audit finds the designs that have misled the field, and lets an honest one pass."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pairs.test_splits import random_trials

from dreamdiff.pairs.audit import audit
from dreamdiff.pairs.reader import Pairs
from dreamdiff.pairs.splits import Trials, split
from eegprep.errors import DataError


def class_block_trials(
    people: int = 2, classes: int = 12, images: int = 20, *, same_order: bool = False, seed: int = 0
) -> Trials:
    """ImageNet-EEG's design: each class is one block of `images` images; block = place in the order of this person."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(classes)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in Trials.__dataclass_fields__}
    for person in range(people):
        order = order if same_order else rng.permutation(classes)
        concept = np.repeat(order, images)
        stimulus = np.concatenate([c * images + rng.permutation(images) for c in order])
        n = len(concept)
        values = {
            "person": np.full(n, person), "session": np.zeros(n, int), "block": np.arange(n) // images,
            "stimulus": stimulus, "concept": concept, "time": np.arange(n) * 0.5 + 10.0 * (np.arange(n) // images),
        }  # fmt: skip
        for name, array in values.items():
            columns[name].append(array)
    return Trials(**{name: np.concatenate(parts) for name, parts in columns.items() if parts})


def run(trials: Trials, name: str, seed: int = 0):
    parts = split(trials, name, seed=seed)
    return audit(trials, parts["train"], parts["test"], split=name)


@pytest.mark.parametrize("seed", range(8))
def test_random_order_split_by_image_is_clean(seed: int):
    """An honest design must not be accused: blocks, sessions and neighbours in time say nothing about the class."""
    result = run(random_trials(classes=10, images=6, seed=seed), "stimulus", seed)

    assert result.verdict == "clean" and result.leaks == () and result.block_design == "mixed blocks"
    assert all(not shortcut.works for shortcut in result.shortcuts)
    assert {shortcut.knows for shortcut in result.shortcuts} == {"block", "session", "person", "time"}


def test_false_alarms_are_rare_over_many_honest_designs():
    """Four guessers at p = 0.001 each: fewer than one in a hundred."""
    alarms = sum(
        run(random_trials(2, 1 + seed % 2, 8, 5, 3, seed=seed), "stimulus", seed).verdict != "clean" for seed in range(40)
    )

    assert alarms <= 1


def test_class_blocks_split_by_image_leak_all_of_the_classes():
    """Li et al. 2021: the block names the class, so that any drift passes for decoding."""
    result = run(class_block_trials(), "stimulus")

    assert result.verdict == "leaks" and result.block_design == "class blocks" and result.blocks_per_class == 1.0
    by_name = {shortcut.knows: shortcut for shortcut in result.shortcuts}
    assert by_name["block"].accuracy == 1.0 and by_name["time"].accuracy == 1.0
    assert by_name["block"].chance < 0.2 and by_name["block"].p == 0.001
    assert any("the block alone, without any EEG, names the class of 100.0%" in leak for leak in result.leaks)
    assert result.lines()[0].startswith("split stimulus: LEAKS")


def test_class_blocks_leak_even_when_there_are_too_few_trials_for_statistics():
    """Three test trials can't reach p = 0.001; the design is known all the same."""
    trials = class_block_trials(people=1, classes=4, images=5)
    result = audit(trials, np.flatnonzero(np.arange(20) % 5 > 0), np.array([0, 5, 10]), split="stimulus")

    assert result.verdict == "leaks"
    assert any(
        "3 of 3 test trials come from a block that training saw, and a block holds one class" in leak for leak in result.leaks
    )


@pytest.mark.parametrize("size", [2, 3, 5])
def test_small_blocks_in_random_order_are_not_called_class_blocks(size: int):
    """Two trials are half pure whatever they are."""
    trials = random_trials(block=size)

    assert run(trials, "stimulus").block_design == "mixed blocks"


def test_one_block_per_class_cannot_be_repaired_by_any_split():
    """Holding blocks out takes the class out of training; the audit says so."""
    trials = class_block_trials()
    result = run(trials, "block")

    assert any("one block per person" in sentence for sentence in result.unrepairable)
    concept = next(row for row in result.shared if row.factor == "concept")
    by_class = {row.factor: row for row in run(class_block_trials(people=1), "block").shared}
    assert by_class["concept"].n_shared == 0
    assert concept.n_shared < concept.n_test or any("hold" in note for note in result.notes)


def test_the_same_order_for_everybody_defeats_holding_persons_out_too():
    """Then class and time in the experiment stay together across people."""
    same = run(class_block_trials(same_order=True), "person")
    different = run(class_block_trials(same_order=False), "person")
    undated = class_block_trials()
    undated = replace(undated, time=np.full(len(undated), np.nan))

    assert any("all persons saw the classes in the same order" in s for s in same.unrepairable)
    assert not any("order" in s for s in different.unrepairable)
    assert any("which is not recorded here" in s for s in run(undated, "person").unrepairable)
    assert any("there is one person" in s for s in run(class_block_trials(people=1), "stimulus").unrepairable)


def test_class_runs_are_found_by_time_when_blocks_are_not_recorded():
    """A table of one's own often has onsets and no block column."""
    trials = class_block_trials()
    result = run(replace(trials, block=np.full(len(trials), -1)), "stimulus")

    assert result.verdict == "leaks" and result.block_design == "class blocks"
    assert any("nearest in time" in leak for leak in result.leaks)


def test_unknown_structure_is_said_to_be_unknown():
    """Neither blocks nor times: nobody can call this clean."""
    trials = random_trials()
    n = len(trials)
    result = run(replace(trials, block=np.full(n, -1), session=np.full(n, -1), time=np.full(n, np.nan)), "stimulus")

    assert result.verdict == "unknown" and result.block_design == "unknown" and result.blocks_per_class is None
    assert any("class blocks cannot be ruled out" in sentence for sentence in result.unknown)
    assert {row.factor: row.n_unknown for row in result.shared}["block"] == result.n_test
    assert {row.factor: row.share for row in result.shared}["block"] is None
    assert "UNKNOWN" in result.lines()[0]


def test_repeated_images_across_training_and_test_are_a_leak():
    """arXiv 2406.16902, 2508.00531: recognising the image is enough to name its category."""
    trials = random_trials(images=3, repeats=10)
    result = run(trials, "trial")
    stimulus = next(row for row in result.shared if row.factor == "stimulus")

    assert result.verdict == "leaks" and stimulus.n_shared > 0.9 * stimulus.n_test
    assert any("have their image in training" in leak for leak in result.leaks)


def test_flags_of_each_test_trial_agree_with_a_direct_count():
    """A second implementation: sets instead of arrays."""
    trials = random_trials()
    parts = split(trials, "trial", seed=3)
    result = audit(trials, parts["train"], parts["test"], split="trial")

    for factor, columns in {"person": ("person",), "session": ("person", "session"), "block": ("person", "session", "block"),
                            "stimulus": ("stimulus",), "concept": ("concept",)}.items():  # fmt: skip
        keys = list(zip(*(getattr(trials, column).tolist() for column in columns), strict=True))
        seen = {keys[i] for i in parts["train"]}
        expected = [int(keys[i] in seen) for i in parts["test"]]
        assert result.per_trial[factor].tolist() == expected


def test_a_promise_that_is_not_kept_is_a_leak():
    """A split called `person` that shares persons must not pass, whoever made it."""
    trials = random_trials()
    result = audit(trials, np.arange(0, 300), np.arange(300, 360), split="person+stimulus")

    assert any("60 of 60 test trials have their person in training" in leak for leak in result.leaks)
    assert any("have their image in training" in leak for leak in result.leaks)


def test_a_trial_in_both_parts_is_a_leak():
    """Overlapping slices happen: a published re-implementation had them."""
    trials = random_trials()
    result = audit(trials, np.arange(0, 310), np.arange(300, 360), split="default")

    assert any("10 of 60 test trials have their trial itself in training" in leak for leak in result.leaks)


def test_persons_with_classes_of_their_own_are_found():
    """A patient group that saw other images: the person names the class."""
    trials = random_trials(people=4, classes=8, images=5, repeats=2)
    own = replace(trials, concept=trials.person * 2 + trials.stimulus % 2)
    result = run(own, "stimulus")

    assert any(leak.startswith("the person alone") for leak in result.leaks)


def test_a_training_trial_of_unknown_group_makes_others_unknown():
    """It may be of the same block as any test trial."""
    trials = random_trials()
    block = trials.block.copy()
    block[0] = -1
    result = audit(replace(trials, block=block), np.arange(0, 20), np.arange(200, 220), split="default")
    row = next(row for row in result.shared if row.factor == "block")

    assert (row.n_shared, row.n_unknown) == (0, 20)


def test_new_classes_in_test_are_noted():
    """Zero-shot or a mistake: the reader must know."""
    trials = random_trials()
    result = audit(trials, np.flatnonzero(trials.concept > 0), np.flatnonzero(trials.concept == 0), split="default")

    assert any(
        f"{result.n_test} of {result.n_test} test trials are of a class that training never shows" in n for n in result.notes
    )


def test_the_audit_is_json_and_repeatable():
    """Reports and CI read it."""
    trials = class_block_trials()
    first, again = (json.dumps(run(trials, "stimulus").to_dict(per_trial=True)) for _ in range(2))

    assert first == again
    content = json.loads(first)
    assert content["verdict"] == "leaks" and len(content["per_trial"]["block"]) == content["n_test"]
    assert content["shared"][0]["share"] == 0.0


def test_parts_that_do_not_fit_are_refused():
    """A split of another store would index out of this one."""
    trials = random_trials()
    with pytest.raises(DataError, match="the test part holds no trial"):
        audit(trials, [0], [], split="x")
    with pytest.raises(DataError, match=r"the train part names trial 360, there are 360 \(0\.\.359\)"):
        audit(trials, [360], [0], split="x")
    with pytest.raises(DataError, match="the test part names trial -1"):
        audit(trials, [1], [-1], split="x")


def test_the_same_recording_under_two_names_is_a_leak(tmp_path):
    """Two folders of a public set hold one recording: a split by person must not call it clean."""
    from dreamdiff.pairs.writer import PairsWriter

    rng = np.random.default_rng(0)
    eeg = 10 * rng.standard_normal((3, 16, 4, 64)).astype(np.float32)
    writer = PairsWriter(
        tmp_path / "p.zarr", recipe={}, classes=["a", "b"], provenance="recorded", licence="CC0-1.0", channels=4, samples=64
    )
    writer.set_images(rng.integers(0, 255, (32, 8, 8, 3), dtype=np.uint8), [f"i{k}" for k in range(32)])
    for number, (name, recorded) in enumerate((("s1", 0), ("s3", 1), ("s7", 1), ("s9", 2))):
        with writer.subject(name, "key", {"sfreq": 64.0, "t0": 0.0}) as target:
            label = rng.permutation(np.repeat([0, 1], 8))
            target.add(eeg[recorded], image=(number % 2) * 16 + np.arange(16), label=label)
    writer.finish({"train": np.arange(32), "val": np.array([], int), "test": np.arange(32, 64)})

    store = Pairs.open(tmp_path / "p.zarr")
    found = audit(store.trials, np.arange(32), np.arange(32, 64), split="person")

    assert found.leaks[0].startswith("the EEG of 16 of 32 test trials is in training, sample for sample")
    clean = audit(store.trials, np.arange(16), np.arange(48, 64), split="person")
    assert not any("sample for sample" in text for text in clean.leaks)
    assert (store.select(subjects=["s7"]).trials.content == store.select(subjects=["s3"]).trials.content).all()


@pytest.mark.parametrize(("order", "design"), [("mixed", "mixed blocks"), ("class after class", "class blocks")])
def test_blocks_follow_from_the_times_where_nobody_recorded_them(order, design):
    """A table with an onset in every row says in which order classes came; "not recorded" would be untrue."""
    rng = np.random.default_rng(3)
    concept = np.concatenate(
        [np.repeat(np.arange(4), 20) if order != "mixed" else rng.permutation(np.repeat(np.arange(4), 20)) for _ in "ab"]
    )
    person = np.repeat([0, 1], 80)
    unknown, zero = np.full(160, -1), np.zeros(160, np.int64)
    trials = Trials(person, zero, unknown, np.arange(160), concept, np.tile(np.arange(80.0), 2))

    result = audit(trials, np.flatnonzero(person == 0), np.flatnonzero(person == 1), split="person")

    assert result.block_design == design and not any("neither blocks nor times" in text for text in result.unknown)
    assert any("they follow from the times" in note for note in result.notes)
