"""The authors' fine-tuned checkpoint -> a `DreamDiffusionPipeline` folder, without executing the pickle.

The file is a dictionary `model_state_dict`, `config` (a pickled configuration object), `state`. Names in `model_state_dict`:

    model.diffusion_model.*                          U-Net in CompVis names; `time_embed_condtion.{0,1,2}` (sic): time branch
    first_stage_model.*                              VAE
    cond_stage_model.mae.*                           EEG encoder
    cond_stage_model.channel_mapper.{0,1}, dim_mapper    tau
    cond_stage_model.mapping.{maxpool,fc}            CLIP head h
    image_embedder.*                                 CLIP image tower: not needed to generate, left out
    betas, alphas_cumprod, ...                       noise schedule: checked against the configuration
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.diffusion.noise import load_scheduler, make_scheduler
from dreamdiff.diffusion.pipeline import DreamDiffusionPipeline, PipelineConfig
from dreamdiff.diffusion.stable_diffusion import SD15_CONFIG, from_compvis
from dreamdiff.diffusion.trainable import accept_time_branch
from dreamdiff.encoders.config import EncoderConfig
from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.transformer import position_table
from dreamdiff.encoders.weights import fill, state_problems
from dreamdiff.untrusted import checkpoints as safe_pickle
from dreamdiff.untrusted.states import attributes_of, state_of
from eegprep.errors import CheckpointError, ModelError
from eegprep.provenance import sha256_file

ENCODER, TAU, TIME = "cond_stage_model.mae.", "cond_stage_model.", "model.diffusion_model.time_embed_condtion."

NAMES = {
    "channel_mapper.": "channel_mapper.", "dim_mapper.": "dim_mapper.",
    "mapping.maxpool.": "clip_head.pool.", "mapping.fc.": "clip_head.fc.",
}  # fmt: skip

LEFT_OUT = ("image_embedder.", "cond_stage_model.mae.mask_token", "model_ema.")

AUTHORS_HEADS = 16  # Config_MBM_EEG, used when the pickled configuration does not say


@dataclass(frozen=True)
class Converted:
    """What a conversion read: how many tensors went where, and what was left out."""

    out: Path
    tensors: dict[str, int]
    left_out: int
    remarks: tuple[str, ...]


def is_finetuned(content: Any) -> bool:
    """Whether a checkpoint is the authors' fine-tuned one (and not the pre-training one)."""
    return any(name.startswith(ENCODER) for name in weights_of(content))


def weights_of(content: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint in the authors' names, whatever was put around them."""
    return state_of(content, ("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.mae.patch_embed.proj.weight"))


def convert_finetuned(checkpoint: str | Path, out: Path, *, config: Path | None = None) -> Converted:
    """Convert and write the pipeline folder `out`.

    Args:
        checkpoint: the authors' `checkpoint.pth` or `checkpoint_best.pth`.
        config: folder with `unet/`, `vae/`, `scheduler/` configurations; default Stable Diffusion 1.5's.

    Raises:
        CheckpointError: not that checkpoint, or damaged. ModelError: its parts do not have the configured shape.
    """
    path, settings = Path(checkpoint), config or SD15_CONFIG
    content = safe_pickle.load(path)
    if not is_finetuned(content):
        raise CheckpointError(
            f"{path}: not the authors' fine-tuned checkpoint, no tensor is called {ENCODER}*",
            "give checkpoint.pth or checkpoint_best.pth of their fine-tuning",
        )
    tensors = weights_of(content)
    time = _under(tensors, TIME)
    compvis = {name: value for name, value in tensors.items() if not name.startswith(TIME)}
    unet, vae = (from_compvis(kind, compvis, settings, str(path), torch.float32) for kind in ("unet", "vae"))
    if time:
        accept_time_branch(unet)
    pickled = attributes_of(content.get("config")) if isinstance(content, Mapping) else {}
    encoder = _encoder(_under(tensors, ENCODER), pickled, path)
    conditioner = _conditioner(_under(tensors, TAU), time, encoder, path)
    schedule = load_scheduler(settings / "scheduler")
    _check_schedule(tensors, schedule, path)
    details = PipelineConfig(training={"source": "authors' fine-tuned checkpoint", "sha256": sha256_file(path)})
    DreamDiffusionPipeline(
        unet, vae, make_scheduler("dpm-solver++", schedule.config), encoder, conditioner, details
    ).save_pretrained(out)
    counts = {
        "U-Net": len(unet.state_dict()), "VAE": len(vae.state_dict()), "EEG encoder": len(encoder.state_dict()),
        "tau, CLIP head, time branch": len(conditioner.state_dict()) - 1,
    }  # fmt: skip
    left_out = sum(name.startswith(LEFT_OUT) for name in tensors)
    remarks = [f"left out: {left_out} tensors of the CLIP image tower, which generation does not need"] if left_out else []
    if "cond_stage_model.mae.pos_embed" in tensors:
        remarks.append(_position_remark(tensors["cond_stage_model.mae.pos_embed"], encoder))
    return Converted(out, counts, left_out, tuple(remarks))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def encoder_config(state: Mapping[str, Tensor], pickled: Mapping[str, Any]) -> EncoderConfig:
    """Shape of the encoder, read off its tensors; only the number of heads leaves no trace and comes from the pickled settings.

    Stage B of the authors' code scales nothing, so `scaling` is "none".
    """
    width, channels, patch = state["patch_embed.proj.weight"].shape
    tokens = state["pos_embed"].shape[1] - 1
    numbers = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    depth = len(numbers)
    if numbers != {str(number) for number in range(depth)}:
        raise ValueError(f"{depth} blocks, not numbered without a gap")
    heads = pickled.get("num_heads") or AUTHORS_HEADS
    return EncoderConfig(
        channels=channels, window=tokens * patch, patch=patch, width=width, depth=depth, heads=int(heads),
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width, global_pool=bool(pickled.get("global_pool", False)),
        scaling="none",
    )  # fmt: skip


def _encoder(state: dict[str, Tensor], pickled: Mapping[str, Any], path: Path) -> EEGEncoder:
    try:
        shape = encoder_config(state, pickled)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its EEG encoder is incomplete ({error})", "copy or download the checkpoint again"
        ) from None
    with torch.device("meta"):
        encoder = EEGEncoder(shape)
    # the authors' optimiser also moved the position table, so it is taken as it is, not made anew
    _load(encoder, {name: value for name, value in state.items() if name != "mask_token"}, f"{path}: EEG encoder")
    return encoder


