"""Image vectors through frozen generators: rows never mix, diffusers' own pipelines agree, and misfits are refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_generators import tiny_adapter, tiny_kandinsky, tiny_sd15, tiny_sdxl, tiny_unclip

from dreamdiff.diffusion.adapters import VIT_H, VectorSpace, load_adapter
from dreamdiff.diffusion.prior import Prior
from dreamdiff.diffusion.sampling import Condition, guided_sample
from dreamdiff.diffusion.vector_generator import load_vector_generator
from eegprep.errors import ModelError, UsageError

WIDTH = 12
MINE = "clip:tiny"
KINDS = ("sd15", "sdxl", "kandinsky", "unclip", "embedded")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generators")
    for kind, make in (("sd15", tiny_sd15), ("sdxl", tiny_sdxl)):
        make(root / kind)
        tiny_adapter(root / f"{kind}-adapter" / "ip.safetensors", root / kind, WIDTH, image_encoder=MINE)
    tiny_kandinsky(root / "kandinsky", WIDTH)
    np.save(root / "kandinsky" / "zero_image_vector.npy", np.linspace(-1, 1, WIDTH, dtype=np.float32))
    tiny_unclip(root / "unclip", WIDTH)
    return root


def generator(folders: Path, kind: str, scheduler: str | None = "ddim"):
    if kind == "embedded":
        return load_vector_generator("embedded", scheduler="dpm-solver++")
    adapter = folders / f"{kind}-adapter" / "ip.safetensors"
    return load_vector_generator(folders / kind, adapter if adapter.is_file() else None, scheduler=scheduler)


def vectors(count: int, width: int = WIDTH, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def dice(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# --- rows never mix


@pytest.mark.parametrize("kind", KINDS)
def test_changing_one_vector_changes_that_picture_and_leaves_every_other_bit_for_bit(folders: Path, kind: str) -> None:
    make = generator(folders, kind)
    before = vectors(3, make.reads.width)
    after = before.clone()
    after[1] = vectors(1, make.reads.width, seed=9)[0]
    first, second = (make(v, dice(1, 2, 3), steps=4, guidance=3.0, output="latent") for v in (before, after))
    assert torch.equal(first[[0, 2]], second[[0, 2]])
    assert (first[1] - second[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_three_at_once_are_the_same_latents_as_one_by_one(folders: Path, kind: str) -> None:
    make = generator(folders, kind)
    given = vectors(3, make.reads.width)
    together = make(given, dice(1, 2, 3), steps=4, guidance=3.0, output="latent")
    for row in range(3):
        alone = make(given[[row]], dice(row + 1), steps=4, guidance=3.0, output="latent")
        assert (together[row] - alone[0]).abs().max() < 1e-4


# --- diffusers' own pipelines, one picture at a time, as a second implementation


def one(make, scale: float = 3.0) -> torch.Tensor:
    return make(vectors(1), dice(4), steps=4, guidance=scale, output="latent")


def test_stable_diffusion_with_an_adapter_agrees_with_diffusers(folders: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        folders / "sd15",
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **text_parts(folders / "sd15", 1),
    )
    expected = diffusers_latents(pipe, folders / "sd15-adapter")
    assert torch.allclose(one(generator(folders, "sd15")), expected, atol=1e-5)


def test_sdxl_with_an_adapter_agrees_with_diffusers(folders: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        folders / "sdxl", feature_extractor=None, image_encoder=None, add_watermarker=False, **text_parts(folders / "sdxl", 2)
    )
    expected = diffusers_latents(pipe, folders / "sdxl-adapter")
    assert torch.allclose(one(generator(folders, "sdxl")), expected, atol=1e-5)


def text_parts(folder: Path, count: int) -> dict:
    """Text encoders and tokenizers of a folder, loaded by transformers."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    kinds = (("", CLIPTextModel), ("_2", CLIPTextModelWithProjection))[:count]
    encoders = {f"text_encoder{end}": kind.from_pretrained(folder / f"text_encoder{end}") for end, kind in kinds}
    return encoders | {f"tokenizer{end}": CLIPTokenizer.from_pretrained(folder / f"tokenizer{end}") for end, _ in kinds}


