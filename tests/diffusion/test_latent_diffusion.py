"""Loading Stable Diffusion offline in three forms, choosing what trains, and the loss."""

from __future__ import annotations

import json
import shutil
import socket

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from tiny_models import compvis_unet, compvis_vae, tiny_stable_diffusion

from dreamdiff.diffusion import noise as ld_noise
from dreamdiff.diffusion import stable_diffusion as ld
from dreamdiff.diffusion import trainable as ld_trainable
from eegprep import provenance as ld_provenance
from eegprep.errors import CheckpointError, ModelError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def answer(unet):
    """What a U-Net says to a fixed question."""
    g = torch.Generator().manual_seed(3)
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    with torch.no_grad():
        return unet(torch.randn(1, 4, size, size, generator=g), 500, torch.randn(1, 77, width, generator=g)).sample


def compvis_state(model):
    return {name: value.contiguous() for name, value in (compvis_unet(model.unet) | compvis_vae(model.vae)).items()}


# --- loading


def test_a_diffusers_folder_loads_without_opening_a_socket(folder, no_network):
    """Loading local models must work on an isolated machine; users' loudest complaint about diffusers is that it does not."""
    model = ld.load_stable_diffusion(folder)

    assert (model.context_width, model.image_size) == (24, 32)
    assert not any(p.requires_grad and p.is_meta for p in model.unet.parameters())


@pytest.mark.parametrize("ending", [".safetensors", ".ckpt"])
def test_a_single_file_in_compvis_names_is_the_same_model(folder, tmp_path, no_network, ending):
    """People have v1-5-pruned.ckpt; every tensor must land where the diffusers folder has it, and no configuration be fetched."""
    expected = ld.load_stable_diffusion(folder)
    file = tmp_path / f"model{ending}"
    if ending == ".ckpt":
        torch.save({"state_dict": compvis_state(expected), "global_step": 7}, file)
    else:
        save_file(compvis_state(expected), file)

    result = ld.load_stable_diffusion(file, config=folder)

    assert torch.equal(answer(result.unet), answer(expected.unet))
    pixels = torch.rand(1, 3, 32, 32)
    assert torch.equal(result.vae.encode(pixels).latent_dist.mean, expected.vae.encode(pixels).latent_dist.mean)
    assert torch.equal(result.vae.decode(torch.ones(1, 4, 8, 8)).sample, expected.vae.decode(torch.ones(1, 4, 8, 8)).sample)


def test_the_shipped_configuration_is_stable_diffusion_15():
    """859,520,964 and 83,653,863 are the parameter counts of SD 1.5's U-Net and VAE."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads((ld.SD15_CONFIG / "unet" / "config.json").read_text()))
        vae = AutoencoderKL.from_config(json.loads((ld.SD15_CONFIG / "vae" / "config.json").read_text()))

    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863


def test_checksums_are_shown_and_known_weights_named(folder, monkeypatch):
    """SD 1.5's first home is gone; with mirrors, only the SHA-256 says what was loaded."""
    digest = ld_provenance.sha256_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    monkeypatch.setitem(ld.KNOWN_WEIGHTS, digest, "the tiny one")

    model = ld.load_stable_diffusion(folder)

    assert model.known == {"unet/diffusion_pytorch_model.safetensors": "the tiny one"}
    assert f"unet/diffusion_pytorch_model.safetensors: SHA-256 {digest} (the tiny one)" in model.remarks
    assert any("not a file known here" in line for line in model.remarks)


def test_a_cut_off_safetensors_file_is_named(folder, tmp_path):
    """A broken download must end in one line, not in a traceback of another library."""
    broken = tmp_path / "sd"
    shutil.copytree(folder, broken)
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])

    with pytest.raises(CheckpointError, match="unet: not a readable UNet2DConditionModel"):
        ld.load_stable_diffusion(broken)


