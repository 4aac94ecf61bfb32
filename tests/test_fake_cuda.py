"""Every stage on a fake `cuda` device (PyTorch's fake tensors, no card): devices that mix are errors there, and copies that would halt a
step are counted. `backward()` does not run there in a build without CUDA; graphs and memory are therefore looked at by themselves."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import CLIP_WIDTH, CONTEXT_WIDTH, tiny_unet_config, tiny_vae_config
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dreamdiff.diffusion.noise import NoiseSchedule, make_scheduler
from dreamdiff.encoders.config import EncoderConfig, MaskedSignalConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.step import Shapes, blank_batch, blank_parts, finetune_memory, losses_of
from dreamdiff.memory import allocated_peak, step_memory
from dreamdiff.training.task import Draw
from eegprep.settings import resolve

SMALL = {"channels": 6, "window": 64, "width": 16, "depth": 1, "heads": 2}
BASE = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
CARD = torch.device("cuda")


class Copies(TorchDispatchMode):
    """Counts what crosses between host and device."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if "_to_copy" in name or "_local_scalar_dense" in name:
            target = str((kwargs or {}).get("device") or ("cpu" if "_local" in name else args[0].device))
            self.n += args[0].device.type != target.split(":", maxsplit=1)[0]
        return func(*args, **(kwargs or {}))


@pytest.fixture
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**tiny_unet_config())


def vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(**tiny_vae_config())


def encoder() -> EEGEncoder:
    return EEGEncoder(EncoderConfig(**SMALL))


SHAPES = Shapes(encoder, unet, (6, 64), 8, CLIP_WIDTH)


def finetuning(preset: str, *assignments: str) -> FinetuneConfig:
    return resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset=preset, assignments=assignments)


def test_a_step_of_pre_training_copies_nothing(fake) -> None:
    """Masks are drawn where the windows are; augmentation looks at no number on the host."""
    from dreamdiff.pretraining.config import Augmentation
    from dreamdiff.pretraining.pretrain import augment

    with CARD:
        model = MaskedSignalModel(
            MaskedSignalConfig.model_validate({"encoder": SMALL, "decoder": {"width": 16, "depth": 1, "heads": 2}})
        )
        eeg, index = torch.zeros(3, 6, 64), torch.arange(3)
    with Copies() as copies:
        draw = Draw(0, 0, index, CARD)
        moved = augment(eeg, Augmentation(shift=5, reverse=0.5, gain=0.1), draw)
        loss = model.loss(moved, noise=draw.uniform("mask", model.config.encoder.tokens))

    assert (loss.device.type, copies.n) == ("cuda", 0)


@pytest.mark.parametrize("preset", ["paper", "released", "lora", "kv"])
def test_a_step_of_fine_tuning_copies_nothing(fake, preset) -> None:
    """Noise, latents, time steps and dropped trials belong to the trial and are made on the card."""
    config = finetuning(preset, "losses.guidance_dropout=0.1", "losses.w_contrastive=1")
    with CARD:
        trained = blank_parts(config, SHAPES)
        batch, _ = blank_batch(config, SHAPES, 4)
        schedule, index = NoiseSchedule(torch.linspace(0.99, 0.01, 1000), "epsilon"), torch.arange(4)
    from dreamdiff.finetuning.task import FinetuneTask

    task = FinetuneTask.__new__(FinetuneTask)
    task.config, task.module, task.schedule = config, trained, schedule
    task.model = SimpleNamespace(vae=SimpleNamespace(config=SimpleNamespace(scaling_factor=0.18)))  # type: ignore[assignment]
    with Copies() as copies:
        losses = task.step({"index": index, **batch}, Draw(0, 0, index, CARD))

    assert (losses["loss"].device.type, losses["loss"].dtype, copies.n) == ("cuda", torch.float32, 0)


