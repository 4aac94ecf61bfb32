"""`train align` on small pairs: what is learned, what a run folder holds, and what it refuses."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_alignment import WIDTH, make_pairs, small_config, vectors_file
from tiny_pairs import tiny_pairs

import dreamdiff
from dreamdiff.alignment.config import FrontChoice
from dreamdiff.alignment.data import centres, front_config
from dreamdiff.alignment.prepare import align, prepare
from dreamdiff.encoders.encoder import EEGEncoder, EncoderConfig
from dreamdiff.encoders.frontend import FrontEnd
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import RetrieveConfig
from eegprep.errors import CheckpointError, DataError, ModelError, UsageError


def test_accuracy(run, pairs, target) -> float:
    """Share of test trials whose vector is nearest to the centre of their class; four classes, chance 25 %."""
    store, model = Pairs.open(pairs), dreamdiff.AlignedEncoder.from_pretrained(run)
    with np.load(target.removeprefix("vectors:")) as content:
        vectors = torch.from_numpy(content["vectors"])
    parts = store.parts()
    row = np.arange(len(vectors))
    centres_KD = centres(vectors, row, store.image[parts["train"]], store.labels[parts["train"]], len(store.classes))
    result = model.encode(store.eeg(parts["test"]), person=[store.subjects[p] for p in store.person[parts["test"]]])
    nearest = (model.heads[0].standardise(result) @ centres_KD.T).argmax(1).numpy()
    return float((nearest == store.labels[parts["test"]]).mean())


test_accuracy.__test__ = False


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return make_pairs(tmp_path_factory.mktemp("align"))


@pytest.mark.parametrize("encoder", ["conv", "random:tiny"])
def test_held_out_trials_are_recognised(parts, tmp_path, encoder):
    pairs, target = parts

    result = align(pairs, tmp_path / "run", small_config("loop.epochs=10"), encoder=encoder, targets=[target])

    assert result.finished
    assert test_accuracy(tmp_path / "run", pairs, target) > 0.7


def test_vectors_come_in_the_space_of_the_target(parts, tmp_path):
    """Pictures lie around (5, ..., 5) here; a generator that reads the vectors must find them there."""
    pairs, target = parts
    align(pairs, tmp_path / "run", small_config(), targets=[target])
    store = Pairs.open(pairs)

    result = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run").encode(store.eeg(store.split()["test"]))

    assert result.shape[1] == WIDTH
    assert float(result.mean()) == pytest.approx(5, abs=0.3)


def test_a_killed_run_ends_like_one_that_was_not_killed(parts, tmp_path):
    pairs, target = parts
    config = small_config("shift=2", "loop.checkpoint_steps=3")
    align(pairs, tmp_path / "whole", config, targets=[target])

    class Killed(Exception):
        pass

    def stop(done, total, message):
        if done == 7 and "loss" in message:
            raise Killed

    with pytest.raises(Killed):
        align(pairs, tmp_path / "parts", config, targets=[target], progress=stop)
    result = align(pairs, tmp_path / "parts", config, targets=[target])

    assert result.resumed_from == 6
    digests = [hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).digest() for name in ("whole", "parts")]
    assert digests[0] == digests[1]


def test_pairs_that_were_made_again_are_other_pairs(parts, tmp_path):
    """The same path and recipe with other EEG: the run in the folder is not that of these pairs, finished or not."""
    pairs, target = parts
    align(pairs, tmp_path / "run", small_config("loop.max_steps=2"), targets=[target])
    recipe = dict(Pairs.open(pairs).recipe)
    remade = tiny_pairs(tmp_path / "pairs.zarr", per_class=32, noise=0.9, recipe=recipe)  # the same pictures
    assert Pairs.open(remade).fingerprint == Pairs.open(pairs).fingerprint

    with pytest.raises(CheckpointError, match="pairs_content"):
        align(remade, tmp_path / "run", small_config("loop.max_steps=2"), targets=[target])


def test_test_trials_and_their_pictures_are_never_read(parts, tmp_path, monkeypatch):
    pairs, target = parts
    store = Pairs.open(pairs)
    test = set(store.split()["test"].tolist())
    read_eeg, read_images = Pairs.eeg, Pairs.load_images
    seen: set[int] = set()

    def eeg(self, indices=None):
        seen.update(np.atleast_1d(np.arange(len(self)) if indices is None else indices).tolist())
        return read_eeg(self, indices)

    monkeypatch.setattr(Pairs, "eeg", eeg)
    align(pairs, tmp_path / "run", small_config("loop.epochs=1"), targets=[target])

    assert seen
    assert not seen & test
    assert read_images is Pairs.load_images


@pytest.mark.parametrize("tune", ["frozen", "lora"])
def test_what_is_frozen_stays_and_a_finished_folder_is_plain(parts, tmp_path, tune):
    pairs, target = parts
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=6, window=64, width=16, depth=1, heads=2)).save_pretrained(tmp_path / "msm")
    before = load_file(tmp_path / "msm" / "model.safetensors")

    align(
        pairs, tmp_path / "run", small_config(f"tune={tune}", "lora_rank=2"), encoder=f"msm:{tmp_path / 'msm'}", targets=[target]
    )

    after = dreamdiff.EEGEncoder.from_pretrained(tmp_path / "run").state_dict()
    same = {name: torch.equal(before[name], after[name]) for name in before if name != "pos_embed"}
    assert set(after) == set(before)
    if tune == "frozen":
        assert all(same.values())
    else:
        changed = {name for name, equal in same.items() if not equal}
        assert changed == {f"blocks.0.{part}.weight" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}


def test_several_targets_are_learned_at_once(parts, tmp_path):
    pairs, target = parts
    other = vectors_file(pairs, tmp_path / "other.npz", width=5, seed=3)

    align(pairs, tmp_path / "run", small_config(), targets=[target, other])

    model = dreamdiff.AlignedEncoder.from_pretrained(tmp_path / "run")
    assert model.target_names == (target, other)
    assert model.encode(Pairs.open(pairs).eeg([0]), target=other).shape == (1, 5)
    assert test_accuracy(tmp_path / "run", pairs, target) > 0.5


def test_an_object_that_encodes_can_be_aligned(parts, tmp_path):
    """Anything with `encode(eeg) -> vectors` stays as it is, and a head learns."""
    pairs, target = parts

    class Means:
        def encode(self, eeg_BCT):
            return eeg_BCT.unflatten(2, (-1, 5)).mean(3).flatten(1)

    task = prepare(pairs, tmp_path / "run", small_config("front.seconds=0.3125"), encoder=Means(), targets=[target])

    assert {name.partition(".")[0] for name, p in task.module.named_parameters() if p.requires_grad} <= {
        "heads", "people", "log_scale",
    }  # fmt: skip
    assert task.model.encode(Pairs.open(pairs).eeg([0, 1]), person="a").shape == (2, WIDTH)


def test_selection_by_validation_keeps_the_best_weights(parts, tmp_path):
    pairs, target = parts

    align(pairs, tmp_path / "run", small_config("select=validation", "optim.lr=0.03"), targets=[target])

    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    kept = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in best.items())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"encoder": "convolution"}, UsageError, ["'convolution'", "'conv'"]),
        ({"encoder": "msm:nowhere"}, CheckpointError, ["nowhere"]),
        ({"targets": ["clipp:x"]}, ModelError, ["'clipp:x'", "clip:NAME"]),
        ({"targets": []}, UsageError, ["at least one"]),
        ({"targets": ["vectors:nowhere.npz"]}, ModelError, ["nowhere.npz"]),
        ({"config": small_config("front.seconds=0.9")}, ModelError, ["do not hold the window", "0.5 s"]),
        ({"config": small_config("split=nothing")}, UsageError, ["'nothing'"]),
    ],
)
def test_what_does_not_fit_is_refused_before_training(parts, tmp_path, arguments, error, words):
    pairs, target = parts
    options = {"config": small_config(), "targets": [target], **arguments}

    with pytest.raises(error) as result:
        align(pairs, tmp_path / "run", **options)

    assert all(word in str(result.value) for word in words), str(result.value)


def test_pictures_without_a_vector_are_counted(parts, tmp_path):
    pairs, _ = parts
    np.savez(tmp_path / "few.npz", sha256=np.array(["00"]), vectors=np.zeros((1, 3), np.float32))

    with pytest.raises(DataError, match=r"no vector for \d+ of \d+ images"):
        align(pairs, tmp_path / "run", small_config(), targets=[f"vectors:{tmp_path / 'few.npz'}"])


@pytest.mark.parametrize("rate", [64.0, 128.0, 250.0])
def test_trials_that_end_within_a_sample_of_the_window_hold_it(parts, rate):
    """Trials of 0.8 s at 128 Hz end at 0.594 s: encoders at 250 Hz would be refused the 0.6 s that encoders at 128 Hz read."""
    store = Pairs.open(parts[0])
    attributes = store.attributes[store.subjects[0]]
    held = attributes["t0"] + store.eeg_shape[1] / attributes["sfreq"]
    for more in (0.0, 0.9):
        front = front_config(store, FrontChoice(seconds=held + more / attributes["sfreq"]), rate=rate, patch=1)
        assert front.window == int(round(held * rate, 6))
        FrontEnd(front, ())
    longer = front_config(
        store, FrontChoice(seconds=held + 1.1 / attributes["sfreq"]), rate=max(rate, attributes["sfreq"]), patch=1
    )
    with pytest.raises(ModelError, match="do not hold the window"):
        FrontEnd(longer, ())


def test_permuted_pictures_leave_nothing_to_learn(parts, tmp_path):
    """The control that a published accuracy needs: the same trials and pictures, dealt out again within each person."""
    pairs, target = parts
    config = small_config("loop.epochs=10", "permute_pictures=true")
    store, task = Pairs.open(pairs), prepare(pairs, tmp_path / "data", config, targets=[target])
    train, shown = task.data.parts["train"], task.data.shown
    others = np.setdiff1d(np.arange(len(store)), train)

    assert (shown[others] == store.image[others]).all() and (shown[train] != store.image[train]).mean() > 0.5
    for person in np.unique(store.person):
        of_person = train[store.person[train] == person]
        assert sorted(shown[of_person]) == sorted(store.image[of_person])
    assert (task.data.batch(train)["image"].numpy() == shown[train]).all()
    assert any("a control" in remark for remark in task.remarks)

    align(pairs, tmp_path / "run", config, targets=[target])
    trials = len(store.parts()["test"])
    assert test_accuracy(tmp_path / "run", pairs, target) < 0.25 + 3 * (0.25 * 0.75 / trials) ** 0.5

    result = retrieve(tmp_path / "run", pairs, tmp_path / "report", RetrieveConfig(repetitions=("1",), device="cpu"))
    assert result.first_line.startswith("A CONTROL") and all("/training=permuted/" in m.name for m in result.measurements)
