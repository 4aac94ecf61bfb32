"""What alignment and fine-tuning are said to do, each as a check that can fail; and that it does fail when the mechanism is broken.

The mutations are those that a test of "it learns" has to notice: gradients cut, labels shuffled, the encoder silenced.
No closed form takes part in any of the models here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import tiny_clip, tiny_stable_diffusion
from world import make_world

from dreamdiff.alignment.adapt import adapt
from dreamdiff.alignment.config import ALIGN_PRESETS, AlignConfig
from dreamdiff.alignment.model import AlignedEncoder
from dreamdiff.alignment.prepare import align
from dreamdiff.alignment.task import AlignTask
from dreamdiff.certificates.judging import VectorJudge
from dreamdiff.certificates.records import Certificate, accuracy_of
from dreamdiff.encoders.conv import ConvEncoder
from dreamdiff.encoders.encoder import EEGEncoder, EncoderConfig
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.finetuning import prepare as finetuning
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.task import FinetuneTask
from dreamdiff.metrics.measurement import Measurement
from dreamdiff.pairs.reader import Pairs
from dreamdiff.protocols.config import RetrieveConfig
from eegprep.settings import resolve


def settings(*assignments: str, preset: str = "default") -> AlignConfig:
    always = ["front.rate=64", "front.seconds=0.625", "loop.device=cpu", "batch_size=32"]
    return resolve(AlignConfig, presets=ALIGN_PRESETS, preset=preset, assignments=[*always, *assignments])


# --- what is measured


def certified(run: Path, pairs: Path) -> Certificate:
    report = run.with_name(f"{run.name}-report")
    return retrieve(run, pairs, report, RetrieveConfig(repetitions=("1",), device="cpu")).certificate


def aligned(folder: Path, encoder: str = "conv", **world) -> Certificate:
    pairs, target = make_world(folder, **{"trials": 8, **world})
    align(pairs, folder / "run", settings("loop.epochs=8"), encoder=encoder, targets=[target])
    return certified(folder / "run", pairs)


def fine_tuned(folder: Path, **world) -> Measurement:
    pairs, _ = make_world(folder, people=1, trials=16, test_trials=12, noise=0.3, **world)
    tiny_stable_diffusion(folder / "sd")
    tiny_clip(folder / "clip")
    torch.manual_seed(0)
    shape = EncoderConfig(channels=16, window=40, width=32, depth=1, heads=4)
    EEGEncoder(shape).save_pretrained(folder / "encoder")
    config = resolve(
        FinetuneConfig, presets=FINETUNE_PRESETS, preset="tiny",
        assignments=[
            "what.trains=none", "losses.w_sd=0", "losses.w_contrastive=1", "loop.device=cpu", "loop.epochs=20",
            "optim.lr=3e-3", "data.batch_size=32", "validation.preview_trials=0", "validation.select=last",
        ],
    )  # fmt: skip
    task = finetuning.prepare(
        pairs, str(folder / "encoder"), str(folder / "sd"), str(folder / "clip"), folder / "run", config, offline=True
    )
    finetuning.fit_task(task)
    store = Pairs.open(pairs)
    parts = store.split()
    taught, first = np.unique(store.image[parts["train"]], return_index=True)
    vectors = task.data.clip_vectors.read(task.data.row[taught])
    judge = VectorJudge.of(vectors, store.labels[parts["train"]][first], 10, vectors[:2], "clip")
    with torch.no_grad():
        task.module.eval()
        found = task.pipeline().encode(store.eeg(parts["test"])).clip_BD.numpy()
    predicted = judge.predict(found)["category"]
    truth = store.labels[parts["test"]].astype(np.int64)
    return accuracy_of("h(y)", "", predicted, truth, store.image[parts["test"]], 0.1, 0)


# --- claims: each takes a folder and dials of the world, and raises AssertionError where it does not hold


def an_aligned_encoder_beats_chance_by_what_it_learned(folder: Path, encoder: str = "conv", **world) -> None:
    """The interval lies above the guesser, and silencing the encoder costs more than chance does."""
    found = aligned(folder, encoder, **world)
    whole = found.accuracy("as it is")
    assert whole is not None and whole.above_floor
    assert found.difference("as it is", "encoder zeroed")[0] > 0
    assert found.difference("as it is", "random encoder")[0] > 0


def learning_beats_ridge_where_latencies_jitter(folder: Path, **world) -> None:
    """A response that comes 30 ms earlier or later is another pattern for a linear map, and the same for a pooled convolution."""
    pairs, target = make_world(folder, jitter=0.03, **world)
    align(pairs, folder / "run", settings("shift=3"), targets=[target])
    assert certified(folder / "run", pairs).difference("as it is", "ridge, whitened")[0] > 0


def one_trial_a_category_on_top_of_others_beats_ridge_alone(folder: Path, **world) -> None:
    """The others' model, tuned on one trial of each category of somebody new, against ridge on these trials."""
    others, new = folder / "others", folder / "new"
    others.mkdir(), new.mkdir()
    pairs, target = make_world(others, people=6, trials=8, test_trials=2, noise=2.0, **world)
    align(pairs, others / "run", settings("loop.epochs=8", "batch_size=64"), targets=[target])
    pairs, target = make_world(new, people=2, first_person=6, trials=1, test_trials=12, noise=2.0, **world)
    adapt(others / "run", pairs, new / "run", settings(preset="adapt"))
    found = certified(new / "run", pairs)
    assert found.accuracy("as it is").value > 0.7
    assert found.difference("as it is", "ridge, whitened")[0] > 0


