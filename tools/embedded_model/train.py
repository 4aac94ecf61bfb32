"""Train the embedded model from the drawings: VAE, CLIP, the VAE's decoder again, and the U-Net on CLIP's text states.

`python -m tools.embedded_model.train all --work build/embedded-model` (or `make embedded-model`).  Every stage is resumable: it
saves its whole state every few minutes, and every random number of a step follows from the seed and the step's number alone.

Shapes: B batch, L text tokens (77), D text width; pictures are (B, 3, 64, 64) in [-1, 1], latents (B, 4, 16, 16).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.embedded import captions, categories, load_images, paths
from eegprep.atomic import open_atomic, write_json

SEED = 20260724

SIZE = 64

LATENT = 16


VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": SIZE, "norm_num_groups": 8,
    "block_out_channels": (16, 32, 64), "layers_per_block": 1, "mid_block_add_attention": False,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
}  # fmt: skip

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}

PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}

UNET_CONFIG: dict[str, Any] = {
    "sample_size": LATENT, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 16,
    "block_out_channels": (48, 96, 160), "cross_attention_dim": 96, "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip

SCHEDULER_CONFIG: dict[str, Any] = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "timestep_spacing": "leading",
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How long and how fast one stage trains.

    The learning rate warms up over `warm_up` steps, stays, and falls linearly to zero over the last `cool_down` share.
    """

    steps: int
    batch: int
    rate: float
    weight_decay: float
    warm_up: int = 100
    cool_down: float = 0.3
    average: float = 0.0  # decay of the moving average of the weights; 0: none


PLANS = {
    "vae": Plan(steps=1600, batch=8, rate=1e-3, weight_decay=0.0, average=0.995),
    "clip": Plan(steps=1500, batch=40, rate=1e-3, weight_decay=0.1, average=0.995),
    "decoder": Plan(steps=3000, batch=8, rate=1e-3, weight_decay=0.0, average=0.995),
    "unet": Plan(steps=6000, batch=16, rate=8e-4, weight_decay=0.01, average=0.999),
}


# ------------------------------------------------------------------------------------------------ pictures


