"""Reads the parts of diffusers folders: whichever layout their weights have, every tensor present and finite; other models by name."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dreamdiff.untrusted.kinds import check_weights_file
from dreamdiff.untrusted.states import read_tensors
from eegprep.errors import CheckpointError, ModelError
from eegprep.sealed import read_object

_WEIGHTS = re.compile(r"diffusion_pytorch_model(?:\.(\w+?))?(?:-\d+-of-\d+)?\.(safetensors|bin)")
_AGAIN = "copy or download that folder again, and check its SHA-256"

# what a pipeline class or a U-Net's input says about the model
_BY_CLASS = (
    ("StableDiffusionXL", "an SDXL model"), ("Inpaint", "an inpainting model"), ("InstructPix2Pix", "an InstructPix2Pix model"),
    ("StableDiffusion3", "a Stable Diffusion 3 model"), ("Flux", "a Flux model"), ("PixArt", "a PixArt model"),
    ("Upscale", "an upscaling model"), ("Depth2Img", "a depth-to-image model"), ("Kandinsky", "a Kandinsky model"),
    ("UnCLIP", "an unCLIP model"), ("StableCascade", "a Stable Cascade model"), ("Video", "a video model"), ("IF", "a DeepFloyd IF model"),
)  # fmt: skip
_BY_CHANNELS = {9: "an inpainting model", 8: "an InstructPix2Pix model", 5: "a depth-to-image model", 7: "an upscaling model"}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file.

    Raises:
        CheckpointError: the file is there and is not a JSON object.
    """
    if not file.is_file():
        return {}
    content = read_object(file)
    if content is None:
        raise CheckpointError(f"{file}: not a JSON object", _AGAIN)
    return content


def refuse_other_models(folder: Path, source: str) -> None:
    """Stop a model that is not a Stable Diffusion 1.x or 2.x, by its name, before anything is read.

    Raises:
        ModelError: naming what it is.
    """
    name = str(read_json(folder / "model_index.json").get("_class_name", ""))
    unet = read_json(folder / "unet" / "config.json")
    what = next((text for part, text in _BY_CLASS if part in name), None)
    if what is None and unet.get("addition_embed_type") == "text_time":
        what = "an SDXL model"
    if what is None and unet:
        what = _BY_CHANNELS.get(unet.get("in_channels", 4))
    if what is None and (folder / "transformer").is_dir():
        what = "a diffusion transformer"
    if what is not None:
        raise ModelError(
            f"{source}: {what} ({name or 'by its U-Net'}), and only Stable Diffusion 1.x and 2.x text-to-image models are trained here",
            "give --sd such a model, for instance stable-diffusion-v1-5/stable-diffusion-v1-5",
        )


def weight_files(folder: Path, variant: str | None = None) -> tuple[list[Path], str | None]:
    """The weight files of a part, and their variant: the plain ones, else those of the one variant that is there.

    Files that macOS leaves beside others (`._name`) are passed over; safetensors go before `.bin`.

    Raises:
        CheckpointError: there are none, naming what is there.
    """
    groups: dict[tuple[str, str | None], list[Path]] = {}
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        match = _WEIGHTS.fullmatch(name)
        if match:
            groups.setdefault((match[2], match[1]), []).append(folder / name)
    for ending in ("safetensors", "bin"):
        for key in [(ending, variant)] if variant else sorted((k for k in groups if k[0] == ending), key=lambda k: k[1] or ""):
            if key in groups:
                return groups[key], key[1]
    raise CheckpointError(
        f"{folder}: no diffusion_pytorch_model{'.' + variant if variant else ''}.safetensors in it (found: {', '.join(names) or 'nothing'})",
        _AGAIN,
    )


def load_part(kind: Any, folder: Path, dtype: torch.dtype, variant: str | None = None) -> Any:
    """One diffusers model from a local folder; every tensor must be there, fit, and be finite.

    Raises:
        CheckpointError: damaged, incomplete, or not what its configuration says.
    """
    files, variant = weight_files(folder, variant)
    for file in files:
        check_weights_file(file)
    if files[0].suffix == ".bin":
        return _from_bin(kind, folder, files, dtype)
    try:
        # diffusers prints about safety checkers and unused keys
        with contextlib.redirect_stdout(io.StringIO()):
            model, info = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, torch_dtype=dtype, low_cpu_mem_usage=True, variant=variant,
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:  # safetensors, JSON, missing files and wrong shapes each raise their own kind
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{folder}: not a readable {kind.__name__} ({reason[:200]})", _AGAIN) from None
    # with low_cpu_mem_usage diffusers leaves a missing tensor on the meta device, without an error
    missing = sorted({*info["missing_keys"], *(name for name, tensor in model.state_dict().items() if tensor.is_meta)})
    if missing:
        raise CheckpointError(f"{folder}: {len(missing)} tensors are missing, the first is {missing[0]}", _AGAIN)
    require_finite(model, str(folder))
    return model


def require_finite(model: nn.Module, where: str) -> None:
    """Raises CheckpointError when a tensor of `model` holds NaN or infinity: every picture would be black."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel():
            low, high = torch.aminmax(tensor)  # both are NaN as soon as one value is
            if not (bool(low.isfinite()) and bool(high.isfinite())):
                raise CheckpointError(f"{where}: the tensor {name} holds values that are not finite", _AGAIN)


def _from_bin(kind: Any, folder: Path, files: list[Path], dtype: torch.dtype) -> Any:
    """Pickled weights, read without executing them."""
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= read_tensors(file)
    settings: Mapping[str, Any] = read_json(folder / "config.json")
    try:
        with torch.device("meta"):
            model = kind.from_config(settings)
        model.load_state_dict({name: value.to(dtype, copy=True) for name, value in tensors.items()}, strict=True, assign=True)
    except Exception as error:  # diffusers and torch each raise their own kind
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines[1] if len(lines) > 1 else lines[0])[:200] if lines else type(error).__name__
        raise CheckpointError(f"{files[0]}: does not fit {folder / 'config.json'} ({reason})", _AGAIN) from None
    require_finite(model, str(folder))
    return model.eval()