def test_a_corrupt_single_file_is_named(tmp_path):
    """Same for one file."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"not a model")

    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged"):
        ld.load_stable_diffusion(file)


def test_latent_channels_that_differ_are_refused(folder, tmp_path):
    """A VAE of another model would make noise of every image."""
    mixed = tmp_path / "sd"
    shutil.copytree(folder, mixed)
    config = json.loads((mixed / "vae" / "config.json").read_text())
    AutoencoderKL.from_config({**config, "latent_channels": 8}).save_pretrained(mixed / "vae")

    with pytest.raises(ModelError, match="U-Net reads 4 latent channels, its VAE writes 8"):
        ld.load_stable_diffusion(mixed)


def test_a_folder_without_a_vae_is_not_a_model(folder, tmp_path):
    """The message names what is missing."""
    part = tmp_path / "sd"
    shutil.copytree(folder / "unet", part / "unet")

    with pytest.raises(ModelError, match="no vae/ folder"):
        ld.load_stable_diffusion(part)


def test_a_path_that_is_not_there_is_not_taken_for_a_hub_name(no_network):
    """`./models/sd15` and `/models/sd15` are paths; asking a server about them would hide the typing error."""
    for text in ("./models/sd15", "/models/sd15", "models/sd/15", "sd15"):
        with pytest.raises(ModelError, match="no such folder or file, and not a hub name"):
            ld.load_stable_diffusion(text)


def test_a_hub_name_offline_says_what_to_do(no_network):
    """`--offline` must not try."""
    with pytest.raises(ModelError, match=r"someone/never-downloaded: the hub could not provide"):
        ld.load_stable_diffusion("someone/never-downloaded", offline=True)


def test_a_single_file_of_another_shape_is_refused(folder, tmp_path):
    """SDXL or SD 2 in place of SD 1.5: named before anything is trained."""
    file = tmp_path / "model.safetensors"
    save_file(compvis_state(ld.load_stable_diffusion(folder)), file)

    with pytest.raises(ModelError, match="its unet does not have the shape of"):
        ld.load_stable_diffusion(file)


def test_a_file_that_lacks_the_unet_is_refused(folder, tmp_path):
    """A VAE alone, as people have it too."""
    file = tmp_path / "vae.safetensors"
    save_file({name: v.contiguous() for name, v in compvis_vae(ld.load_stable_diffusion(folder).vae).items()}, file)

    with pytest.raises(ModelError, match=r"no tensor is called model.diffusion_model"):
        ld.load_stable_diffusion(file, config=folder)


def test_an_unknown_scheduler_gets_a_suggestion():
    """`dpm` is a likely guess."""
    with pytest.raises(UsageError, match="did you mean 'ddim'"):
        ld_noise.make_scheduler("dimm", {})


def test_changing_the_sampler_keeps_the_noise_schedule(folder):
    """A sampler with other betas than the U-Net was trained with gives washed-out images."""
    base = ld.load_stable_diffusion(folder).scheduler

    for name in ld_noise.SCHEDULERS:
        other = ld_noise.make_scheduler(name, base.config)
        torch.testing.assert_close(other.alphas_cumprod, base.alphas_cumprod, msg=name)


# --- what trains


@pytest.fixture(scope="module")
def sd15_unet():
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(json.loads((ld.SD15_CONFIG / "unet" / "config.json").read_text()))


@pytest.mark.parametrize(("trains", "millions"), [("attention", 43.963), ("released", 43.963 + 0.025), ("none", 0)])
def test_what_trains_at_full_size(sd15_unet, trains, millions):
    """The authors' optimiser holds 43.963 M cross-attention and 0.025 M LayerNorm parameters of the U-Net."""
    ld_trainable.choose_trainable(sd15_unet, trains)

    assert sum(p.numel() for p in sd15_unet.parameters() if p.requires_grad) / 1e6 == pytest.approx(millions, abs=5e-4)


def test_key_and_value_maps_alone(sd15_unet):
    """Only these read the context; 16 blocks of two maps from 768."""
    ld_trainable.choose_trainable(sd15_unet, "kv")
    trained = {name for name, p in sd15_unet.named_parameters() if p.requires_grad}

    assert len(trained) == 32
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in trained)


def test_a_look_alike_name_is_not_trained(folder):
    """The authors select by substring, which also catches `layer_norm2` of CLIP and norms of the VAE."""
    unet = ld.load_stable_diffusion(folder).unet
    unet.attn2_of_something_else = torch.nn.Linear(3, 3)
    unet.norm2 = torch.nn.LayerNorm(3)

    ld_trainable.choose_trainable(unet, "released")

    assert not any(p.requires_grad for p in unet.attn2_of_something_else.parameters())
    assert not any(p.requires_grad for p in unet.norm2.parameters())


def test_an_unknown_choice_gets_a_suggestion(folder):
    """Settings come from the command line too."""
    with pytest.raises(UsageError, match="did you mean 'attention'"):
        ld_trainable.trainable_modules(torch.nn.Linear(1, 1), "atention")


