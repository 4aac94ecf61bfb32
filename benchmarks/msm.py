"""Masked signal modelling: as exact as, and faster than, a straightforward build from timm blocks; and does it learn?

    python benchmarks/msm.py                       all parts that this machine can run
    python benchmarks/msm.py speed ratio           some of: speed half ratio memory learn gpu

Times are compared within one run, step by step in turn, so that a busy machine slows both sides. The bars:
speed >= 1.3x in fp32 on a CPU at equal loss (on a processor where PyTorch uses MKL with short vectors, oneDNN is part of it); memory of `paper` at batch 32 below 12 GB; `learn` well below both simple guesses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # the second implementation, from timm blocks

from timm_mae import TimmMAE

from dreamdiff.encoders.config import MaskedSignalConfig, masked_signal_preset
from dreamdiff.encoders.encoder import parameter_count
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.pretraining.config import PRETRAIN_PRESETS, PretrainConfig
from dreamdiff.programs.doctor import cpu_multiplies_bf16
from dreamdiff.training.config import OptimConfig
from dreamdiff.training.optim import adamw, parameter_groups

PEAK_TFLOPS = {"H100": (67.0, 989.0), "H200": (67.0, 989.0), "A100": (19.5, 312.0)}  # dense fp32, bf16; vendor's data sheets


def twins(config: MaskedSignalConfig) -> tuple[MaskedSignalModel, TimmMAE]:
    """Both implementations with the same weights."""
    encoder, decoder = config.encoder, config.decoder
    sizes = (decoder.width, decoder.depth, decoder.heads)
    torch.manual_seed(0)
    theirs = TimmMAE(width=encoder.width, depth=encoder.depth, heads=encoder.heads, mlp_ratio=encoder.mlp_ratio, decoder=sizes)
    ours = MaskedSignalModel(config)
    outside = ("decoder_", "mask_token")
    ours.load_state_dict({n if n.startswith(outside) else f"encoder.{n}": t for n, t in theirs.state_dict().items()})
    return ours, theirs


def speed(preset: str, batch: int, steps: int, compiled: bool) -> None:
    """Whole training steps (forward, backward, AdamW) of both, in turn, and the share of the machine's rate of matrix products."""
    config = masked_signal_preset(preset, "none")
    ours, theirs = twins(config)
    loss_of = torch.compile(ours.loss) if compiled else ours.loss  # what `loop.compile` does
    device = torch.device("cpu")
    ours_optimizer = adamw(parameter_groups(ours, 0.05), OptimConfig(), device)
    theirs_optimizer = torch.optim.AdamW(theirs.parameters(), lr=2.5e-4, betas=(0.9, 0.95), weight_decay=0.05)
    eeg_BCT = torch.randn(batch, 128, 512)

    def our_step(noise_BL: torch.Tensor) -> float:
        loss = loss_of(eeg_BCT, noise=noise_BL)
        loss.backward()
        ours_optimizer.step()
        ours_optimizer.zero_grad()
        return loss.item()

    def their_step(noise_BL: torch.Tensor) -> float:
        loss = theirs(eeg_BCT, noise_BL, 0.75)[0]
        loss.backward()
        theirs_optimizer.step()
        theirs_optimizer.zero_grad()
        return loss.item()

    first = torch.rand(batch, 128)
    gap = abs(our_step(first) - their_step(first))
    our_step(first), their_step(first)
    wall: list[tuple[float, float]] = []
    processor: list[float] = []
    for _ in range(steps):
        noise_BL = torch.rand(batch, 128)
        times = []
        for step in (our_step, their_step):
            wall_start, processor_start = time.perf_counter(), time.process_time()
            step(noise_BL)
            times.append((time.perf_counter() - wall_start, time.process_time() - processor_start))
        wall.append((times[0][0], times[1][0]))
        processor.append(times[1][1] / times[0][1])
    ratio = statistics.median(theirs_s / ours_s for ours_s, theirs_s in wall)
    rate = batch / statistics.median(w[0] for w in wall)
    share = 6 * work(config, config.mask_ratio) * rate / product_rate()
    print(
        f"speed: {preset}, batch {batch}, {parameter_count(ours) / 1e6:.2f} M parameters, {torch.get_num_threads()} threads, "
        f"{'compiled' if compiled else 'not compiled'}, fused AdamW\n"
        f"  ours {rate:.1f} windows/s, timm build "
        f"{batch / statistics.median(w[1] for w in wall):.1f} windows/s: {ratio:.2f}x in wall time, "
        f"{statistics.median(processor):.2f}x in processor time; first losses differ by {gap:.1e}; {share:.0%} of the rate of large matrix products"
    )


