"""Everything that only a GPU can say, in one file: at most 9 minutes on one H100, random weights, no data beyond the package.

    python benchmarks/gpu.py [--device cuda] [--json gpu.json] [--only msm,loader] [--minutes 9]
    python benchmarks/gpu.py --tiny            # a dry run on two CPU cores: small sizes, the same code

Prints a table with the card's name and writes JSON. A goal that is missed says MISSED; figures of a dry run are no measurements of speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dreamdiff.alignment.config import AlignConfig
from dreamdiff.alignment.model import AlignedConfig, AlignedEncoder
from dreamdiff.alignment.task import AlignTask
from dreamdiff.devices import choose_device, mixed, used
from dreamdiff.diffusion.adapters import TOKENS, VIT_H, ImageAdapter, VectorSpace
from dreamdiff.diffusion.conditioner import Conditioner
from dreamdiff.diffusion.noise import NoiseSchedule, make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
from dreamdiff.diffusion.sampling import Condition
from dreamdiff.diffusion.vector_generator import VectorGenerator
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.frontend import FrontEndConfig
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.finetuning.config import FINETUNE_PRESETS, FinetuneConfig
from dreamdiff.finetuning.step import Shapes, blank_batch, blank_parts, conditioner_config, finetune_memory, losses_of
from dreamdiff.generation.sizes import SDXL, sd15
from dreamdiff.memory import HostReads, allocated_peak, step_memory
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.training.history import read_history
from dreamdiff.training.task import Draw
from eegprep.corpus.export import from_arrays
from eegprep.settings import resolve

# fmt: off
SMALL_UNET = {
    "sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (16, 32), "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24, "attention_head_dim": 2
}
SMALL_VAE = {
    "block_out_channels": (8, 8, 16), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4, "sample_size": 32,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3
}

@dataclass
class Bench:
    """device: measured. tiny: a dry run. found: the rows of the table."""
    device: torch.device
    tiny: bool
    work: Path
    found: list[dict[str, Any]] = field(default_factory=list)
    @property
    def precision(self) -> str:
        return "bf16" if self.device.type == "cuda" else "fp32"
    def row(self, what: str, value: float, unit: str, goal: float | None = None, better: str = "at least") -> None:
        """Add a row. A goal is judged on a GPU only, unless it is one of correctness (unit: yes, or a difference)."""
        met = None
        if goal is not None and (self.device.type == "cuda" or unit in ("yes", "rel.")):
            met = value >= goal if better == "at least" else value <= goal
        self.found.append({"what": what, "value": value, "unit": unit, "goal": goal, "better": better, "met": met})
        told = "" if goal is None else f"   goal: {better} {goal:g} {'' if met is None else 'met' if met else 'MISSED'}"
        print(f"{what:<66} {value:>11.4g} {unit:<10}{told}", flush=True)
    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
    def seconds(self, run: Callable[[], object], rounds: int = 10, before: int = 3) -> float:
        """Median of a call."""
        rounds, before = (2, 1) if self.tiny else (rounds, before)
        times = []
        for number in range(before + rounds):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            if number >= before:
                times.append(time.perf_counter() - started)
        return statistics.median(times)
    def peak_rate(self) -> float:
        """Operations a second of a plain matrix product in this precision: what the device gives at best."""
        n, dtype = (256, torch.float32) if self.tiny else (8192, torch.bfloat16)
        a, b = (torch.randn(n, n, device=self.device, dtype=dtype) for _ in range(2))
        return 2 * n**3 / self.seconds(lambda: a @ b)

@contextlib.contextmanager
def no_halts(bench: Bench) -> Iterator[HostReads]:
    """A block in which a hidden synchronisation is an error (GPU) or counted (CPU)."""
    counted = HostReads()
    if bench.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        with counted if bench.device.type == "cpu" else contextlib.nullcontext():
            yield counted
    finally:
        if bench.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")

def msm_config(bench: Bench, *more: str) -> PretrainConfig:
    preset = "tiny" if bench.tiny else "paper"
    always = ["loop.tracker=none", f"loop.device={bench.device}", f"data.batch_size={8 if bench.tiny else 128}", "data.validation=none"]
    return resolve(PretrainConfig, presets=PRETRAIN_PRESETS, preset=preset, assignments=[*always, *more])

def corpus(bench: Bench) -> Path:
    path = bench.work / "corpus.zarr"
    if not path.exists():
        windows = np.random.default_rng(0).normal(0, 10, (96 if bench.tiny else 6000, 128, 512)).astype(np.float32)
        from_arrays(path, windows, sfreq=512.0, licence="CC0-1.0")
    return path

def training_step(module: nn.Module, loss: Callable[[], Tensor], precision: str, device: torch.device) -> Callable[[], Tensor]:
    """Forward, backward, clipping and AdamW of one batch, as the loop has them."""
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    def step() -> Tensor:
        with mixed(precision, device):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value.detach()
    return step

def msm_parts(bench: Bench) -> tuple[MaskedSignalModel, Tensor, Tensor]:
    config = msm_config(bench)
    with bench.device:
        model = MaskedSignalModel(config.model).train()
        eeg = torch.randn(config.data.batch_size, 128, 512)
    noise = Draw(0, 0, torch.arange(len(eeg)), bench.device).uniform("mask", model.config.encoder.tokens)
    return model, eeg, noise

def finetune_config(bench: Bench, *more: str) -> FinetuneConfig:
    size = 4 if bench.tiny else 8
    return resolve(FinetuneConfig, presets=FINETUNE_PRESETS, preset="paper", assignments=[f"data.batch_size={size}", *more])

def unet_of(config: dict[str, Any]) -> Callable[[], nn.Module]:
    from diffusers import UNet2DConditionModel
    return lambda: UNet2DConditionModel.from_config(config)

def sd_config(bench: Bench, part: str) -> dict[str, Any]:
    small = SMALL_UNET if part == "unet" else SMALL_VAE
    return small if bench.tiny else sd15(part)

def shapes(bench: Bench) -> Shapes:
    config = sd_config(bench, "unet")
    return Shapes(lambda: EEGEncoder.from_preset("tiny" if bench.tiny else "paper"), unet_of(config), (128, 512), int(config["sample_size"]), 20 if bench.tiny else 768)

def finetune_loss(bench: Bench, precision: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    config = finetune_config(bench, "losses.guidance_dropout=0.1")
    with bench.device:
        trained = blank_parts(config, shapes(bench), precision)
        batch, random = blank_batch(config, shapes(bench), config.data.batch_size)
        schedule = NoiseSchedule(torch.linspace(0.99, 0.01, 1000), "epsilon")
    return trained, lambda: losses_of(trained, config, schedule, 0.18215, batch, random)["loss"]

def align_loss(bench: Bench) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Shapes of THINGS-EEG2: 63 channels, one second at 250 Hz, batches of 1,024, vectors of ViT-H/14."""
    channels, batch, width = (8, 16, 32) if bench.tiny else (63, 1024, 1024)
    front = FrontEndConfig(channels=channels, samples=250, sfreq=250.0, rate=250.0, window=250)
    shape = {"front": front.model_dump(), "encoder": {"kind": "conv", "channels": channels, "window": 250}, "people": tuple("abcdefghij")}
    target = {"name": "t", "fingerprint": "f", "width": width}
    with bench.device:
        model = AlignedEncoder(AlignedConfig.model_validate({**shape, "targets": [target]})).train()
        given = {
            "eeg": torch.randn(batch, channels, 250), "person": torch.arange(batch) % 10, "image": torch.arange(batch),
            "index": torch.arange(batch), "target0": torch.randn(batch, width)
        }
    task = AlignTask.__new__(AlignTask)
    task.config, task.model = AlignConfig(shift=4), model
    return model, lambda: task.step(given, Draw(0, 0, given["index"], bench.device))["loss"]