@pytest.mark.parametrize("maps", ["shared", "per-person"])
def test_a_step_of_alignment_copies_nothing(fake, maps) -> None:
    """Maps of people are gathered, not looked up one after the other."""
    from dreamdiff.alignment.config import AlignConfig
    from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder
    from dreamdiff.alignment.task import AlignTask
    from dreamdiff.encoders.frontend import FrontEndConfig

    front = FrontEndConfig(channels=6, samples=128, sfreq=128.0, window=64)
    target = {"name": "t", "fingerprint": "f", "width": 12}
    shape = {
        "front": front.model_dump(),
        "encoder": {"kind": "conv", "channels": 6, "window": 64},
        "people": ("a", "b"),
        "maps": maps,
    }
    with CARD:
        model = AlignedEncoder(AlignedConfig.model_validate({**shape, "targets": [target]}))
        batch = {
            "eeg": torch.zeros(4, 6, 64), "person": torch.tensor([0, 1, 1, 0], device=CARD), "image": torch.arange(4),
            "target0": torch.ones(4, 12), "index": torch.arange(4),
        }  # fmt: skip
    task = AlignTask.__new__(AlignTask)
    task.config, task.model = AlignConfig(shift=3), model
    with Copies() as copies:
        loss = task.step(batch, Draw(0, 0, batch["index"], CARD))["loss"]

    assert (loss.device.type, copies.n) == ("cuda", 0)


class Plain:
    """A sampler without numpy or item(), so that only our code is tried."""

    init_noise_sigma, config = 1.0, {"num_train_timesteps": 1000}

    def __init__(self) -> None:
        self.config = SimpleNamespace(num_train_timesteps=1000, get=lambda *_: None)

    def set_timesteps(self, n, device=None):
        self.timesteps = torch.arange(n, device=device)

    def scale_model_input(self, x, t):
        return x

    def step(self, out, t, x, eta=0.0, generator=None):
        return SimpleNamespace(prev_sample=x - 0.1 * out)


class Elsewhere(torch.nn.Module):
    """How a part looks under model offload: its `.device` is the host's, its forward runs and answers on the card."""

    def __init__(self, inner) -> None:
        super().__init__()
        self.__dict__["inner"] = inner

    def __getattr__(self, name):
        return getattr(self.__dict__["inner"], name)

    device = property(lambda self: torch.device("cpu"))
    dtype = property(lambda self: torch.float32)

    def forward(self, *given, **named):
        there = lambda v: v.to(CARD) if isinstance(v, torch.Tensor) else v  # noqa: E731
        return self.__dict__["inner"](*map(there, given), **{n: there(v) for n, v in named.items()})


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_pipeline_mixes_no_devices(fake, scale, offload) -> None:
    """Also when offloading has put the U-Net's weights on the host."""
    from dreamdiff.diffusion.conditioner import Conditioner
    from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
    from dreamdiff.finetuning.step import conditioner_config

    with CARD:
        network, brain = unet(), encoder()
        conditioner = Conditioner(conditioner_config(finetuning("paper"), brain, network, clip_width=CLIP_WIDTH))
        pipe = DreamDiffusionPipeline(
            network, vae(), make_scheduler("dpm-solver++", BASE), brain, conditioner, PipelineConfig(guidance_trained=True)
        )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = Plain()
    if offload:
        pipe.unet = Elsewhere(pipe.unet)
    with Copies() as copies:
        made = pipe(
            torch.zeros(2, 6, 64), num_inference_steps=5, guidance_scale=scale, output_type="pt", generator=torch.Generator()
        )

    assert made.images.device.type == "cuda" and (offload or copies.n <= 3)


def test_the_frozen_networks_read_on_the_card(fake) -> None:
    """VAE, CLIP with its texts, and the calibration of tau."""
    import open_clip
    from tiny_models import tiny_clip_config

    from dreamdiff.diffusion.clip import ClipTarget
    from dreamdiff.diffusion.conditioner import Conditioner
    from dreamdiff.finetuning.data import image_moments
    from dreamdiff.finetuning.step import conditioner_config

    with CARD:
        tower = open_clip.model.CLIP(**tiny_clip_config())
        network, brain, pictures = unet(), encoder(), vae()
        conditioner = Conditioner(conditioner_config(finetuning("paper"), brain, network, clip_width=CLIP_WIDTH))
    clip = ClipTarget(
        tower, "x", {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}, True
    )

    assert clip.text_states(["a"]).device.type == "cuda" and clip.encode_text(["a"]).shape == (1, CLIP_WIDTH)
    assert image_moments(pictures, np.zeros((2, 32, 32, 3), np.uint8)).shape[0] == 2
    latent_BLD = brain(torch.from_numpy(np.zeros((2, 6, 64), np.float32)))  # from the host: an encoder brings EEG to where it is
    conditioner.calibrate(latent_BLD, 0.0, 1.0)
    assert conditioner(latent_BLD).tokens_BLD.shape == (2, 77, CONTEXT_WIDTH)