def _conditioner(state: dict[str, Tensor], time: dict[str, Tensor], encoder: EEGEncoder, path: Path) -> Conditioner:
    try:
        config = ConditionerConfig(
            tokens_in=encoder.tokens, width_in=encoder.width,
            tokens_mid=state["channel_mapper.0.weight"].shape[0], tokens_out=state["channel_mapper.1.weight"].shape[0],
            context_width=state["dim_mapper.weight"].shape[0],
            clip_width=state["mapping.fc.weight"].shape[0] if "mapping.fc.weight" in state else 0,
            time_width=time["2.weight"].shape[0] if time else 0,
        )  # fmt: skip
    except KeyError as error:
        raise CheckpointError(f"{path}: {TAU}{error.args[0]} is missing", "copy or download the checkpoint again") from None
    with torch.device("meta"):
        conditioner = Conditioner(config)
    # the authors train without dropped trials, so that no such tokens are in the file
    renamed = {"null_LD": torch.zeros(conditioner.null_LD.shape)}
    for old, new in NAMES.items():
        renamed |= {new + name.removeprefix(old): value for name, value in state.items() if name.startswith(old)}
    renamed |= {f"time_branch.{name}": value for name, value in time.items()}
    _load(conditioner, renamed, f"{path}: conditioner")
    return conditioner


def _load(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    problems = state_problems(module.state_dict(), state)
    if problems:
        raise CheckpointError(
            f"{where}: {'; '.join(problems)}", "this checkpoint was made by a changed version of the authors' code"
        )
    fill(module, state, where)


def _check_schedule(tensors: Mapping[str, Tensor], schedule: Any, path: Path) -> None:
    """The buffers of the checkpoint must be the configured noise schedule, or every image would be wrong."""
    stored = tensors.get("alphas_cumprod")
    if stored is None:
        return
    expected = schedule.alphas_cumprod
    if len(stored) != len(expected) or not torch.allclose(stored.float(), expected, atol=1e-4):
        raise ModelError(
            f"{path}: its noise schedule ends at {float(stored[-1]):.6f} after {len(stored)} steps, "
            f"the configuration's at {float(expected[-1]):.6f} after {len(expected)}",
            "give the configuration folder that belongs to this checkpoint",
        )


def _position_remark(stored: Tensor, encoder: EEGEncoder) -> str:
    moved = float((stored - position_table(encoder.config.tokens, encoder.config.width)).abs().max())
    return f"position table kept as stored; it lies up to {moved:.3g} from the fixed sine table (the authors' optimiser moves it)"