def to_signed(images_NHWC: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> float (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(images_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def jitter(
    images_BCHW: Tensor,
    generator: torch.Generator,
    *,
    shift: float,
    scale: tuple[float, float],
    turn: float = 0.0,
    flip: float = 0.0,
) -> Tensor:
    """Move, scale, turn and mirror drawings on white paper.

    Args:
        shift: largest displacement, in half widths of the picture.
        scale: smallest and largest size relative to the drawing.
        turn: largest angle, degrees.
        flip: probability of a mirror image.
    """
    count = len(images_BCHW)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, size = uniform(-turn, turn) * math.pi / 180, 1 / uniform(*scale)
    mirror = torch.where(torch.rand(count, generator=generator) < flip, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = mirror * size * angle.cos(), -size * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = mirror * size * angle.sin(), size * angle.cos()
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-shift, shift), uniform(-shift, shift)
    grid = F.affine_grid(theta, list(images_BCHW.shape), align_corners=False)
    ink = F.grid_sample(1 - images_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return 1 - ink


def recolour(images_BCHW: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Turn the hue and change the saturation of the ink; white and black stay.

    The three channels are rotated about the grey axis by up to `strength` times 180 degrees.
    """
    count = len(images_BCHW)
    angle = (2 * torch.rand(count, generator=generator) - 1) * math.pi * strength
    saturation = 1 + strength * (2 * torch.rand(count, generator=generator) - 1)
    axis = torch.full((3, 3), 1 / 3)
    skew = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    plane = torch.eye(3) - axis
    rotation = axis + saturation[:, None, None] * (angle.cos()[:, None, None] * plane + angle.sin()[:, None, None] * skew)
    return torch.einsum("bij,bjhw->bihw", rotation, images_BCHW).clamp(-1, 1)


# ------------------------------------------------------------------------------------------------ one stage


class Stage:
    """Optimiser, moving average, log and resumption of one model; what a stage minimises is given to `run`."""

    def __init__(self, name: str, model: nn.Module, plan: Plan, work: Path, seed: int) -> None:
        self.name, self.model, self.plan, self.work, self.seed = name, model, plan, work, seed
        self.state_file, self.log_file = work / f"{name}.pt", work / f"{name}.jsonl"
        decay = [p for p in model.parameters() if p.ndim >= 2]
        plain = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": decay, "weight_decay": plan.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.99), fused=True)
        self.average = copy.deepcopy(model).eval().requires_grad_(False) if plan.average else model
        self.step, self.seconds = 0, 0.0
        if self.state_file.is_file():
            state = torch.load(self.state_file, weights_only=True)
            model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def rate(self, step: int) -> float:
        """Learning rate of a step: warm-up, level, linear fall."""
        left = (self.plan.steps - step) / max(1, self.plan.steps * self.plan.cool_down)
        return self.plan.rate * min(1.0, (step + 1) / self.plan.warm_up, max(left, 0.0))

    def save(self) -> None:
        """Everything that the next run needs, in one atomic file."""
        state = {
            "model": self.model.state_dict(), "average": self.average.state_dict(), "optimiser": self.optimiser.state_dict(),
            "step": self.step, "seconds": self.seconds,
        }  # fmt: skip
        with open_atomic(self.state_file) as file:
            torch.save(state, file)

    def _follow(self) -> None:
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                kept.lerp_(new, 1 - decay)
            for old, fresh in zip(self.average.buffers(), self.model.buffers(), strict=True):
                old.copy_(fresh)

    def run(self, loss_of: Any, save_every: float = 150.0) -> Any:
        """Train to the plan's last step; returns the averaged model."""
        self.work.mkdir(parents=True, exist_ok=True)
        self.model.train()
        saved = began = time.monotonic()
        before, values = self.seconds, []
        while self.step < self.plan.steps:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate(self.step)
            loss = loss_of(self.model, generator, self.plan.batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            if self.plan.average:
                self._follow()
            values.append(float(loss.detach()))
            self.seconds = before + time.monotonic() - began
            if self.step % 25 == 0 or self.step == self.plan.steps:
                line = {
                    "step": self.step,
                    "loss": round(sum(values) / len(values), 5),
                    "rate": self.rate(self.step),
                    "seconds": round(self.seconds),
                }
                with self.log_file.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                values = []
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.average.eval()


# ---------------------------------------------------------------------------------------------------- VAE


def train_vae(work: Path, seed: int, plan: Plan) -> Any:
    """A Kullback-Leibler autoencoder that shrinks pictures four times along each side."""
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    images = to_signed(load_images("train").images_NHWC)
    fresh: Any = AutoencoderKL(**VAE_CONFIG)
    vae = fresh.to(memory_format=torch.channels_last)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        picked = images[torch.randint(len(images), (batch,), generator=generator)]
        x = jitter(picked, generator, shift=0.12, scale=(0.8, 1.08), turn=8, flip=0.3)
        kept = batch - batch // 4
        x = torch.cat([x[:kept], recolour(x[kept:], generator, 1.0)]).contiguous(memory_format=torch.channels_last)
        posterior = model.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        rebuilt = model.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        return F.mse_loss(rebuilt, x) + 0.1 * F.l1_loss(rebuilt, x) + 3e-4 * kl

    vae = Stage("vae", vae, plan, work, seed).run(loss_of)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        many = torch.cat([jitter(images, generator, shift=0.06, scale=(0.88, 1.0)) for _ in range(4)])
        latents = torch.cat([vae.encode(part).latent_dist.mean for part in many.split(64)])
    vae.register_to_config(scaling_factor=round(1 / float(latents.std()), 5))
    return vae


def train_decoder(work: Path, seed: int, plan: Plan, vae: Any) -> Any:
    """Sharpen the decoder while the encoder, and so the latents that the U-Net learns, stays as it is."""
    torch.manual_seed(seed + 3)
    images = to_signed(load_images("train").images_NHWC)
    vae = vae.to(memory_format=torch.channels_last).requires_grad_(False)
    parts = nn.ModuleDict({"post_quant_conv": vae.post_quant_conv, "decoder": vae.decoder}).requires_grad_(True)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        picked = images[torch.randint(len(images), (batch,), generator=generator)]
        x = jitter(picked, generator, shift=0.12, scale=(0.85, 1.05), flip=0.1)
        kept = batch - batch // 8
        x = torch.cat([x[:kept], recolour(x[kept:], generator, 1.0)]).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
            z = z + 0.03 / vae.config.scaling_factor * torch.randn(z.shape, generator=generator)
        rebuilt = model["decoder"](model["post_quant_conv"](z))
        return F.mse_loss(rebuilt, x) + 0.1 * F.l1_loss(rebuilt, x) + 0.1 * (_edges(rebuilt) - _edges(x)).abs().mean()

    parts = Stage("decoder", parts, plan, work, seed + 3).run(loss_of)
    vae.post_quant_conv, vae.decoder = parts["post_quant_conv"], parts["decoder"]
    return vae.eval()


def _edges(x_BCHW: Tensor) -> Tensor:
    """Differences between horizontal and between vertical neighbours, flat."""
    return torch.cat([x_BCHW.diff(dim=2).flatten(1), x_BCHW.diff(dim=3).flatten(1)], 1)


# --------------------------------------------------------------------------------------------------- CLIP


def build_clip() -> Any:
    """The small two-tower model, with untouched word pieces at zero."""
    from open_clip.model import CLIP

    return CLIP(**CLIP_CONFIG)


def tokenize(texts: list[str]) -> Tensor:
    """open_clip's own word pieces, (N, 77)."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=77)(texts)


def train_clip(work: Path, seed: int, plan: Plan) -> Any:
    """Contrast one drawing and one caption of each category: 40 pairs a step (Radford et al. 2021, section 2.3)."""
    torch.manual_seed(seed + 1)
    drawings = load_images("train")
    images, names = to_signed(drawings.images_NHWC), categories()
    members = [np.flatnonzero(drawings.labels_N == label) for label in range(len(names))]
    texts = [captions(name) for name in names]
    tokens = torch.stack([tokenize(group) for group in texts])
    model: Any = build_clip()
    used = torch.zeros(CLIP_CONFIG["text_cfg"]["vocab_size"], 1)
    used[torch.unique(tokens)] = 1
    with torch.no_grad():
        model.token_embedding.weight.mul_(used)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        draw = torch.rand(len(names), generator=generator)
        picked = images[[int(group[int(len(group) * float(d))]) for group, d in zip(members, draw, strict=True)]]
        x = jitter(picked, generator, shift=0.15, scale=(0.7, 1.15), turn=15, flip=0.5)
        hue = torch.rand((), generator=generator) * 0.6
        x = recolour(x, generator, float(hue))
        x = x + 0.12 * torch.rand(batch, 1, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
        blur = torch.rand(batch, 1, 1, 1, generator=generator) < 0.3
        x = torch.where(blur, F.avg_pool2d(F.pad(x, (1, 1, 1, 1), value=1.0), 3, 1), x)
        caption = tokens[torch.arange(len(names)), torch.randint(tokens.shape[1], (len(names),), generator=generator)]
        vectors, words = model.encode_image(x, normalize=True), model.encode_text(caption, normalize=True)
        logits = model.logit_scale.clamp(max=math.log(50)).exp() * vectors @ words.T
        target = torch.arange(batch)
        return (
            F.cross_entropy(logits, target, label_smoothing=0.05) + F.cross_entropy(logits.T, target, label_smoothing=0.05)
        ) / 2

    model = Stage("clip", model, plan, work, seed + 1).run(loss_of)
    return model


@torch.no_grad()
def text_states(model: Any, texts: list[str]) -> Tensor:
    """Last hidden states of the text tower, (N, 77, D), as Stable Diffusion reads them."""
    x = model.token_embedding(tokenize(texts)) + model.positional_embedding
    x = model.transformer(x, attn_mask=model.attn_mask)
    return model.ln_final(x)


@torch.no_grad()
def clip_accuracy(model: Any, split: Any) -> tuple[float, int]:
    """Share of drawings whose nearest plain caption is their own category's, and how many drawings."""
    drawings = load_images(split)
    vectors = model.encode_image(to_signed(drawings.images_NHWC), normalize=True)
    words = model.encode_text(tokenize(captions()), normalize=True)
    right = (vectors @ words.T).argmax(1).numpy() == drawings.labels_N
    return float(right.mean()), len(right)


# -------------------------------------------------------------------------------------------------- U-Net


def alphas_cumprod() -> Tensor:
    """Cumulative signal share of the noise schedule: square roots of beta rise linearly (Stable Diffusion)."""
    steps = int(SCHEDULER_CONFIG["num_train_timesteps"])
    betas = torch.linspace(SCHEDULER_CONFIG["beta_start"] ** 0.5, SCHEDULER_CONFIG["beta_end"] ** 0.5, steps) ** 2
    return torch.cumprod(1 - betas, 0)


def mix(clean_BCHW: Tensor, noise_BCHW: Tensor, share_B: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy latents and the velocity to predict (Salimans and Ho 2022, appendix D), for a signal share per row."""
    signal, sigma = share_B.sqrt().view(-1, 1, 1, 1), (1 - share_B).sqrt().view(-1, 1, 1, 1)
    return signal * clean_BCHW + sigma * noise_BCHW, signal * noise_BCHW - sigma * clean_BCHW


def train_unet(work: Path, seed: int, plan: Plan, vae: Any, clip: Any, views: int = 24) -> Any:
    """Velocity prediction on precomputed latents of moved drawings; one caption in ten is empty (classifier-free guidance)."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed + 2)
    drawings = load_images("train")
    kept = [i for i, record in enumerate(drawings.records) if record["role"] == "generator"]
    images, labels = to_signed(drawings.images_NHWC[kept]), torch.from_numpy(drawings.labels_N[kept])
    generator = torch.Generator().manual_seed(seed + 2)
    with torch.no_grad():
        moved = [jitter(images, generator, shift=0.05, scale=(0.9, 1.0)) for _ in range(views)]
        latents = torch.cat([vae.encode(x).latent_dist.mean * vae.config.scaling_factor for x in moved])
    labels = labels.repeat(views)
    texts = [text_states(clip, captions(name)) for name in categories()]
    contexts, empty = torch.stack(texts), text_states(clip, [""])
    share = alphas_cumprod()
    fresh: Any = UNet2DConditionModel(**UNET_CONFIG)
    unet = fresh.to(memory_format=torch.channels_last)

    def loss_of(model: Any, generator: torch.Generator, batch: int) -> Tensor:
        picked = torch.randint(len(latents), (batch,), generator=generator)
        clean = latents[picked]
        noise = torch.randn(clean.shape, generator=generator)
        # one time in each of `batch` equal slices: less noise in the gradient
        time_B = ((torch.arange(batch) + torch.rand(batch, generator=generator)) * len(share) / batch).long()
        context = contexts[labels[picked], torch.randint(contexts.shape[1], (batch,), generator=generator)]
        dropped = torch.rand(batch, 1, 1, generator=generator) < 0.1
        context = torch.where(dropped, empty, context)
        noisy, velocity = mix(clean, noise, share[time_B])
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return F.mse_loss(model(noisy, time_B, context).sample, velocity)

    return Stage("unet", unet, plan, work, seed + 2).run(loss_of)


# ---------------------------------------------------------------------------------------------- the folders


def export_vae(vae: Any, sd: Path) -> None:
    """VAE of the diffusers folder, float16."""
    copy.deepcopy(vae).half().save_pretrained(sd / "vae")
    _forget_origin(sd / "vae")


def _forget_origin(folder: Path) -> None:
    """Drop the folder that a part was loaded from out of its configuration, and let everyone read the weights."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != "_name_or_path"})
    for file in folder.iterdir():
        file.chmod(0o644)


def export_unet(unet: Any, sd: Path) -> None:
    """U-Net, scheduler and index of the diffusers folder, float16."""
    from diffusers import DDIMScheduler

    copy.deepcopy(unet).to(memory_format=torch.contiguous_format).half().save_pretrained(sd / "unet")
    _forget_origin(sd / "unet")
    scheduler: Any = DDIMScheduler(**SCHEDULER_CONFIG)
    scheduler.save_pretrained(sd / "scheduler")
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
    }
    empty = {name: [None, None] for name in ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")}
    write_json(
        sd / "model_index.json", {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **parts, **empty}
    )


def export_clip(clip: Any, folder: Path) -> None:
    """open_clip folder: configuration with preprocessing, float16 weights."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "open_clip_config.json", {"model_cfg": CLIP_CONFIG, "preprocess_cfg": PREPROCESS})
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in clip.state_dict().items()
    }
    with open_atomic(folder / "open_clip_model.safetensors") as file:
        file.write(save(tensors))


def main(arguments: list[str] | None = None) -> None:
    """Train the stages asked for, in order, and write their folders."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_model.train", description="Train the embedded model again.")
    parser.add_argument("stage", nargs="?", default="all", choices=["vae", "clip", "decoder", "unet", "all"])
    parser.add_argument("--work", type=Path, default=Path("build/embedded-model"), help="states and logs, to go on after a stop")
    parser.add_argument("--out", type=Path, default=paths().sd.parent, help="where sd/ and clip/ are written")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, help="another number of steps (for one stage)")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    wanted = ("vae", "clip", "decoder", "unet") if given.stage == "all" else (given.stage,)

    def plan(name: str) -> Plan:
        known = PLANS[name]
        return Plan(**{**known.__dict__, "steps": given.steps}) if given.steps and name in wanted else known

    if "vae" in wanted:
        export_vae(train_vae(given.work, given.seed, plan("vae")), given.out / "sd")
    if "clip" in wanted:
        export_clip(train_clip(given.work, given.seed, plan("clip")), given.out / "clip")
    if "decoder" in wanted:
        export_vae(train_decoder(given.work, given.seed, plan("decoder"), load_vae(given.out / "sd")), given.out / "sd")
    if "unet" in wanted:
        export_unet(
            train_unet(given.work, given.seed, plan("unet"), load_vae(given.out / "sd"), load_clip(given.out / "clip")),
            given.out / "sd",
        )


def load_vae(sd: Path) -> Any:
    """The written VAE in float32: the U-Net trains against what ships."""
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(sd / "vae", torch_dtype=torch.float32, local_files_only=True).eval()


def load_clip(folder: Path) -> Any:
    """The written CLIP in float32."""
    from safetensors.torch import load_file

    model = build_clip()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model.float().eval()


if __name__ == "__main__":
    main()