def pipeline(bench: Bench, device: torch.device, dtype: torch.dtype) -> DreamDiffusionPipeline:
    from diffusers import AutoencoderKL
    base = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    torch.manual_seed(0)
    with bench.device:
        unet, brain = shapes(bench).unet(), EEGEncoder.from_preset("tiny")
        vae = AutoencoderKL.from_config(sd_config(bench, "vae"))
        conditioner = Conditioner(conditioner_config(finetune_config(bench), brain, unet, clip_width=8))
    parts = [part.to(device).eval().requires_grad_(False) for part in (unet, vae, brain, conditioner)]
    for part in parts[:2]:
        part.to(dtype)
    pipe = DreamDiffusionPipeline(parts[0], parts[1], make_scheduler("dpm-solver++", base), parts[2], parts[3], PipelineConfig())
    pipe.set_progress_bar_config(disable=True)
    return pipe

def check_msm(bench: Bench) -> None:
    """A step of the paper's model, compiled; share of the rate of a plain matrix product."""
    model, eeg, noise = msm_parts(bench)
    with FlopCounterMode(display=False) as counter:
        model.loss(eeg, noise=noise).backward()
    model.zero_grad(set_to_none=True)
    loss = model.loss if bench.tiny else torch.compile(model.loss)
    seconds = bench.seconds(training_step(model, lambda: loss(eeg, noise=noise), bench.precision, bench.device))
    bench.row("msm: windows a second", len(eeg) / seconds, "/s")
    bench.row("msm: operations, share of a plain matrix product's rate", 100 * counter.get_total_flops() / seconds / bench.peak_rate(), "%", 40)