def diffusers_latents(pipe, adapter: Path) -> torch.Tensor:
    from dreamdiff.diffusion.noise import make_scheduler

    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = make_scheduler("ddim", pipe.scheduler.config)
    pipe.load_ip_adapter(
        str(adapter), subfolder="", weight_name="ip.safetensors", image_encoder_folder=None, local_files_only=True
    )
    both = torch.stack([torch.zeros(1, WIDTH), vectors(1)])  # guidance: "nothing" first
    return pipe(
        "", ip_adapter_image_embeds=[both], generator=dice(4)[0], num_inference_steps=4, guidance_scale=3.0, output_type="latent",
        height=32, width=32,
    ).images  # fmt: skip


def test_the_kandinsky_decoder_agrees_with_diffusers(folders: Path) -> None:
    from diffusers import DDPMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel

    folder = folders / "kandinsky"
    pipe = KandinskyV22Pipeline(
        UNet2DConditionModel.from_pretrained(folder / "unet"), DDPMScheduler.from_pretrained(folder / "scheduler"),
        VQModel.from_pretrained(folder / "movq"),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    nothing = torch.from_numpy(np.load(folder / "zero_image_vector.npy"))[None]
    options = {"guidance_scale": 3.0, "num_inference_steps": 4, "height": 32, "width": 32, "output_type": "latent"}
    make = generator(folders, "kandinsky", scheduler=None)
    advanced = dice(4)
    torch.randn(1, 4, 8, 8, generator=advanced[0])  # ours draws the start noise from the generator that the sampler goes on with
    expected = pipe(
        vectors(1), nothing, generator=advanced, latents=torch.randn(1, 4, 8, 8, generator=dice(4)[0]), **options
    ).images
    assert torch.allclose(one(make), expected, atol=1e-5)


def test_a_stable_unclip_agrees_with_diffusers(folders: Path) -> None:
    from diffusers import AutoencoderKL, StableUnCLIPImg2ImgPipeline, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from dreamdiff.diffusion.noise import load_scheduler, make_scheduler

    folder = folders / "unclip"
    unread = CLIPVisionModelWithProjection(
        CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    )
    pipe = StableUnCLIPImg2ImgPipeline(
        None, unread, StableUnCLIPImageNormalizer.from_pretrained(folder / "image_normalizer"),
        load_scheduler(folder / "image_noising_scheduler"), text_parts(folder, 1)["tokenizer"], text_parts(folder, 1)["text_encoder"],
        UNet2DConditionModel.from_pretrained(folder / "unet"), make_scheduler("ddim", load_scheduler(folder / "scheduler").config),
        AutoencoderKL.from_pretrained(folder / "vae"),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    expected = pipe(
        prompt="", image_embeds=vectors(1), generator=dice(4)[0], num_inference_steps=4, guidance_scale=3.0, height=32, width=32,
        output_type="latent",
    ).images  # fmt: skip
    assert torch.allclose(one(generator(folders, "unclip")), expected, atol=1e-5)


# --- what does not fit is refused by name


def test_an_adapter_for_other_vectors_is_refused_with_both_names_and_widths(folders: Path) -> None:
    adapter = load_adapter(folders / "sd15-adapter" / "ip.safetensors")
    adapter.check_target(VectorSpace(MINE, WIDTH))
    for target in (VectorSpace("efficientnet-lite0", 1280), VectorSpace("efficientnet-lite0", WIDTH), VectorSpace(MINE, 768)):
        with pytest.raises(ModelError) as caught:
            adapter.check_target(target)
        message = str(caught.value)
        assert MINE in message and target.name in message
        assert f"{WIDTH} numbers" in message and f"{target.width} numbers" in message


def test_the_same_encoder_with_other_weights_is_refused() -> None:
    adapter = load_adapter("embedded")
    adapter.check_target(VectorSpace("embedded", 128, adapter.reads.fingerprint))
    with pytest.raises(ModelError, match="weights"):
        adapter.check_target(VectorSpace("embedded", 128, "0" * 64))


def test_published_files_are_known_by_their_name(folders: Path, tmp_path: Path) -> None:
    file = tiny_adapter(tmp_path / "ip-adapter_sd15.safetensors", folders / "sd15", 1024)
    reads = load_adapter(file).reads
    assert (reads.name, reads.width) == (VIT_H, 1024)
    load_adapter(file).check_target(VectorSpace(f"clip:{VIT_H}", 1024))
    load_adapter(file).check_target(VectorSpace("clip:ViT-H-14:/models/clip.safetensors", 1024))
    with pytest.raises(ModelError, match=r"ip-adapter_sd15 .45 MB, Apache-2.0"):
        load_adapter(file).check_target(VectorSpace("clip:ViT-H-14:other", 768))


def test_an_adapter_of_unknown_origin_asks_for_the_name_of_its_image_encoder(folders: Path, tmp_path: Path) -> None:
    file = tiny_adapter(tmp_path / "mine.safetensors", folders / "sd15", WIDTH)
    with pytest.raises(ModelError, match="image encoder") as caught:
        load_adapter(file)
    assert "adapter.json" in str(caught.value.fix)


def test_an_adapter_for_another_unet_is_refused_with_both_numbers(folders: Path, tmp_path: Path) -> None:
    wide = tiny_sd15_of_width(tmp_path / "wide", 32)
    with pytest.raises(ModelError, match="context width: 24 and 32"):
        load_vector_generator(wide, folders / "sd15-adapter" / "ip.safetensors")


def tiny_sd15_of_width(folder: Path, width: int) -> Path:
    from tiny_generators import tiny_text_encoder
    from tiny_models import tiny_stable_diffusion

    tiny_stable_diffusion(folder, context_width=width)
    tiny_text_encoder(folder, "text_encoder", width)
    return folder


def test_adapters_that_read_patches_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"image_proj.latents": torch.zeros(1, 16, 8)}, tmp_path / "plus.safetensors")
    with pytest.raises(ModelError, match="one vector"):
        load_adapter(tmp_path / "plus.safetensors")