def product_rate() -> float:
    """Floating point operations a second of a large fp32 matrix product on this machine."""
    left, right, n = torch.randn(2048, 1024), torch.randn(1024, 2048), []
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        n.append(time.perf_counter() - start)
    return 2 * 2048 * 1024 * 2048 / min(n)


def half(preset: str, batch: int, steps: int) -> None:
    """bf16 autocast against fp32 on this CPU, in turn: whether `loop.precision=bf16` is worth setting."""
    models = [MaskedSignalModel(masked_signal_preset(preset, "none")) for _ in range(2)]
    optimizers = [adamw(parameter_groups(model, 0.05), OptimConfig(), torch.device("cpu")) for model in models]
    eeg_BCT, times = torch.randn(batch, 128, 512), []
    for _ in range(steps + 1):
        pair = []
        for number in (0, 1):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=number == 1):
                loss = models[number].loss(eeg_BCT)
            loss.backward()
            optimizers[number].step()
            optimizers[number].zero_grad()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    ratio = statistics.median(fp32 / bf16 for fp32, bf16 in times[1:])
    has = "has" if cpu_multiplies_bf16() else "has no"
    print(f"half: {preset}, batch {batch}: bf16 {ratio:.2f}x the rate of fp32 (this CPU {has} bf16 products)")


def work(config: MaskedSignalConfig, ratio: float) -> float:
    """Multiply-adds of one forward pass of one window: weights times tokens they touch, and attention."""
    encoder, decoder = config.encoder, config.decoder
    visible, tokens = int(encoder.tokens * (1 - ratio)) + 1, encoder.tokens + 1
    total = (
        encoder.patch * encoder.channels * (encoder.width * visible + decoder.width * tokens)
        + encoder.width * decoder.width * visible
    )
    for width, depth, n in ((encoder.width, encoder.depth, visible), (decoder.width, decoder.depth, tokens)):
        total += depth * (n * width**2 * (4 + 2 * encoder.mlp_ratio) + 2 * n * n * width)
    return total


def ratio(preset: str, batch: int, steps: int) -> None:
    """Step time against the mask ratio, next to the share of work that theory gives."""
    config = masked_signal_preset(preset, "none")
    model, eeg_BCT = MaskedSignalModel(config), torch.randn(batch, 128, 512)
    ratios = (0.0, 0.25, 0.5, 0.75, 0.9)
    times: dict[float, list[float]] = {r: [] for r in ratios}
    for number in range(steps + 1):
        for r in ratios:
            start = time.process_time()
            model.loss(eeg_BCT, mask_ratio=r).backward()
            model.zero_grad()
            if number:
                times[r].append(time.process_time() - start)
    print(f"ratio: {preset}, batch {batch}; forward and backward, share of the time without masking (share of multiply-adds)")
    base = statistics.median(times[0.0])
    for r in ratios:
        print(f"  {r:4.2f} masked: {statistics.median(times[r]) / base:.2f} ({work(config, r) / work(config, 0.0):.2f})")