def check_loader(bench: Bench) -> None:
    """The whole command's loop on a corpus on disk."""
    steps = 6 if bench.tiny else 120
    config = msm_config(bench, f"loop.max_steps={steps}", "loop.epochs=1000", f"loop.validate_steps={steps}")
    pretrain(corpus(bench), bench.work / "loader", config)
    lines = [line for line in read_history(bench.work / "loader") if "wait_share" in line]
    bench.row("loader: share of the time that training waits for windows", 100 * statistics.median(x["wait_share"] for x in lines), "%", 2, "at most")
    bench.row("loader: windows a second in the whole loop", statistics.median(x["per_second"] for x in lines), "/s")

def check_align(bench: Bench) -> None:
    """A step on shapes of THINGS-EEG2."""
    model, loss = align_loss(bench)
    seconds = bench.seconds(training_step(model, loss, bench.precision, bench.device))
    bench.row("align: trials a second, THINGS-EEG2 shapes, conv encoder", (16 if bench.tiny else 1024) / seconds, "/s")

def check_finetune(bench: Bench) -> None:
    """Our step against the training loop that diffusers' own examples have: the same U-Net, batch, trained weights and precision."""
    module, loss = finetune_loss(bench, bench.precision)
    ours = bench.seconds(training_step(module, loss, bench.precision, bench.device))
    del module, loss
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
    theirs = bench.seconds(training_step(unet, plain, bench.precision, bench.device))
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
        return pipe(eeg, num_inference_steps=steps, output_type="pt", generator=[torch.Generator().manual_seed(k) for k in range(batch)]).images.cpu()
    mine, bare = bench.seconds(ours, 5, 2), bench.seconds(plain, 5, 2)
    bench.row(f"generate: pictures a second, Stable Diffusion 1.5, {steps} steps", batch / mine, "/s")
    bench.row("generate: our time, in times of plain diffusers", mine / bare, "x", 1.05, "at most")

@torch.no_grad()
def check_turbo(bench: Bench) -> None:
    """SDXL-Turbo with an IP-Adapter: image vectors to pictures of 512 pixels in 4 steps."""
    from diffusers import AutoencoderKL
    config: dict[str, Any] = {**SDXL, "sample_size": 64} if not bench.tiny else {
        **SMALL_UNET, "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + 12
    }
    width, context, dtype = (16, 24, torch.float32) if bench.tiny else (1024, 2048, torch.bfloat16)
    with bench.device:
        unet = unet_of(config)().to(dtype).eval().requires_grad_(False)
        vae = AutoencoderKL.from_config(sd_config(bench, "vae")).to(dtype).eval().requires_grad_(False)
    tensors = {"image_proj.proj.weight": torch.randn(TOKENS * context, width) * 0.01, "image_proj.proj.bias": torch.zeros(TOKENS * context)}
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
    schedule = make_scheduler("euler-a", {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000})
    size = int(config["sample_size"]) * 2 ** (len(vae.config.block_out_channels) - 1)
    turbo = VectorGenerator(unet, vae, schedule, adapter.reads, conditions, "SDXL-Turbo, random weights", 1.0, size)
    batch = 2 if bench.tiny else 8
    vectors = torch.randn(batch, width)
    seconds = bench.seconds(lambda: turbo(vectors, [torch.Generator().manual_seed(k) for k in range(batch)], steps=4), 5, 2)
    bench.row("generate: pictures a second, SDXL-Turbo with adapter, 4 steps", batch / seconds, "/s")