def test_generator_and_adapter_are_asked_for_where_needed(folders: Path) -> None:
    with pytest.raises(ModelError, match="no adapter was given"):
        load_vector_generator(folders / "sd15")
    with pytest.raises(ModelError, match="reads image vectors itself"):
        load_vector_generator(folders / "kandinsky", folders / "sd15-adapter" / "ip.safetensors")


def test_a_single_file_is_refused_because_its_text_encoder_is_missing(folders: Path) -> None:
    with pytest.raises(ModelError, match="single file"):
        load_vector_generator(
            folders / "sd15" / "unet" / "diffusion_pytorch_model.safetensors", folders / "sd15-adapter" / "ip.safetensors"
        )


def test_vectors_of_another_width_and_missing_generators_are_refused(folders: Path) -> None:
    make = generator(folders, "sd15")
    with pytest.raises(ModelError, match="12 numbers"):
        make(vectors(2, 7), dice(1, 2))
    with pytest.raises(UsageError, match="1 generators for 2 images"):
        make(vectors(2), dice(1), steps=1)


def test_guidance_without_nothing_is_refused(folders: Path, tmp_path: Path) -> None:
    make = load_vector_generator(tiny_kandinsky(tmp_path / "k", WIDTH))
    assert make(vectors(1), dice(0), steps=2, guidance=1.0).shape == (1, 32, 32, 3)
    with pytest.raises(UsageError, match="guidance"):
        make(vectors(1), dice(0), steps=2, guidance=4.0)


# --- files