def test_numbers_of_samples_given_as_a_list_halt_no_device(fake) -> None:
    with Copies() as copies:
        noise = Draw(0, 0, [4, 5, 6], CARD).normal("noise", 2)

    assert (noise.device.type, noise.shape, copies.n) == ("cuda", (3, 2), 0)


def test_both_steps_are_one_graph() -> None:
    """`fullgraph` makes a break of the graph an error; gradients equal those of the step as it is."""
    torch.manual_seed(0)
    model = MaskedSignalModel(
        MaskedSignalConfig.model_validate({"encoder": SMALL, "decoder": {"width": 16, "depth": 1, "heads": 2}})
    )
    eeg = torch.randn(3, 6, 64)
    noise = Draw(0, 0, torch.arange(3)).uniform("mask", model.config.encoder.tokens)
    whole = torch.compile(model.loss, fullgraph=True, backend="eager")
    assert torch.equal(whole(eeg, noise=noise), model.loss(eeg, noise=noise))

    config = finetuning("paper", "losses.guidance_dropout=0.1")
    trained = blank_parts(config, SHAPES)
    batch, random = blank_batch(config, SHAPES, 4)
    schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 1000), "epsilon")

    def gradients(step) -> tuple[float, float]:
        trained.zero_grad()
        loss = step(trained, config, schedule, 0.18, batch, random)["loss"]
        loss.backward()
        return float(loss.detach()), sum(float(p.grad.abs().sum()) for p in trained.parameters() if p.grad is not None)

    assert gradients(torch.compile(losses_of, fullgraph=True, backend="aot_eager")) == pytest.approx(
        gradients(losses_of), rel=1e-4
    )


def test_memory_of_a_step_is_what_a_real_step_takes() -> None:
    """The same count for a step on the CPU, whose allocations PyTorch's profiler records; within a quarter."""

    def build():
        torch.manual_seed(0)
        layers: list[torch.nn.Module] = []
        for _ in range(6):
            layers += [torch.nn.Linear(256, 256), torch.nn.GELU()]
        network = torch.nn.Sequential(*layers)
        x = torch.zeros(4096, 256)
        return network, lambda: network(x).square().mean()

    estimate = step_memory(build, device="cpu")
    network, run = build()
    optimizer = torch.optim.AdamW(network.parameters())
    run().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    peak = allocated_peak(lambda: run().backward())
    parameters = sum(p.numel() for p in network.parameters())

    assert estimate.weights == 4 * parameters and estimate.trained == 12 * parameters
    assert estimate.kept + estimate.passing + 4 * parameters == pytest.approx(peak, rel=0.25)


def test_memory_of_fine_tuning_follows_the_settings() -> None:
    """Checkpointing keeps less, half precision weighs less, adapters train less."""

    def needed(precision: str, *assignments: str):
        return finetune_memory(finetuning("paper", "data.batch_size=8", *assignments), SHAPES, precision)

    plain = needed("fp32")
    assert needed("fp32", "what.gradient_checkpointing=true").kept < 0.8 * plain.kept
    assert needed("bf16").weights < 0.8 * plain.weights
    assert needed("fp32", "what.trains=lora").trained < plain.trained
    assert needed("fp32", "optim.eight_bit=true").trained == pytest.approx(plain.trained / 2, rel=1e-6)
    assert needed("fp32", "data.batch_size=16").kept == pytest.approx(2 * plain.kept, rel=0.1)


def test_memory_of_sdxl_follows_its_published_size() -> None:
    """2.57 billion parameters in bf16 are 5.1 GB, beside the decoder's 0.1; guidance adds activations, not weights."""
    from dreamdiff.generation.sizes import SDXL, generation_memory, sd15

    plain, guided = (
        generation_memory(SDXL, sd15("vae"), batch=1, guided=both, dtype=torch.bfloat16, side=64) for both in (False, True)
    )

    assert plain.weights == guided.weights == 2 * (2_567_463_684 + 83_653_863)
    assert plain.trained == plain.kept == 0 and 0 < plain.passing <= guided.passing < plain.weights