@pytest.mark.parametrize("trains", ["attention", "kv", "released", "lora", "none"])
def test_nothing_frozen_ever_gets_a_gradient(folder, trains):
    """860 M unused gradients are what makes the authors' fine-tuning run out of memory."""
    model = ld.load_stable_diffusion(folder)
    ld_trainable.choose_trainable(model.unet, trains)
    context = torch.randn(2, 77, 24, requires_grad=True)
    noise, step = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])

    ld_noise.diffusion_loss(
        model.unet, ld_noise.NoiseSchedule.of(model.scheduler), torch.randn(2, 4, 8, 8), context, noise, step
    ).backward()

    for name, parameter in model.unet.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert context.grad is not None  # the encoder learns in every case


def test_adapters_start_as_nothing_and_merge_into_the_weights(folder):
    """LoRA must not change the model before training, and its merged form must answer as the adapted one did."""
    unet = ld.load_stable_diffusion(folder).unet
    before = answer(unet)
    ld_trainable.choose_trainable(unet, "lora", lora_rank=2)
    torch.testing.assert_close(answer(unet), before)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    adapted = answer(unet)
    assert (adapted - before).abs().max() > 1e-3

    ld_trainable.merge_lora(unet)

    torch.testing.assert_close(answer(unet), adapted, atol=1e-5, rtol=1e-5)
    assert not any("lora" in name for name in unet.state_dict())


# --- the loss


def test_noising_and_targets_are_those_of_diffusers():
    """A second implementation: DDPMScheduler.add_noise and get_velocity."""
    reference = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction")
    schedule = ld_noise.NoiseSchedule.of(reference)
    clean, noise, step = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 500, 998, 999])

    torch.testing.assert_close(schedule.noisy(clean, noise, step), reference.add_noise(clean, noise, step))
    torch.testing.assert_close(schedule.target(clean, noise, step), reference.get_velocity(clean, noise, step))


def test_min_snr_weights_leave_hard_steps_alone():
    """min(SNR, gamma) / SNR: 1 where SNR < gamma (much noise), gamma / SNR where there is little noise."""
    schedule = ld_noise.NoiseSchedule(torch.tensor([10 / 11, 1 / 2, 1 / 11]), "epsilon")  # SNR 10, 1, 0.1

    torch.testing.assert_close(schedule.weight(torch.tensor([0, 1, 2]), 5.0), torch.tensor([0.5, 1.0, 1.0]))
    torch.testing.assert_close(schedule.weight(torch.tensor([0, 1, 2]), None), torch.ones(3))


def test_a_perfect_guess_costs_nothing_and_silence_costs_the_noise_power(folder):
    """L_SD is the mean squared error of the noise: 0 for the noise itself, its mean square for a guess of zero."""
    model = ld.load_stable_diffusion(folder)
    clean, noise, step = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([3, 400, 990])

    def loss(guess):
        class Fixed(torch.nn.Module):
            def forward(self, *args, **kwargs):
                return type("Output", (), {"sample": guess})

        return ld_noise.diffusion_loss(
            Fixed(), ld_noise.NoiseSchedule.of(model.scheduler), clean, torch.zeros(3, 77, 24), noise, step
        )

    assert loss(noise) == 0
    torch.testing.assert_close(loss(torch.zeros_like(noise)), noise.square().mean())


def test_an_unknown_prediction_type_is_refused():
    """Training towards the wrong target gives plausible losses and useless images."""
    schedule = ld_noise.NoiseSchedule(torch.tensor([0.5]), "sample")

    with pytest.raises(ModelError, match="prediction_type 'sample'"):
        schedule.target(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.tensor([0]))


def test_the_time_branch_enters_where_the_time_step_does(folder):
    """The released model adds a vector to the time embedding; a vector of zeros must change nothing."""
    unet = ld.load_stable_diffusion(folder).unet
    before = answer(unet)
    ld_trainable.accept_time_branch(unet)
    g = torch.Generator().manual_seed(3)
    x, context = torch.randn(1, 4, 8, 8, generator=g), torch.randn(1, 77, 24, generator=g)

    with torch.no_grad():
        same = unet(x, 500, context, class_labels=torch.zeros(1, 64)).sample
        other = unet(x, 500, context, class_labels=torch.ones(1, 64)).sample

    torch.testing.assert_close(same, before)
    assert (other - before).abs().max() > 1e-3