def fine_tuning_without_a_closed_form_beats_chance(folder: Path, **world) -> None:
    """The paper's route: h(y) of held-out trials lies nearest to its own category more often than a guesser finds it."""
    assert fine_tuned(folder, **world).above_floor


CLAIMS = [
    an_aligned_encoder_beats_chance_by_what_it_learned,
    learning_beats_ridge_where_latencies_jitter,
    pytest.param(one_trial_a_category_on_top_of_others_beats_ridge_alone, marks=pytest.mark.slow),
    fine_tuning_without_a_closed_form_beats_chance,
]


# --- mutations: each breaks the mechanism in one place, and returns what the world has to be told


def gradients_cut(monkeypatch) -> dict[str, bool]:
    """Every parameter still takes part in the graph, with a gradient of zero."""
    right, right_step = AlignTask.losses, FinetuneTask.step

    def losses(self, predicted, batch):
        found = right(self, [z.detach() for z in predicted], batch)
        return {**found, "loss": found["loss"].detach() + 0 * sum(z.sum() for z in predicted)}

    def step(self, batch, draw):
        found = right_step(self, batch, draw)
        return {**found, "loss": 0 * found["loss"]}

    monkeypatch.setattr(AlignTask, "losses", losses)
    monkeypatch.setattr(FinetuneTask, "step", step)
    return {}


def labels_shuffled(monkeypatch) -> dict[str, bool]:
    """Training trials keep their EEG and get the picture and the label of another one."""
    return {"shuffled": True}


def encoder_zeroed(monkeypatch) -> dict[str, bool]:
    """All encoders give zeros, in training and afterwards."""
    for kind in (ConvEncoder, EEGEncoder):
        monkeypatch.setattr(kind, "forward", silenced(kind.forward))
    return {}


def silenced(right):
    return lambda self, *given, **more: 0 * right(self, *given, **more)


MUTATIONS = [gradients_cut, labels_shuffled, encoder_zeroed]


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_claim_holds(tmp_path, claim):
    claim(tmp_path)


def test_the_papers_encoder_beats_chance_by_what_it_learned(tmp_path):
    an_aligned_encoder_beats_chance_by_what_it_learned(tmp_path, "random:tiny")


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("claim", CLAIMS)
def test_the_claim_fails_when_the_mechanism_is_broken(tmp_path, monkeypatch, claim, mutation):
    """A test of "it learns" that passes with broken gradients says nothing. This is the mutation check that CI runs."""
    world = mutation(monkeypatch)

    with pytest.raises(AssertionError):
        claim(tmp_path, **world)


def test_a_model_of_others_knows_nobody_new_and_whitening_alone_helps(tmp_path):
    others, new = tmp_path / "others", tmp_path / "new"
    others.mkdir(), new.mkdir()
    pairs, target = make_world(others, people=4, trials=6, test_trials=2)
    align(pairs, others / "run", settings("loop.epochs=6"), targets=[target])
    pairs, _ = make_world(new, people=1, first_person=6, trials=4, test_trials=8)
    store = Pairs.open(pairs)
    seen: list[int] = []
    read_images = Pairs.load_images
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pairs, "load_images", lambda self, *a, **k: seen.append(1) or read_images(self, *a, **k))
        result = adapt(others / "run", pairs, new / "run", unlabelled=20)

    before, after = (
        AlignedEncoder.from_pretrained(run).encode(store.eeg(store.split()["test"]), person=person)
        for run, person in ((others / "run", None), (new / "run", "p6"))
    )
    assert result.trials == 20 and not result.labelled and not seen
    assert result.people == ("p6",)
    vectors = torch.from_numpy(np.load(new / "vectors.npz")["vectors"])[store.image[store.split()["test"]]]
    centred = vectors - vectors.mean(0)
    cosine = [float(torch.cosine_similarity(x - vectors.mean(0), centred).mean()) for x in (before, after)]
    assert cosine[1] > cosine[0] + 0.1
