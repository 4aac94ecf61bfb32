"""The authors' pre-training checkpoints and ours: there and back, without executing a pickle.

Theirs is `torch.save` of a dictionary: `model` (state dict), `optimizer`, `epoch`, `scaler`, `config` (an object of a class in their
config.py). Names in `model` are those of `mae.MaskedSignalModel` without the prefix `encoder.`. Fine-tuned checkpoints are for
`convert_finetuned`; `convert_encoder` takes the EEG encoder out of either.
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dreamdiff.encoders.config import EncoderConfig, MaskedSignalConfig, Scaling
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.mae import MaskedSignalModel
from dreamdiff.encoders.weights import fill, state_problems
from dreamdiff.programs import convert_finetuned as convert_sd
from dreamdiff.untrusted import checkpoints as safe_pickle
from dreamdiff.untrusted.states import attributes_of, state_of
from eegprep import settings
from eegprep.atomic import open_atomic
from eegprep.errors import CheckpointError

FINETUNED_PREFIX = "cond_stage_model.mae."

UNET_PREFIX = "model.diffusion_model."

AUTHORS_HEADS = 16  # Config_MBM_EEG; the state dict does not tell

OUTSIDE_ENCODER = ("decoder_", "mask_token", "nature_image_decoder")  # the last: a branch for natural images, off by default


@dataclass(frozen=True)
class Converted:
    """What a conversion found.

    kind: `pre-training` or `encoder`. unexpected: names in the file that have no place here, and were left out.
    scaling: the input scaling written to config.json.
    """

    out: Path
    kind: str
    tensors: int
    unexpected: tuple[str, ...]
    scaling: Scaling
    epoch: int | None


def is_pretrained(content: Any) -> bool:
    """Whether this is a pre-training checkpoint of the authors, or a bare state dict of one."""
    state = _state(content)
    return "patch_embed.proj.weight" in state and "decoder_pred.weight" in state


def convert_pretrained(checkpoint: str | Path, out: Path, scaling: Scaling = "divide-by-10") -> Converted:
    """Write a pre-training checkpoint of the authors as config.json + model.safetensors.

    Args:
        checkpoint: their file.
        out: folder for `MaskedSignalModel.from_pretrained` and `EEGEncoder.from_pretrained`.
        scaling: of the input. Their data loader divides by 10 before the model sees a signal, so that is the default here; `none` makes
            a model that takes what their model class takes.

    Raises:
        CheckpointError: not such a checkpoint, or tensors are missing or wrongly shaped (all are listed).
    """
    content = safe_pickle.load(checkpoint)
    if not is_pretrained(content):
        raise CheckpointError(
            f"{checkpoint}: not a pre-training checkpoint of the authors: it has no patch_embed.proj.weight and decoder_pred.weight",
            "give checkpoint.pth of their stageA1_eeg_pretrain.py",
        )
    state, settings_of = _state(content), _settings(content)
    config = settings.validated(
        MaskedSignalConfig,
        {
            "encoder": _encoder_shape(state, settings_of, scaling, checkpoint),
            "decoder": {
                "width": state["decoder_pred.weight"].shape[1],
                "depth": _depth(state, "decoder_blocks."),
                "heads": settings_of.get("decoder_num_heads", AUTHORS_HEADS),
            },
            "mask_ratio": settings_of.get("mask_ratio", 0.75),
        },
    )
    tensors = {our_name(name): tensor for name, tensor in state.items()}
    with torch.device("meta"):
        model = MaskedSignalModel(config)
    unexpected = _load(model, tensors, checkpoint)
    model.save_pretrained(out)
    epoch = content.get("epoch") if isinstance(content, Mapping) and isinstance(content.get("epoch"), int) else None
    return Converted(out, "pre-training", len(tensors) - len(unexpected), unexpected, scaling, epoch)


def convert_encoder(checkpoint: str | Path, out: Path, scaling: Scaling | None = None) -> Converted:
    """Write only the EEG encoder of a pre-training or fine-tuned checkpoint of the authors.

    Args:
        scaling: default `divide-by-10` for a pre-training checkpoint, `none` for a fine-tuned one: their data loaders differ so.
    """
    content = safe_pickle.load(checkpoint)
    finetuned, settings_of = convert_sd.is_finetuned(content), _settings(content)
    state = convert_sd.weights_of(content) if finetuned else _state(content)
    if finetuned:
        state = {n.removeprefix(FINETUNED_PREFIX): t for n, t in state.items() if n.startswith(FINETUNED_PREFIX)}
    # a pre-training checkpoint holds the decoder as well
    state = {name: tensor for name, tensor in state.items() if not name.startswith(OUTSIDE_ENCODER)}
    if "patch_embed.proj.weight" not in state:
        raise CheckpointError(
            f"{checkpoint}: holds no EEG encoder (no patch_embed.proj.weight)", "give a checkpoint of the authors' code"
        )
    # their two data loaders differ: only that of pre-training divides
    used: Scaling = scaling or ("none" if finetuned else "divide-by-10")
    shape = settings.validated(EncoderConfig, _encoder_shape(state, settings_of, used, checkpoint))
    with torch.device("meta"):
        encoder = EEGEncoder(shape)
    unexpected = _load(encoder, state, checkpoint)
    encoder.save_pretrained(out)
    return Converted(out, "encoder", len(state) - len(unexpected), unexpected, used, None)


def export_pretrained(folder: str | Path, file: Path) -> None:
    """Write one of our pre-training folders in the authors' layout, for their code to load.

    Their `config` is an object; here it's an `argparse.Namespace` with the attributes their loader reads, so that neither side needs a
    class of the other. Their code must divide its input itself where our config.json says `divide-by-10` (their data loader does).
    """
    model = MaskedSignalModel.from_pretrained(folder)
    config = model.config
    encoder, decoder = config.encoder, config.decoder
    attributes = {
        "patch_size": encoder.patch, "embed_dim": encoder.width, "depth": encoder.depth, "num_heads": encoder.heads,
        "mlp_ratio": encoder.mlp_ratio, "decoder_embed_dim": decoder.width, "decoder_num_heads": decoder.heads,
        "mask_ratio": config.mask_ratio, "use_nature_img_loss": False, "focus_range": None,
    }  # fmt: skip
    state = OrderedDict((their_name(name), tensor) for name, tensor in model.state_dict().items())
    with open_atomic(file) as stream:
        torch.save({"model": state, "epoch": 0, "config": Namespace(**attributes)}, stream)


def our_name(name: str) -> str:
    """The authors' name of a pre-training tensor -> ours."""
    return name if name.startswith(OUTSIDE_ENCODER) else f"encoder.{name}"