def memory(preset: str, batch: int) -> None:
    """Largest resident memory of a process that makes two whole steps."""
    script = (
        "import torch; from dreamdiff.encoders.mae import MaskedSignalModel; from dreamdiff.training.optim import *; from dreamdiff.training.config import *\n"
        f"m = MaskedSignalModel.from_preset({preset!r}); o = adamw(parameter_groups(m, .05), OptimConfig(), torch.device('cpu'))\n"
        f"x = torch.randn({batch}, 128, 512)\n"
        "for _ in range(2): m.loss(x).backward(); o.step(); o.zero_grad()\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)"
    )
    peak = float(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    print(f"memory: {preset}, batch {batch}, fp32: {peak:.1f} GB at most (bar: 12)")


def learn(stride: int) -> None:
    """The tiny preset on the sample recordings, one run held out."""
    import eegprep
    from dreamdiff.pretraining.pretrain import pretrain
    from eegprep import settings

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "sample.zarr"
        command = [sys.executable, "-m", "cli", "eegprep", "build", "data_manifests/sample.toml", "--out", str(store)]
        subprocess.run([*command, "--stride", str(stride)], check=True, cwd=ROOT, capture_output=True)
        config = settings.resolve(
            PretrainConfig, presets=PRETRAIN_PRESETS, preset="tiny",
            assignments=["data.validation=recording", "loop.tracker=none", "loop.validate_steps=100000", "data.split_seed=1"],
        )  # fmt: skip
        start = time.perf_counter()
        result = pretrain(store, Path(folder) / "run", config)
        actual = result.validation
        windows = len(eegprep.Corpus.open(store))
        split = json.loads((Path(folder) / "run/validation.json").read_text())["split"]
        print(
            f"learn: tiny, {windows} windows (stride {stride}), held out: {', '.join(split['names'])}; {result.step} steps in "
            f"{time.perf_counter() - start:.0f} s\n  masked loss {actual['loss']:.3f}; visible mean {actual['loss_visible_mean']:.3f} "
            f"({actual['loss'] / actual['loss_visible_mean']:.0%} of it); linear interpolation {actual['loss_interpolation']:.3f} "
            f"({actual['loss'] / actual['loss_interpolation']:.0%} of it); correlation {actual['correlation']:.2f}"
        )


def gpu(preset: str, batch: int, steps: int) -> None:
    """Windows per second, share of the peak, bf16 against fp32, on a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu: none here")
        return
    name, device = torch.cuda.get_device_name(), torch.device("cuda")
    peaks = next((peak for key, peak in PEAK_TFLOPS.items() if key in name), None)
    config = masked_signal_preset(preset, "none")
    for number, dtype in enumerate((torch.float32, torch.bfloat16)):
        model = MaskedSignalModel(config).to(device)
        loss_of = torch.compile(model.loss)
        optimizer = adamw(parameter_groups(model, 0.05), OptimConfig(), device)
        eeg_BCT = torch.randn(batch, 128, 512, device=device)
        for step in range(steps + 5):
            if step == 5:
                torch.cuda.synchronize()
                start = time.perf_counter()
            with torch.autocast("cuda", dtype, enabled=number == 1):
                loss = loss_of(eeg_BCT)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.synchronize()
        rate = steps * batch / (time.perf_counter() - start)
        flops = 6 * work(config, config.mask_ratio) * rate / 1e12
        share = f", {flops / peaks[number]:.0%} of {peaks[number]:g} TFLOP/s" if peaks else ""
        print(
            f"gpu: {name}, {preset}, batch {batch}, {str(dtype).split('.')[1]}: {rate:.0f} windows/s, {flops:.1f} TFLOP/s{share}"
        )
        print(f"  largest memory {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def main() -> None:
    parts = ("speed", "half", "ratio", "memory", "learn", "gpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="which parts to run; all when left out")
    parser.add_argument("--preset", nargs="+", default=["tiny", "small"], help="sizes for speed; half and ratio take the last")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--stride", type=int, default=64, help="samples between windows of the sample corpus in `learn`")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled variant of `speed`")
    given = parser.parse_args()
    chosen = given.parts or parts
    if "speed" in chosen:
        compiler = any(shutil.which(name) for name in ("g++", "clang++")) and not given.no_compile
        for preset in given.preset:
            for compiled in (False, True) if compiler else (False,):
                speed(preset, given.batch, given.steps, compiled)
    if "half" in chosen:
        half(given.preset[-1], given.batch, given.steps)
        half("released", 8, 2)
    if "ratio" in chosen:
        ratio(given.preset[-1], given.batch, max(3, given.steps // 3))
    if "memory" in chosen:
        memory("paper", 32)
    if "learn" in chosen:
        learn(given.stride)
    if "gpu" in chosen:
        gpu("paper", 256, 20)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
