"""The embedded IP-Adapter: four tokens made from an image vector, beside captions that the vector chooses, before the frozen U-Net.

The captions' text states, weighted by how near each category is to the vector, hold the category; the four tokens of the adapter, in the
layout of Ye et al. (2023), hold the drawing. Trained on moved and recoloured training drawings with the velocity loss alone. The U-Net, the
CLIP and the autoencoder stay as they are.

A direction is a CLIP vector minus the mean of the training drawings' vectors, brought to length 1.

Shapes: V views, N drawings, B batch, K categories, D = 128 width of a vector, L text tokens, W = 96 width of a token.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dreamdiff.diffusion.adapters import DETAILS, FORMAT, TENSORS, Words
from dreamdiff.diffusion.clip import load_clip as load_target
from dreamdiff.embedded import captions, categories, load_images
from eegprep.atomic import open_atomic, write_json
from tools.embedded_model.clip import text_states
from tools.embedded_model.pictures import jitter, recolour, to_signed
from tools.embedded_model.stages import Plan, Stage
from tools.embedded_model.unet import alphas_cumprod, mix

VIEWS, HUE = 20, 0.35  # of every drawing; three of four are recoloured
SHARPNESS = 16.0  # of the choice among captions
CLEAN, LOWEST = 0.6, 0.7  # share of vectors left as they are; the others have a cosine to the truth down to this
NOTHING = 0.1  # of the rows have neither caption nor vector, for guidance
SCALE = 0.55  # of the adapter's attention, folded into its values; chosen among 0.5, 0.55, 0.6, 0.7 and 1 on held-out drawings


@torch.no_grad()
def vectors(clip: Any, x_NCHW: Tensor) -> Tensor:
    """(N, D) vectors, as long as the image tower makes them: those that `train align` predicts."""
    return torch.cat([clip.encode_image(part) for part in x_NCHW.split(64)])


class Space:
    """Training drawings as directions, and captions that directions choose."""

    def __init__(self, clip: Any) -> None:
        drawings = load_images("train")
        self.images, self.labels = to_signed(drawings.images_NHWC), torch.from_numpy(drawings.labels_N)
        self.bank_ND = vectors(clip, self.images)
        self.mean_D = self.bank_ND.mean(0)
        self.z_ND = self.direction(self.bank_ND)
        keys = [self.z_ND[self.labels == label].mean(0) for label in range(len(categories()))]
        self.words = Words(F.normalize(torch.stack(keys), dim=1), text_states(clip, captions()), SHARPNESS)
        self.empty = text_states(clip, [""])
        self.spread_DD = torch.linalg.cholesky(torch.cov(self.z_ND.T) + 1e-6 * torch.eye(self.z_ND.shape[1]))

    def direction(self, vectors_ND: Tensor) -> Tensor:
        """Unit directions from the mean."""
        return F.normalize(vectors_ND - self.mean_D, dim=-1)

    def noisy(self, z_BD: Tensor, generator: torch.Generator) -> Tensor:
        """Some directions as they are, others at a random cosine; most errors are distributed as the drawings' directions are."""
        batch = len(z_BD)
        exact = torch.rand(batch, generator=generator) < CLEAN
        cosine = torch.where(exact, 1.0, LOWEST + (1 - LOWEST) * torch.rand(batch, generator=generator))[:, None]
        error = torch.randn(z_BD.shape, generator=generator)
        error = torch.where(torch.rand(batch, 1, generator=generator) < 0.7, error @ self.spread_DD.T, error)
        error = F.normalize(error - (error * z_BD).sum(1, keepdim=True) * z_BD, dim=1)
        return cosine * z_BD + (1 - cosine**2).sqrt() * error