def check_equal(bench: Bench) -> None:
    """Every stage on this device and on the CPU, fp32: relative differences."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    small = Bench(torch.device("cpu"), True, bench.work)
    index = torch.arange(4)
    def both(make: Callable[[torch.device], Tensor]) -> float:
        here, there = make(torch.device("cpu")).double(), make(bench.device).cpu().double()
        return float((here - there).abs().max() / here.abs().max().clamp_min(1e-12))
    model, eeg, _ = msm_parts(small)
    module, loss = finetune_loss(small, "fp32")
    aligned, align = align_loss(small)
    def msm_at(device: torch.device) -> Tensor:
        noise = Draw(0, 0, index, device).uniform("mask", model.config.encoder.tokens)
        return model.to(device).loss(eeg[:4].to(device), noise=noise).detach()[None]
    def finetune_at(device: torch.device) -> Tensor:
        torch.manual_seed(0)
        there = Bench(device, True, bench.work)
        fresh, value = finetune_loss(there, "fp32")
        fresh.load_state_dict({name: tensor.to(device) for name, tensor in module.state_dict().items()})
        return value().detach()[None]
    def align_at(device: torch.device) -> Tensor:
        x, person = torch.linspace(-1, 1, 16 * 8 * 250).reshape(16, 8, 250), torch.arange(16) % 10
        return aligned.eval().to(device)(x.to(device), person.to(device))[0].detach()
    def picture_at(device: torch.device) -> Tensor:
        pipe = pipeline(small, device, torch.float32)
        dice = [torch.Generator().manual_seed(k) for k in range(2)]
        return pipe(torch.ones(2, 128, 512), num_inference_steps=4, output_type="pt", generator=dice).images
    del loss, align
    for name, make in (("random numbers", lambda d: Draw(0, 0, index, d).normal("x", 1000)), ("msm", msm_at), ("finetune", finetune_at), ("align", align_at), ("generate", picture_at)):
        bench.row(f"equal on CPU and {bench.device.type}: {name}", both(make), "rel.", 1e-4, "at most")

def check_resume(bench: Bench) -> None:
    """A run stopped at half its steps and continued, against one that was not: the same weights."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    small = Bench(bench.device, True, bench.work)
    runs = {}
    for name, stops in (("whole", (6,)), ("halves", (3, 6))):
        for steps in stops:
            config = msm_config(small, f"loop.max_steps={steps}", "optim.schedule=constant", "loop.precision=fp32")
            pretrain(corpus(small), bench.work / f"resume-{name}", config)
        runs[name] = MaskedSignalModel.from_pretrained(bench.work / f"resume-{name}").state_dict()
    torch.use_deterministic_algorithms(False)
    equal = all(torch.equal(runs["whole"][name], runs["halves"][name]) for name in runs["whole"])
    bench.row("resume: weights equal bit for bit after a stop", float(equal), "yes", 1)

def check_halts(bench: Bench) -> None:
    """No number is read on the host within a step."""
    model, eeg, noise = msm_parts(bench)
    steps = {
        "msm": training_step(model, lambda: model.loss(eeg, noise=noise), bench.precision, bench.device),
        "finetune": training_step(*finetune_loss(bench, bench.precision), bench.precision, bench.device),
        "align": training_step(*align_loss(bench), bench.precision, bench.device),
    }
    for name, step in steps.items():
        step()
        bench.wait()
        fine = 1.0
        try:
            with no_halts(bench) as counted:
                step()
            fine = float(counted.n == 0)
        except RuntimeError as error:
            print(f"    {name}: {str(error).splitlines()[0][:160]}")
            fine = 0.0
        bench.row(f"no hidden synchronisation: {name}", fine, "yes", 1)