def their_name(name: str) -> str:
    """Our name of a pre-training tensor -> the authors'."""
    return name.removeprefix("encoder.")


def _state(content: Any) -> dict[str, Tensor]:
    """The weights in a checkpoint, under the authors' names."""
    return state_of(content, ("patch_embed.proj.weight",))


def _settings(content: Any) -> Mapping[str, Any]:
    return attributes_of(content.get("config")) if isinstance(content, Mapping) else {}


def _encoder_shape(
    state: Mapping[str, Tensor], known: Mapping[str, Any], scaling: Scaling, file: str | Path
) -> dict[str, object]:
    """The encoder's configuration, from the shapes of its tensors; heads from the pickled configuration."""
    try:
        width, channels, patch = state["patch_embed.proj.weight"].shape
        return {
            "channels": channels,
            "window": (state["pos_embed"].shape[1] - 1) * patch,
            "patch": patch,
            "width": width,
            "depth": _depth(state, "blocks."),
            "heads": known.get("num_heads", AUTHORS_HEADS),
            "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
            "scaling": scaling,
        }
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{file}: cannot determine the encoder's shape ({error} is missing or has the wrong shape)", "give a whole checkpoint"
        ) from None


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    """Blocks that are there; their numbers must have no gap, so that a name cannot stand for millions of them."""
    numbers = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    if numbers != {str(n) for n in range(len(numbers))}:
        raise ValueError(f"{prefix}{len(numbers) - 1 if numbers else 0}")
    return len(numbers)


def _load(module: torch.nn.Module, tensors: Mapping[str, Tensor], file: str | Path) -> tuple[str, ...]:
    """Give a module made without memory what fits by name; anything missing or wrongly shaped is an error, what is unexpected is returned."""
    expected = module.state_dict()
    unexpected = tuple(sorted(tensors.keys() - expected.keys()))
    known = {name: tensor for name, tensor in tensors.items() if name in expected}
    problems = state_problems(expected, known, limit=20)
    if problems:
        raise CheckpointError(f"{file}: {'; '.join(problems)}", "give a whole checkpoint of the authors' code")
    fill(module, known, str(file))
    return unexpected


def convert_any(checkpoint: Path, out: Path, *, scaling: Scaling | None = None, encoder_only: bool = False) -> dict[str, object]:
    """Tell what `checkpoint` is, convert it, and say what was found.

    Args:
        checkpoint: a file of the authors (pre-training or fine-tuned), or a pre-training folder of ours, which goes back to theirs.
        out: folder to write, or the file to write for the way back.
    """
    if checkpoint.is_dir():
        export_pretrained(checkpoint, out)
        return {"kind": "export for the authors' code", "out": str(out)}
    content = safe_pickle.load(checkpoint)
    # a Stable Diffusion checkpoint has a U-Net too, but no encoder
    unet = sum(name.startswith(UNET_PREFIX) for name in convert_sd.weights_of(content))
    if unet and not convert_sd.is_finetuned(content):
        raise CheckpointError(
            f"{checkpoint}: holds a U-Net ({unet} tensors) and no EEG encoder of the authors: a Stable Diffusion checkpoint",
            "give it to --sd as it is",
        )
    if not encoder_only and convert_sd.is_finetuned(content):
        whole = convert_sd.convert_finetuned(checkpoint, out)
        return {
            "kind": "fine-tuned",
            "out": str(out),
            **whole.tensors,
            "left out": whole.left_out,
            "remarks": list(whole.remarks),
        }
    if encoder_only or not is_pretrained(content):
        converted = convert_encoder(checkpoint, out, scaling)
    else:
        converted = convert_pretrained(checkpoint, out, scaling or "divide-by-10")
    left_behind = {"left behind": f"the U-Net ({unet} tensors), because only the encoder was asked for"} if unet else {}
    return {
        "kind": converted.kind,
        "out": str(out),
        **left_behind,
        "tensors": converted.tensors,
        "missing": [],
        "unexpected": list(converted.unexpected),
        "input scaling": converted.scaling,
        "epoch": converted.epoch,
    }
