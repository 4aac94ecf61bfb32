"""Whether a device computes what the CPU computes, continues exactly, never halts within a step, and takes the memory that was estimated."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.finetuning.step import finetune_memory
from dreamdiff.memory import allocated_peak, step_memory
from dreamdiff.pretraining.pretrain import pretrain
from dreamdiff.training.task import Draw
from gpu_bench.bench import Bench, no_halts, training_step
from gpu_bench.parts import align_loss, corpus, finetune_config, finetune_loss, msm_config, msm_parts, pipeline, shapes


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
    for name, make in (
        ("random numbers", lambda d: Draw(0, 0, index, d).normal("x", 1000)),
        ("msm", msm_at),
        ("finetune", finetune_at),
        ("align", align_at),
        ("generate", picture_at),
    ):
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
        eeg, noise = (
            torch.zeros(config.data.batch_size, 128, 512),
            torch.zeros(config.data.batch_size, config.model.encoder.tokens),
        )
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
