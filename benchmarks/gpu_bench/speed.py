"""How fast every stage is, and in times of plain diffusers."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamdiff.diffusion.adapters import TOKENS, VIT_H, ImageAdapter, VectorSpace
from dreamdiff.diffusion.noise import make_scheduler
from dreamdiff.diffusion.sampling import Condition
from dreamdiff.diffusion.vector_generator import VectorGenerator
from dreamdiff.generation.sizes import SDXL
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.training.history import read_history
from gpu_bench.bench import Bench, training_step
from gpu_bench.parts import (
    SMALL_UNET,
    align_loss,
    corpus,
    finetune_config,
    finetune_loss,
    msm_config,
    msm_parts,
    pipeline,
    sd_config,
    shapes,
    unet_of,
)


def check_msm(bench: Bench) -> None:
    """A step of the paper's model, compiled; share of the rate of a plain matrix product."""
    model, eeg, noise = msm_parts(bench)
    with FlopCounterMode(display=False) as counter:
        model.loss(eeg, noise=noise).backward()
    model.zero_grad(set_to_none=True)
    loss = model.loss if bench.tiny else torch.compile(model.loss)
    seconds = bench.seconds(training_step(model, lambda: loss(eeg, noise=noise), bench.precision, bench.device))
    bench.row("msm: windows a second", len(eeg) / seconds, "/s")
    bench.row(
        "msm: operations, share of a plain matrix product's rate",
        100 * counter.get_total_flops() / seconds / bench.peak_rate(),
        "%",
        40,
    )


def check_loader(bench: Bench) -> None:
    """The whole command's loop on a corpus on disk."""
    steps = 6 if bench.tiny else 120
    config = msm_config(bench, f"loop.max_steps={steps}", "loop.epochs=1000", f"loop.validate_steps={steps}")
    pretrain(corpus(bench), bench.work / "loader", config)
    lines = [line for line in read_history(bench.work / "loader") if "wait_share" in line]
    bench.row(
        "loader: share of the time that training waits for windows",
        100 * statistics.median(x["wait_share"] for x in lines),
        "%",
        2,
        "at most",
    )
    bench.row("loader: windows a second in the whole loop", statistics.median(x["per_second"] for x in lines), "/s")


def check_align(bench: Bench) -> None:
    """A step on shapes of THINGS-EEG2."""
    model, loss = align_loss(bench)
    seconds = bench.seconds(training_step(model, loss, bench.precision, bench.device))
    bench.row("align: trials a second, THINGS-EEG2 shapes, conv encoder", (16 if bench.tiny else 1024) / seconds, "/s")


def check_finetune(bench: Bench) -> None:
    """Our step against the training loop that diffusers' own examples have: the same U-Net, batch, trained weights and precision."""
    module, loss = finetune_loss(bench, bench.precision)
    from diffusers import DDPMScheduler

    config, size = finetune_config(bench), shapes(bench)
    with bench.device:
        unet = size.unet().train().requires_grad_(False)
        clean, noise = (torch.randn(config.data.batch_size, 4, size.side, size.side) for _ in range(2))
        context = torch.randn(config.data.batch_size, 77, int(unet.config.cross_attention_dim), requires_grad=True)
        when = torch.randint(1000, (config.data.batch_size,))
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(".attn2." in name)
    scheduler = DDPMScheduler()

    def plain() -> Tensor:
        predicted = unet(scheduler.add_noise(clean, noise, when), when, encoder_hidden_states=context).sample
        return nn.functional.mse_loss(predicted.float(), noise.float())

    ours, theirs = bench.compared(
        training_step(module, loss, bench.precision, bench.device), training_step(unet, plain, bench.precision, bench.device)
    )
    bench.row("finetune: steps a second, Stable Diffusion 1.5, EEG encoder included", 1 / ours, "/s")
    bench.row("finetune: our time, in times of plain diffusers without an encoder", ours / theirs, "x", 1.15, "at most")