def test_the_adapter_stays_its_own_file_and_its_hash_is_in_the_fingerprint(folders: Path, tmp_path: Path) -> None:
    make = generator(folders, "sd15")
    assert {"unet/diffusion_pytorch_model.safetensors", "adapter/ip.safetensors"} <= make.files.keys()
    other = tiny_adapter(tmp_path / "ip.safetensors", folders / "sd15", WIDTH, image_encoder=MINE, seed=1)
    assert make.fingerprint == generator(folders, "sd15").fingerprint
    assert make.fingerprint != load_vector_generator(folders / "sd15", other).fingerprint


def test_a_pickled_adapter_in_nested_dictionaries_is_the_same_adapter(folders: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    flat = load_file(folders / "sd15-adapter" / "ip.safetensors")
    nested = {
        part: {n.removeprefix(f"{part}."): t for n, t in flat.items() if n.startswith(part)}
        for part in ("image_proj", "ip_adapter")
    }
    torch.save(nested, tmp_path / "ip.bin")
    (tmp_path / "adapter.json").write_text(json.dumps({"image_encoder": MINE}))
    loaded = load_adapter(tmp_path / "ip.bin").tensors
    assert loaded.keys() == flat.keys()
    assert all(torch.equal(loaded[name], flat[name]) for name in flat)


def test_the_embedded_adapter_is_small_half_precision_and_reads_the_embedded_clip() -> None:
    from safetensors.torch import load_file

    from dreamdiff import embedded
    from dreamdiff.diffusion.clip import load_clip

    file = embedded.paths().adapter / "ip_adapter.safetensors"
    assert file.stat().st_size < 4e6
    assert all(tensor.dtype == torch.float16 for tensor in load_file(file).values())
    adapter = load_adapter("embedded")
    drawings = embedded.load_images("train")
    vectors = load_clip("embedded").encode_images(drawings.images_NHWC[:20], normalise=False)
    assert adapter.bank_ND is not None
    torch.testing.assert_close(vectors, adapter.bank_ND[:20], atol=0.1, rtol=0.02)


# --- the loop and the prior


def test_guidance_is_the_difference_times_the_scale() -> None:
    """A U-Net that answers with its condition: one step of Euler's method from noise x at sigma s gives x - s (n + g (c - n))."""
    from types import SimpleNamespace

    from diffusers import EulerDiscreteScheduler

    class Answer:
        dtype, config = torch.float32, SimpleNamespace()

        def __call__(self, x, time, encoder_hidden_states, **_):
            return SimpleNamespace(sample=torch.zeros_like(x) + encoder_hidden_states[:, :1, :1, None])

    schedule = EulerDiscreteScheduler(num_train_timesteps=10)
    noise = torch.randn(2, 1, 3, 3, generator=dice(0)[0])
    asked, nothing = Condition(torch.tensor([[[2.0]], [[5.0]]])), Condition(torch.full((2, 1, 1), 1.0))
    result = guided_sample(Answer(), schedule, noise, asked, nothing, scale=3.0, steps=1)
    sigma = float(schedule.sigmas[0])
    start = noise * schedule.init_noise_sigma
    assert torch.allclose(result, start - sigma * torch.tensor([1 + 3 * 1.0, 1 + 3 * 4.0]).view(2, 1, 1, 1), atol=1e-3)


def test_the_prior_keeps_training_vectors_and_pulls_others_towards_them() -> None:
    bank = vectors(40, 64, seed=3)
    mean = bank.mean(0)
    prior = Prior(bank, sharpness=200.0)
    assert torch.allclose(prior(bank), bank, atol=1e-3)  # the nearest training vector of a training vector is itself

    def cosine(a: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cosine_similarity(a - mean, bank - mean, dim=1)

    noisy = bank + 0.5 * vectors(40, 64, seed=4)
    assert (cosine(prior(noisy)) > cosine(noisy)).all()
    assert torch.allclose((prior(noisy) - mean).norm(dim=1), (noisy - mean).norm(dim=1), rtol=1e-5)
    assert torch.allclose(Prior(bank, share=0.0)(noisy), noisy, atol=1e-5)
