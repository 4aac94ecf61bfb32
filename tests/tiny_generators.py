"""Frozen generators of tiny size with random weights, in the folders that the real ones have, and adapters for them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny_models import CONTEXT_WIDTH, LATENT_SIZE, tiny_stable_diffusion, tiny_unet_config

TEXT_LENGTH = 8
WORDS = ["a", "photo", "of", "cat"]


def tiny_text_encoder(folder: Path, name: str, width: int, *, projection: int = 0) -> None:
    """A CLIP text encoder of one layer and its tokenizer, as a diffusers folder holds them."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    letters = sorted({letter for word in WORDS for letter in word})
    tokens = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    config = CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=TEXT_LENGTH, projection_dim=projection or width, bos_token_id=len(tokens) - 2, eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )  # fmt: skip
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    kind(config).save_pretrained(folder / name)
    place = folder / name.replace("text_encoder", "tokenizer")
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    special = {
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    details = {**special, "model_max_length": TEXT_LENGTH, "tokenizer_class": "CLIPTokenizer"}
    (place / "tokenizer_config.json").write_text(json.dumps(details))


def _with_index(folder: Path, name: str, **more: object) -> Path:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": name, **more}))
    return folder


def tiny_sd15(folder: Path) -> Path:
    """Stable Diffusion 1.x with its text encoder."""
    torch.manual_seed(5)
    tiny_stable_diffusion(folder)
    tiny_text_encoder(folder, "text_encoder", CONTEXT_WIDTH)
    return folder


def tiny_sdxl(folder: Path) -> Path:
    """SDXL: two text encoders, whose states are joined, and pooled text with sizes in the time embedding."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(6)
    tiny_stable_diffusion(folder)
    config = tiny_unet_config(CONTEXT_WIDTH) | {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 6 * 4 + 12,
    }  # fmt: skip
    UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    tiny_text_encoder(folder, "text_encoder", 8)
    tiny_text_encoder(folder, "text_encoder_2", CONTEXT_WIDTH - 8, projection=12)
    return _with_index(folder, "StableDiffusionXLPipeline", force_zeros_for_empty_prompt=True)


def tiny_kandinsky(folder: Path, width: int) -> Path:
    """The Kandinsky 2.2 decoder: a U-Net that reads an image vector and also predicts a variance, and a VQ decoder."""
    from diffusers import DDPMScheduler, UNet2DConditionModel, VQModel

    torch.manual_seed(7)
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIZE, in_channels=4, out_channels=8, layers_per_block=1, block_out_channels=(16, 32), norm_num_groups=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), cross_attention_dim=16, attention_head_dim=4,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"), mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        addition_embed_type="image", encoder_hid_dim=width, encoder_hid_dim_type="image_proj", resnet_time_scale_shift="scale_shift",
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    VQModel(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, num_vq_embeddings=12,
    ).save_pretrained(folder / "movq")  # fmt: skip
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", variance_type="learned_range").save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "KandinskyV22Pipeline"}))
    return folder


def tiny_unclip(folder: Path, width: int) -> Path:
    """A stable unCLIP U-Net: the noised image vector is added to the time embedding."""
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer

    torch.manual_seed(8)
    tiny_sd15(folder)
    config = tiny_unet_config(CONTEXT_WIDTH) | {
        "class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * width,
    }  # fmt: skip
    UNet2DConditionModel(**config).save_pretrained(folder / "unet")
    normaliser = StableUnCLIPImageNormalizer(embedding_dim=width)
    torch.nn.init.normal_(normaliser.mean)
    torch.nn.init.uniform_(normaliser.std, 0.5, 2.0)
    normaliser.save_pretrained(folder / "image_normalizer")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(folder / "image_noising_scheduler")
    return _with_index(folder, "StableUnCLIPImg2ImgPipeline")


def tiny_adapter(file: Path, folder: Path, width: int, *, image_encoder: str | None = None, seed: int = 9) -> Path:
    """Random weights of an IP-Adapter for the U-Net in a folder, under the published names."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    context = int(unet.config.cross_attention_dim)
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g) / shape[-1] ** 0.5

    tensors = {
        "image_proj.proj.weight": random(4 * context, width), "image_proj.proj.bias": random(4 * context),
        "image_proj.norm.weight": 1 + random(context), "image_proj.norm.bias": random(context),
    }  # fmt: skip
    for number, (name, _) in enumerate(unet.attn_processors.items()):
        if name.endswith("attn2.processor"):
            attention = unet.get_submodule(name.removesuffix(".processor"))
            for part in ("k", "v"):
                shape = getattr(attention, f"to_{part}").weight.shape
                tensors[f"ip_adapter.{number}.to_{part}_ip.weight"] = 3 * random(*shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    if image_encoder is not None:
        (file.parent / "adapter.json").write_text(json.dumps({"image_encoder": image_encoder, "licence": "MIT"}))
    return file
