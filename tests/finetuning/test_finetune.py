"""Fine-tuning on tiny genuine models: what trains, what is cached, what is never read, and that a run can be taken up."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import tiny_clip, tiny_stable_diffusion
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

from dreamdiff import linear as ft_linear
from dreamdiff.diffusion import clip as ft_clip
from dreamdiff.diffusion import conditioner as ft_conditioner
from dreamdiff.diffusion.noise import NoiseSchedule, diffusion_loss
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline
from dreamdiff.diffusion.stable_diffusion import load_stable_diffusion
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.finetuning import data as ft_data
from dreamdiff.finetuning import prepare as ft_prepare
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.pairs import image_cache
from dreamdiff.pairs.reader import Pairs
from dreamdiff.training import best
from dreamdiff.training.task import Draw
from eegprep.errors import CheckpointError, DataError, ModelError, StoreError, UsageError
from eegprep.settings import resolve


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folder with sd/, clip/, encoder/ and pairs.zarr."""
    folder = tmp_path_factory.mktemp("parts")
    tiny_stable_diffusion(folder / "sd")
    tiny_clip(folder / "clip")
    tiny_pairs(folder / "pairs.zarr")
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(folder / "encoder")
    return folder


def settings(*assignments):
    always = ["loop.device=cpu", "preview_trials=0", *assignments]
    return resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="tiny", assignments=always)


def prepare(parts, out, *assignments, **changes):
    given = {
        "pairs": parts / "pairs.zarr",
        "encoder": str(parts / "encoder"),
        "sd": str(parts / "sd"),
        "clip": str(parts / "clip"),
    }
    return ft_prepare.prepare(**{**given, **changes}, out=out, config=settings(*assignments))


def one_step(task, count=6):
    batch = task.data.batch(task.data.parts["train"][:count])
    return task.step(batch, Draw(0, 0, batch["index"]))


# --- what trains


MODES = {
    "attention": {"U-Net, cross-attention", "EEG encoder", "tau", "CLIP head h"},
    "kv": {"U-Net, cross-attention", "EEG encoder", "tau", "CLIP head h"},
    "lora": {"U-Net, adapters", "EEG encoder", "tau", "CLIP head h"},
    "none": {"EEG encoder", "tau", "CLIP head h"},
}


@pytest.mark.parametrize("trains", sorted(MODES))
def test_the_table_names_what_trains_and_gradients_agree(parts, tmp_path, trains):
    """Paper E+A, K/V only, adapters, E only: the table a person reads is what the optimiser gets, and nothing else has a gradient."""
    task = prepare(parts, tmp_path, f"trains={trains}")

    one_step(task)["loss"].backward()

    assert {row["part"] for row in task.trainable_table() if row["trained"] and row["part"] != "all"} == MODES[trains]
    for name, parameter in task.module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    in_groups = {id(p) for group in task.parameter_groups(0.01) for p in group["params"]}
    assert in_groups == {id(p) for p in task.module.parameters() if p.requires_grad}


def test_attention_only_leaves_the_encoder_alone(parts, tmp_path):
    """Row 14 of Table 2: A only. tau is new and always trains."""
    task = prepare(parts, tmp_path, "train_encoder=false", "w_clip=0", "select=last")

    one_step(task)["loss"].backward()

    assert all(p.grad is None for p in task.module.encoder.parameters())
    assert any(p.grad is not None for p in task.module.conditioner.parameters())


def test_the_position_table_is_not_trained(parts, tmp_path):
    """The authors' loop over names thaws the fixed sine table."""
    task = prepare(parts, tmp_path)

    assert "encoder.pos_embed" not in dict(task.module.named_parameters())


def test_no_parameter_is_in_two_groups(parts, tmp_path):
    """In the authors' optimiser the encoder's LayerNorms stand twice and are stepped twice."""
    task = prepare(parts, tmp_path, "trains=released", "time_branch=true", "guidance_dropout=0.5")
    ids = [id(p) for group in task.parameter_groups(0.01) for p in group["params"]]

    assert len(ids) == len(set(ids))


def test_training_changes_what_trains_and_nothing_else(parts, tmp_path):
    """Every frozen tensor of the written pipeline is bit for bit that of the source."""
    task = prepare(parts, tmp_path / "run")
    ft_prepare.fit_task(task)

    before = load_file(parts / "sd" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "run" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if ".attn2." in name}
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (parts / "sd" / vae).read_bytes() == (tmp_path / "run" / "pipeline" / vae).read_bytes()