def check_memory(bench: Bench) -> None:
    """Peak of a step against the estimate that `--dry-run` prints."""
    config = msm_config(bench)
    def build() -> tuple[nn.Module, Callable[[], Tensor]]:
        model = MaskedSignalModel(config.model)
        eeg, noise = (torch.zeros(config.data.batch_size, 128, 512), torch.zeros(config.data.batch_size, config.model.encoder.tokens))
        return model, lambda: model.loss(eeg, noise=noise)
    def msm() -> tuple[nn.Module, Callable[[], Tensor]]:
        model, eeg, noise = msm_parts(bench)
        return model, lambda: model.loss(eeg, noise=noise)
    kind = bench.device.type
    jobs = {
        "msm": (step_memory(build, precision=bench.precision, device=kind), msm),
        "finetune": (
            finetune_memory(finetune_config(bench, "losses.guidance_dropout=0.1"), shapes(bench), bench.precision, device=kind),
            lambda: finetune_loss(bench, bench.precision),
        ),
    }
    for name, (estimate, make) in jobs.items():
        peak = peak_of(bench, make)
        bench.row(f"memory: {name}, peak of a step", peak / 1e9, "GB")
        bench.row(f"memory: {name}, estimate over peak", estimate.total / peak, "x")

def peak_of(bench: Bench, make: Callable[[], tuple[nn.Module, Callable[[], Tensor]]]) -> float:
    """Bytes at the peak of the second step, with weights and moments; on a CPU as PyTorch's profiler records allocations."""
    if bench.device.type == "cuda":
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(bench.device)
        step = training_step(*make(), bench.precision, bench.device)
        step()
        torch.cuda.reset_peak_memory_stats(bench.device)
        step()
        return float(torch.cuda.max_memory_allocated(bench.device) - before)
    module, loss = make()
    step = training_step(module, loss, bench.precision, bench.device)
    step()
    held = sum(p.numel() * (p.element_size() + 8 * p.requires_grad) for p in module.parameters())
    return allocated_peak(step) + held

CHECKS: dict[str, Callable[[Bench], None]] = {
    "msm": check_msm, "loader": check_loader, "align": check_align, "finetune": check_finetune, "generate": check_generate,
    "turbo": check_turbo, "equal": check_equal, "resume": check_resume, "halts": check_halts, "memory": check_memory
}

def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes on the CPU: a dry run of this file")
    parser.add_argument("--only", help=f"some of {', '.join(CHECKS)}")
    parser.add_argument("--minutes", type=float, default=9.0, help="no check begins after so long")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()  # it warns about precisions that are asked for here
    device = choose_device("cpu" if options.tiny else options.device)
    started, failed, skipped = time.monotonic(), {}, []
    facts = used(device, "bf16" if device.type == "cuda" else "fp32")
    print(f"{facts.get('device_name', device)}, PyTorch {torch.__version__}{', DRY RUN at small sizes: no measurement of speed' if options.tiny else ''}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, options.tiny, Path(folder))
        for name in options.only.split(",") if options.only else CHECKS:
            if time.monotonic() - started > 60 * options.minutes:
                skipped.append(name)
                continue
            try:
                CHECKS[name](bench)
            except Exception as error:  # a check that fails must not cost the others their turn on a lent card
                failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
                print(f"{name}: FAILED, {failed[name]}")
            if device.type == "cuda":
                torch.cuda.empty_cache()
    missed = [row["what"] for row in bench.found if row["met"] is False]
    content = {"dry_run": options.tiny, "computed": facts, "torch": torch.__version__, "rows": bench.found, "failed": failed, "skipped": skipped}
    options.json.write_text(json.dumps(content, indent=2))
    print(f"{len(bench.found)} rows, {len(missed)} goals missed, {len(failed)} checks failed, {len(skipped)} left out for time; {options.json}")
    return 1 if failed else 0

if __name__ == "__main__":
    raise SystemExit(main())