@torch.no_grad()
def bank(space: Space, vae: Any, clip: Any, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (V, N, 4, 16, 16) and directions (V, N, D) of moved and recoloured drawings."""
    generator = torch.Generator().manual_seed(seed)
    latents, directions = [], []
    for view in range(VIEWS):
        x = space.images if view == 0 else jitter(space.images, generator, shift=0.05, scale=(0.9, 1.0))
        if view % 4:
            x = recolour(x, generator, HUE)
        latents.append(torch.cat([vae.encode(part).latent_dist.mean * vae.config.scaling_factor for part in x.split(32)]))
        directions.append(space.direction(vectors(clip, x)))
    return torch.stack(latents), torch.stack(directions)


def fresh_tensors(unet: Any, clip: Any, width: int, seed: int) -> dict[str, Tensor]:
    """Where training starts: random tokens with the spread of text states, keys and values copied from the text's own."""
    generator = torch.Generator().manual_seed(seed)
    context = int(unet.config.cross_attention_dim)
    norm = clip.ln_final
    out = {
        "image_proj.proj.weight": 0.5 * torch.randn(4 * context, width, generator=generator),
        "image_proj.proj.bias": torch.zeros(4 * context),
        "image_proj.norm.weight": norm.weight.detach().clone(), "image_proj.norm.bias": norm.bias.detach().clone(),
    }  # fmt: skip
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            for part in ("k", "v"):
                out[f"ip_adapter.{number}.to_{part}_ip.weight"] = getattr(attention, f"to_{part}").weight.detach().clone()
    return out


def adapter_tensors(unet: Any) -> dict[str, Tensor]:
    """The adapter in a U-Net, under the published names."""
    projection = unet.encoder_hid_proj.image_projection_layers[0].state_dict()
    out = {f"image_proj.{name.replace('image_embeds', 'proj')}": value for name, value in projection.items()}
    for number, (name, module) in enumerate(unet.attn_processors.items()):
        if name.endswith("attn2.processor"):
            for part in ("k", "v"):
                out[f"ip_adapter.{number}.to_{part}_ip.weight"] = getattr(module, f"to_{part}_ip")[0].weight
    return {name: value.detach() for name, value in out.items()}


class Adapted(nn.Module):
    """A frozen U-Net of which only the adapter's parameters are known to the optimiser."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_("_ip." in name or "encoder_hid_proj" in name)
        self.unet = unet


def train_adapter(work: Path, seed: int, plan: Plan, sd: Path, vae: Any, clip: Any) -> dict[str, Tensor]:
    """Tensors of the adapter, float32."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed + 5)
    unet: Any = UNet2DConditionModel.from_pretrained(sd / "unet", torch_dtype=torch.float32, local_files_only=True)
    space = Space(clip)
    start = fresh_tensors(unet, clip, space.z_ND.shape[1], seed + 5)
    parts = ("image_proj", "ip_adapter")
    unet._load_ip_adapter_weights(
        [{part: {n.removeprefix(f"{part}."): t for n, t in start.items() if n.startswith(part)} for part in parts}]
    )
    latents, directions = bank(space, vae, clip, seed + 5)
    members = [torch.nonzero(space.labels == label)[:, 0] for label in range(len(categories()))]
    share = alphas_cumprod()

    def loss_of(model: Adapted, generator: torch.Generator, batch: int) -> Tensor:
        label = torch.randint(len(members), (batch,), generator=generator)
        drawing = torch.stack([members[int(k)][torch.randint(len(members[int(k)]), (), generator=generator)] for k in label])
        view = torch.randint(VIEWS, (batch,), generator=generator)
        z = space.noisy(directions[view, drawing], generator)
        # a time in each of `batch` slices, more of the noisy ones, where layout and colour are decided
        time = ((torch.arange(batch) + torch.rand(batch, generator=generator)) / batch) ** 0.7
        time = (len(share) * time).long().clamp(max=len(share) - 1)
        noise = torch.randn(batch, *latents.shape[2:], generator=generator)
        noisy, velocity = mix(latents[view, drawing], noise, share[time])
        dropped = torch.rand(batch, generator=generator) < NOTHING
        words = torch.where(dropped.view(-1, 1, 1), space.empty, space.words(z))
        read = torch.where(dropped.view(-1, 1), 0.0, z)[:, None]
        return F.mse_loss(model.unet(noisy, time, words, added_cond_kwargs={"image_embeds": [read]}).sample, velocity)

    trained = Stage("adapter", Adapted(unet), plan, work, seed + 5).run(loss_of)
    return adapter_tensors(trained.unet)


def export_adapter(tensors: dict[str, Tensor], folder: Path, clip: Any, clip_folder: Path) -> None:
    """adapter.json and float16 tensors: the adapter, the captions' states, the mean, and the vectors for the prior."""
    from safetensors.torch import save

    space = Space(clip)
    scaled = {name: SCALE * value if name.endswith("to_v_ip.weight") else value for name, value in tensors.items()}
    more = {
        "words.keys": space.words.keys_KD, "words.states": space.words.states_KLW, "vector.mean": space.mean_D,
        "prior.bank": space.bank_ND,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with open_atomic(folder / TENSORS) as file:
        file.write(save({name: value.half().contiguous() for name, value in {**scaled, **more}.items()}))
    # the digest that `dreamdiff.alignment.targets` gives to vectors of a CLIP that are not brought to length 1
    digest = sha256(f"{load_target(str(clip_folder)).fingerprint}/unnormalised".encode()).hexdigest()
    details = {
        "format": FORMAT, "version": 1, "image_encoder": "embedded", "image_encoder_fingerprint": digest, "generator": "embedded",
        "sharpness": SHARPNESS, "licence": "MIT",
    }  # fmt: skip
    write_json(folder / DETAILS, details)
