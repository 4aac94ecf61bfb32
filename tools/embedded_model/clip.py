"""The embedded CLIP: an image tower and a text tower trained together on drawings and captions.

Shapes: N texts, B batch, L text tokens (77), D text width; pictures are (B, 3, 64, 64) in [-1, 1].
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dreamdiff.embedded import captions, categories, load_images
from eegprep.atomic import open_atomic, write_json
from tools.embedded_model.pictures import jitter, recolour, to_signed
from tools.embedded_model.stages import Plan, Stage
from tools.embedded_model.vae import SIZE

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 2},
}

PREPROCESS = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}


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


def load_clip(folder: Path) -> Any:
    """The written CLIP in float32."""
    from safetensors.torch import load_file

    model = build_clip()
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return model.float().eval()