# --- the loss


def test_the_loss_is_the_weighted_sum_of_its_parts(parts, tmp_path):
    """L = w_sd L_SD + w_clip L_clip + w_contrastive L_contrastive + w_class CE."""
    task = prepare(parts, tmp_path, "w_sd=0.5", "w_clip=2", "w_contrastive=0.3", "w_class=0.7")

    losses = one_step(task)

    expected = 0.5 * losses["sd"] + 2 * losses["clip"] + 0.3 * losses["contrastive"] + 0.7 * losses["class"]
    torch.testing.assert_close(losses["loss"], expected)


def test_cached_latents_give_the_loss_of_encoding_at_every_step(parts, tmp_path):
    """The cache must change the time, not the loss: images go through VAE and formula here, without our cache code."""
    task = prepare(parts, tmp_path)
    positions = task.data.parts["train"][:5]
    batch = task.data.batch(positions)

    result = task.step(batch, Draw(0, 0, batch["index"]))["sd"]

    model = load_stable_diffusion(parts / "sd")
    draw = Draw(0, 0, batch["index"])
    pixels = torch.from_numpy(Pairs.open(parts / "pairs.zarr").images(positions)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        posterior = model.vae.encode(pixels).latent_dist
        clean = (posterior.mean + posterior.std * draw.normal("latent", 4, 8, 8)) * 0.18215
        tokens = task.module.conditioner(task.module.encoder(batch["eeg"])).tokens_BLD
        expected = diffusion_loss(
            task.module.unet, NoiseSchedule.of(model.scheduler), clean, tokens, draw.normal("noise", 4, 8, 8), draw.integers("step", 1000)
        )  # fmt: skip
    torch.testing.assert_close(result.detach(), expected)


def test_the_loss_of_a_trial_does_not_depend_on_its_batch(parts, tmp_path):
    """Noise and time step belong to the trial and the epoch, so that accumulation and process count don't change training."""
    task = prepare(parts, tmp_path, "guidance_dropout=0.5")

    def sd(positions):
        batch = task.data.batch(np.asarray(positions))
        return float(task.step(batch, Draw(0, 0, batch["index"]))["sd"].detach())

    train = task.data.parts["train"]
    assert sd(train[:4]) == pytest.approx(np.mean([sd(train[k : k + 1]) for k in range(4)]), rel=1e-5)


def test_gradient_checkpointing_changes_memory_not_gradients(parts, tmp_path):
    """Activations are made again, and must come out the same."""
    gradients = []
    for text in ("gradient_checkpointing=false", "gradient_checkpointing=true"):
        task = prepare(parts, tmp_path, text)
        task.module.train()
        one_step(task)["loss"].backward()
        gradients.append({name: p.grad for name, p in task.module.named_parameters() if p.grad is not None})

    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_blocks_give_the_same_loss(parts, tmp_path):
    """`loop.compile` changes the speed and the last digits, and no name in the weights."""
    task = prepare(parts, tmp_path)
    names, plain = list(task.module.state_dict()), float(one_step(task)["loss"].detach())
    task.compile()
    assert float(one_step(task)["loss"].detach()) == pytest.approx(plain, rel=1e-4)
    assert list(task.module.state_dict()) == names


def test_tokens_start_with_the_spread_that_the_unet_reads(parts, tmp_path):
    """As made, tau's tokens have a spread of some hundredths."""
    task = prepare(parts, tmp_path, "context_std=0.8")
    eeg = torch.from_numpy(task.data.pairs.eeg(task.data.parts["train"][:32]))

    with torch.no_grad():
        tokens = task.module.conditioner(task.module.encoder(eeg)).tokens_BLD
    assert float(tokens.std()) == pytest.approx(0.8, rel=1e-3)


# --- data


def test_caches_are_filled_once_and_shared(parts, tmp_path, monkeypatch):
    """A second run of another configuration on the same pairs must not encode a single image."""
    prepare(parts, tmp_path, f"cache={tmp_path / 'cache'}")
    monkeypatch.setattr(ft_prepare, "image_moments", lambda *a: pytest.fail("encoded again"))
    monkeypatch.setattr(ft_clip.ClipTarget, "encode_images", lambda *a: pytest.fail("encoded again"))

    prepare(parts, tmp_path, f"cache={tmp_path / 'cache'}", "w_clip=3")


def test_latents_of_another_crop_are_never_taken_from_the_cache(parts, tmp_path, monkeypatch):
    """Release 0.1.0 squeezed pictures that are not square; its latents are of other pictures than those that are shown now."""
    cache = f"cache={tmp_path / 'cache'}"
    pairs = shutil.copytree(parts / "pairs.zarr", tmp_path / "pairs.zarr")  # beside those of `parts` lie other tests' latents
    monkeypatch.setattr(ft_prepare, "SQUARE", "squeezed")
    prepare(parts, tmp_path, cache, pairs=pairs)
    monkeypatch.undo()
    encoded = []
    original = ft_prepare.image_moments
    monkeypatch.setattr(ft_prepare, "image_moments", lambda vae, images: encoded.append(len(images)) or original(vae, images))

    task = prepare(parts, tmp_path, cache, pairs=pairs)

    assert sum(encoded) == len(task.data.moments)


def test_images_of_test_trials_are_never_read(parts, tmp_path, monkeypatch):
    """Selection and caches work on train and val; the paper's code chose its best checkpoint on the test split."""
    pairs = Pairs.open(parts / "pairs.zarr")
    test = set(pairs.split()["test"].tolist())
    read = []
    original = Pairs.eeg

    def spy(self, indices=None):
        read.extend(np.atleast_1d(np.arange(len(self)) if indices is None else indices).tolist())
        return original(self, indices)

    monkeypatch.setattr(Pairs, "eeg", spy)
    ft_prepare.fit_task(prepare(parts, tmp_path / "run", f"cache={tmp_path / 'cache'}", "preview_trials=2"))

    assert read
    assert not set(read) & test


def test_every_training_trial_comes_once_an_epoch(parts, tmp_path):
    """And two processes share them without overlap."""
    data = prepare(parts, tmp_path).data
    train = sorted(data.parts["train"].tolist())

    one = [int(i) for batch in ft_data.PairStream(data, 5, seed=0) for i in batch["index"]]
    shares = [[int(i) for batch in ft_data.PairStream(data, 5, 0, rank, 2) for i in batch["index"]] for rank in (0, 1)]

    assert sorted(one) == train
    assert one != train
    assert sorted(shares[0] + shares[1]) == train


def test_a_stream_goes_on_with_the_very_next_batch(parts, tmp_path):
    """Position in the epoch and order of the epoch after."""
    data = prepare(parts, tmp_path).data
    whole = ft_data.PairStream(data, 5, seed=0)
    expected = [batch["index"].tolist() for _ in range(2) for batch in whole]
    first, second = ft_data.PairStream(data, 5, seed=0), ft_data.PairStream(data, 5, seed=0)
    iterator = iter(first)
    result = [next(iterator)["index"].tolist() for _ in range(3)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    result += [batch["index"].tolist() for _ in range(2) for batch in second]

    assert result == expected


def test_latents_that_do_not_fit_into_memory_are_read_ahead(parts, tmp_path, monkeypatch):
    """A GPU would wait for zarr otherwise; the batches are the same."""
    held = ft_data.PairStream(prepare(parts, tmp_path).data, 5, seed=0)
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 0)
    streamed = ft_data.PairStream(prepare(parts, tmp_path).data, 5, seed=0)

    assert (held.prefetch, streamed.prefetch) == (0, ft_data.PREFETCH)
    for first, second in zip(held, streamed, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_more_processes_than_trials_is_refused(parts, tmp_path):
    """An empty share would hang the others."""
    data = prepare(parts, tmp_path).data

    with pytest.raises(DataError, match="training trials for 1000 processes"):
        ft_data.PairStream(data, 5, 0, 0, 1000)


# --- runs


class Stopped(Exception):
    """A power cut."""


def test_a_run_that_was_killed_ends_like_one_that_was_not(parts, tmp_path):
    """Weights bit for bit, dropout of EEG and validation included."""
    options = ["loop.checkpoint_steps=2", "guidance_dropout=0.3", "loop.ema=0.5", "loop.epochs=3"]
    ft_prepare.fit_task(prepare(parts, tmp_path / "whole", *options))
    task = prepare(parts, tmp_path / "cut", *options)
    step, count = task.step, 0

    def stops(batch, draw):
        nonlocal count
        count += 1
        if count == 7 and torch.is_grad_enabled():
            raise Stopped
        return step(batch, draw)

    task.step = stops
    with pytest.raises(Stopped):
        ft_prepare.fit_task(task)
    result = ft_prepare.fit_task(prepare(parts, tmp_path / "cut", *options))

    assert result.resumed_from
    for part in ("unet/diffusion_pytorch_model", "encoder/model", "conditioner/model"):
        one, two = (load_file(tmp_path / run / "pipeline" / f"{part}.safetensors") for run in ("whole", "cut"))
        assert all(torch.equal(one[name], two[name]) for name in one), part


def test_other_settings_in_the_same_folder_are_refused(parts, tmp_path):
    """A resumed run must be the same run."""
    ft_prepare.fit_task(prepare(parts, tmp_path / "run"))

    with pytest.raises(CheckpointError, match="w_clip"):
        ft_prepare.fit_task(prepare(parts, tmp_path / "run", "w_clip=0.5"))


def test_the_weights_that_did_best_on_validation_become_the_pipeline(parts, tmp_path):
    """Not the last ones; the scores are given here, the second is the best."""
    task = prepare(parts, tmp_path / "run", "loop.epochs=2", "loop.validate_steps=1")
    states, given = [], iter([3.0, 1.0, *range(4, 100)])

    def scores(device):
        states.append({name: p.detach().clone() for name, p in task.module.named_parameters()})
        task._keep_best({"loss": float(next(given))})
        return {}

    task.validate = scores
    ft_prepare.fit_task(task)

    pipe = DreamDiffusionPipeline.from_pretrained(tmp_path / "run")
    written = {
        f"{part}.{name}": p for part in ("encoder", "conditioner", "unet") for name, p in getattr(pipe, part).named_parameters()
    }
    assert len(states) > 3
    assert all(torch.equal(written[name], states[1][name]) for name in written)
    assert any(not torch.equal(written[name], states[-1][name]) for name in written)


def test_adapters_are_merged_into_the_pipeline(parts, tmp_path):
    """The folder holds an ordinary U-Net that differs from the source in cross-attention only."""
    ft_prepare.fit_task(prepare(parts, tmp_path / "run", "trains=lora", "lora_rank=2", "loop.ema=0.5"))

    before = load_file(parts / "sd" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "run" / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-7)}
    assert changed
    assert all(".attn2." in name for name in changed)


def test_the_released_models_form_trains_and_is_written(parts, tmp_path):
    """Time branch and LayerNorms: the pipeline carries the branch and makes an image."""
    ft_prepare.fit_task(prepare(parts, tmp_path / "run", "trains=released", "time_branch=true"))
    pipe = DreamDiffusionPipeline.from_pretrained(tmp_path / "run")
    pipe.set_progress_bar_config(disable=True)

    assert pipe.unet.config.class_embed_type == "identity"
    assert pipe(torch.randn(1, CHANNELS, SAMPLES), num_inference_steps=2).images[0].size == (32, 32)


def test_the_pipeline_remembers_what_its_eeg_has_to_be(parts, tmp_path):
    """Rate, start, band, unit and classes travel with the weights."""
    ft_prepare.fit_task(prepare(parts, tmp_path / "run", "guidance_dropout=0.2", "guidance=3"))
    details = DreamDiffusionPipeline.from_pretrained(tmp_path / "run").details

    assert (details.signal.sfreq, details.signal.t0, details.signal.band, details.signal.unit) == (128, 0, (5, 40), "uV")
    assert (details.guidance, details.guidance_trained, details.classes[2]) == (3, True, "class 2")


def test_a_preview_is_drawn(parts, tmp_path):
    """Seen on the left, generated on the right, for two validation trials, under a line that says what they are."""
    from PIL import Image

    ft_prepare.fit_task(prepare(parts, tmp_path / "run", "preview_trials=2"))

    width, height = Image.open(tmp_path / "run" / "preview.png").size
    assert width == 64 and height > 64


# --- the linear start


@pytest.fixture(scope="module")
def matching(tmp_path_factory):
    """Parts whose U-Net reads the width that the text tower writes, and plain pairs."""
    folder = tmp_path_factory.mktemp("matching")
    tiny_stable_diffusion(folder / "sd", context_width=16)
    tiny_clip(folder / "clip")
    tiny_pairs(folder / "pairs.zarr", per_class=40, noise=0.5)
    torch.manual_seed(0)
    EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(folder / "encoder")
    return folder


def test_the_linear_start_decodes_held_out_trials_and_not_shuffled_ones(matching, tmp_path):
    """Far above the chance of 1 in 4 on trials that it never saw; at chance when their EEG belongs to other trials."""
    task = prepare(matching, tmp_path, "linear_start=true", "linear_bins=16", "context_std=0.1", "validate_trials=40")
    cpu, pairs, val = torch.device("cpu"), task.data.pairs, task.data.parts["val"]
    task.module.eval()

    right = task.validate(cpu)["clip_accuracy"]
    batch = task.data.batch(val)
    order = np.random.default_rng(0).permutation(len(val))
    shuffled = task._clip_hits({**batch, "eeg": torch.from_numpy(pairs.eeg(val[order]))}) / len(val)

    assert right > 0.6
    assert shuffled < 0.45
    assert any("linear start: ridge regression on" in line for line in task.remarks)


def test_the_linear_start_begins_at_the_text_states(matching, tmp_path):
    """Tokens of a training trial lie near the caption's states, and no EEG is the empty text."""
    from dreamdiff.diffusion.clip import load_clip

    task = prepare(matching, tmp_path, "linear_start=true", "linear_bins=16", "caption=a drawing of {a} {name}")
    clip = load_clip(str(matching / "clip"))
    states = clip.text_states([f"a drawing of a {name}" for name in task.data.pairs.classes])
    batch = task.data.batch(task.data.parts["train"])

    with torch.no_grad():
        tokens = ft_conditioner.condition(task.module.encoder, task.module.conditioner, batch["eeg"]).tokens_BLD

    torch.testing.assert_close(task.module.conditioner.null_LD, clip.text_states([""])[0])
    away = (tokens - states.mean(0)).square().mean().sqrt()
    assert away < 2 * (states - states.mean(0)).square().mean().sqrt()


def test_a_linear_start_with_the_wrong_text_tower_is_refused(parts, tmp_path):
    """Text states of 16 for a U-Net that reads 24."""
    with pytest.raises(ModelError, match=r"text states are \(77, 16\), the U-Net reads \(77, 24\)"):
        prepare(parts, tmp_path, "linear_start=true", "linear_bins=16")


def test_whitening_makes_channels_independent_and_leaves_empty_directions_alone():
    """Replicated channels have no full rank; raising an empty direction would raise rounding errors only."""
    g = torch.Generator().manual_seed(0)
    mix = torch.randn(4, 4, generator=g)
    x = torch.einsum("dc,ncw->ndw", mix, torch.randn(500, 4, 8, generator=g))
    whitener = torch.from_numpy(ft_linear.whitener(x - x.mean(0), floor=1e-4)).float()

    white = torch.einsum("dc,ncw->ndw", whitener, x - x.mean(0)).transpose(0, 1).flatten(1)

    torch.testing.assert_close(white @ white.T / white.shape[1], torch.eye(4), atol=1e-3, rtol=1e-3)
    twice = torch.cat([x, x], dim=1)
    assert np.abs(ft_linear.whitener(twice - twice.mean(0), floor=1e-4)).max() < 100


# --- bad input


def test_eeg_of_another_shape_is_refused(parts, tmp_path):
    """Before CLIP or Stable Diffusion are loaded."""
    EEGEncoder(EncoderConfig(channels=CHANNELS + 2, window=SAMPLES, width=16, depth=1, heads=2)).save_pretrained(tmp_path / "e")

    with pytest.raises(ModelError, match=r"trials of 6 channels and 64 samples, the encoder reads 8 and 64"):
        prepare(parts, tmp_path / "run", encoder=str(tmp_path / "e"), sd="nowhere", clip="nowhere")


def test_eeg_in_another_unit_is_refused_for_a_scaling_that_has_one(parts, tmp_path):
    """Whitened THINGS-EEG2 in an encoder that divides microvolts by 10 would be ten times too small, with no error."""
    tiny_pairs(tmp_path / "p.zarr", unit="standard deviations")
    encoder = EEGEncoder(EncoderConfig(channels=CHANNELS, window=SAMPLES, width=16, depth=1, heads=2, scaling="divide-by-10"))
    encoder.save_pretrained(tmp_path / "e")

    with pytest.raises(
        ModelError, match="a is in 'standard deviations', the encoder was trained on uV with scaling 'divide-by-10'"
    ):
        prepare(parts, tmp_path / "run", encoder=str(tmp_path / "e"), pairs=tmp_path / "p.zarr")


def test_a_split_without_validation_is_refused(parts, tmp_path):
    """Selection on nothing; the cure is named."""
    tiny_pairs(tmp_path / "p.zarr", splits={"train": [0, 1, 2], "val": [], "test": [3]})

    with pytest.raises(DataError, match="has no validation trials, which select = 'loss' judges by"):
        prepare(parts, tmp_path / "run", pairs=tmp_path / "p.zarr")


def test_a_split_without_training_trials_is_refused(parts, tmp_path):
    """Nothing to learn from."""
    tiny_pairs(tmp_path / "p.zarr", splits={"train": [], "val": [1], "test": [3]})

    with pytest.raises(DataError, match="has no training trials"):
        prepare(parts, tmp_path / "run", pairs=tmp_path / "p.zarr")


def test_parts_that_share_a_trial_are_refused(parts, tmp_path):
    """A leak by accident."""
    tiny_pairs(tmp_path / "p.zarr", splits={"train": [0, 1, 2], "val": [2, 4], "test": [3]})

    with pytest.raises(DataError, match="train and val share 1 trials"):
        prepare(parts, tmp_path / "run", pairs=tmp_path / "p.zarr")


def test_an_image_size_that_the_vae_cannot_halve_is_refused(parts, tmp_path):
    """Before images are encoded."""
    with pytest.raises(ModelError, match="images of 30 pixels do not fit a VAE that divides by 4"):
        prepare(parts, tmp_path / "run", "image_size=30")


def test_a_full_disk_is_seen_before_training(parts, tmp_path, monkeypatch):
    """Not after the last epoch."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))

    with pytest.raises(StoreError, match="checkpoints and pipeline need about"):
        prepare(parts, tmp_path / "run", f"cache={parts / 'pairs.cache.zarr'}")


def test_an_unknown_setting_gets_a_suggestion():
    """--set w_klip=1."""
    with pytest.raises(UsageError, match=r"did you mean 'losses\.w_clip'"):
        settings("w_klip=1")


def test_best_weights_of_another_model_are_refused(parts, tmp_path):
    """A folder best/ that was copied in."""
    task = prepare(parts, tmp_path)
    from safetensors.torch import save_file

    save_file({"encoder.something": torch.zeros(1)}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match="holds 1 tensors"):
        best.load_trained(task.module, tmp_path / "model.safetensors")


@pytest.mark.parametrize("preset", sorted(FINETUNE_PRESETS))
def test_every_preset_is_a_valid_configuration(preset):
    """A typing error in a preset would show only when somebody uses it."""
    resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset=preset)


def test_a_run_of_the_version_before_has_the_same_identity(parts, tmp_path):
    """0.1.0 wrote all settings flat, and the rates of the parts outside the optimiser's: its runs must resume."""
    assignments = ["losses.w_clip=2", "optim.lr_encoder=0.5", "what.trains=kv"]
    task = prepare(parts, tmp_path, *assignments)
    now = json.loads(json.dumps(task.identity()))
    flat = {
        key: value
        for section in ("data", "what", "losses", "start", "validation")
        for key, value in now["config"][section].items()
    }
    optim = {key: value for key, value in now["config"]["optim"].items() if not key.startswith("lr_")}
    rates = {key: now["config"]["optim"][key] for key in ("lr_encoder", "lr_conditioner")}
    stored = {**now, "config": {**flat, **rates, "optim": optim, "loop": now["config"]["loop"]}, "optim": optim}

    result = task.current_identity(stored)

    assert result["config"] == now["config"] and result["optim"] == {**optim, "lr_encoder": 0.5, "lr_conditioner": 1.0}