@torch.no_grad()
def check_generate(bench: Bench) -> None:
    """20 steps of DPM-Solver++ against the same loop written with diffusers alone."""
    dtype = torch.float32 if bench.tiny else torch.bfloat16
    pipe, batch = pipeline(bench, bench.device, dtype), 2 if bench.tiny else 8
    eeg = torch.randn(batch, 128, 512, device=bench.device)
    steps = 4 if bench.tiny else 20
    tokens = pipe.encode(eeg).tokens_BLD.to(dtype)
    side = int(pipe.unet.config.sample_size)

    def plain() -> object:
        pipe.scheduler.set_timesteps(steps, device=bench.device)
        state = torch.randn(batch, 4, side, side, device=bench.device, dtype=dtype) * pipe.scheduler.init_noise_sigma
        for t in pipe.scheduler.timesteps:
            eps = pipe.unet(pipe.scheduler.scale_model_input(state, t), t, encoder_hidden_states=tokens).sample
            state = pipe.scheduler.step(eps, t, state).prev_sample
        return pipe.vae.decode(state / pipe.vae.config.scaling_factor).sample.float().cpu()

    def ours() -> object:
        return pipe(
            eeg, num_inference_steps=steps, output_type="pt", generator=[torch.Generator().manual_seed(k) for k in range(batch)]
        ).images.cpu()

    taken, bare = bench.compared(ours, plain, rounds=5, before=2)
    bench.row(f"generate: pictures a second, Stable Diffusion 1.5, {steps} steps", batch / taken, "/s")
    bench.row("generate: our time, in times of plain diffusers", taken / bare, "x", 1.05, "at most")


@torch.no_grad()
def check_turbo(bench: Bench) -> None:
    """SDXL-Turbo with an IP-Adapter: image vectors to pictures of 512 pixels in 4 steps."""
    from diffusers import AutoencoderKL

    config: dict[str, Any] = (
        {**SDXL, "sample_size": 64}
        if not bench.tiny
        else {
            **SMALL_UNET,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 6 * 4 + 12,
        }
    )
    width, context, dtype = (16, 24, torch.float32) if bench.tiny else (1024, 2048, torch.bfloat16)
    with bench.device:
        unet = unet_of(config)().to(dtype).eval().requires_grad_(False)
        vae = AutoencoderKL.from_config(sd_config(bench, "vae")).to(dtype).eval().requires_grad_(False)
    tensors = {
        "image_proj.proj.weight": torch.randn(TOKENS * context, width) * 0.01,
        "image_proj.proj.bias": torch.zeros(TOKENS * context),
    }
    tensors |= {"image_proj.norm.weight": torch.ones(context), "image_proj.norm.bias": torch.zeros(context)}
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(layers):
        hidden = unet.get_submodule(name.removesuffix(".processor")).to_q.out_features
        for part in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{part}.weight"] = torch.randn(hidden, context) * 0.01
    adapter = ImageAdapter("random", VectorSpace(VIT_H, width), tensors)
    adapter.attach(unet)
    unet.to(bench.device, dtype)
    pooled = int(config["projection_class_embeddings_input_dim"]) - 6 * int(config["addition_time_embed_dim"])

    def conditions(vectors: Tensor, _: object) -> tuple[Condition, None]:
        n = len(vectors)
        return Condition(torch.zeros(n, 77, context), None, vectors, torch.zeros(n, pooled), torch.full((n, 6), 512.0)), None

    schedule = make_scheduler(
        "euler-a", {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    )
    size = int(config["sample_size"]) * 2 ** (len(vae.config.block_out_channels) - 1)
    turbo = VectorGenerator(unet, vae, schedule, adapter.reads, conditions, "SDXL-Turbo, random weights", 1.0, size)
    batch = 2 if bench.tiny else 8
    vectors = torch.randn(batch, width)
    seconds = bench.seconds(lambda: turbo(vectors, [torch.Generator().manual_seed(k) for k in range(batch)], steps=4), 5, 2)
    bench.row("generate: pictures a second, SDXL-Turbo with adapter, 4 steps", batch / seconds, "/s")
