"""The folder of a `DreamDiffusionPipeline`: where it is in a run, its small parts, what may be asked of it, and its digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamdiff.diffusion.conditioner import Conditioner, ConditionerConfig
from dreamdiff.encoders.weights import load_module, save_folder
from dreamdiff.run_folder import read_config
from dreamdiff.untrusted.tensors import sha256_once
from eegprep import settings
from eegprep.errors import CheckpointError, ModelError, UsageError
from eegprep.sealed import read_object

INDEX, DETAILS, FOLDER = "model_index.json", "dreamdiff.json", "pipeline"
# what model_index.json has always called our own parts; diffusers would write the module that a class happens to live in
OWN_PARTS = {"encoder": ["dreamdiff.encoder", "EEGEncoder"], "conditioner": ["dreamdiff.conditioner", "Conditioner"]}

PARTS = ("unet", "vae", "scheduler", "encoder", "conditioner")


def pipeline_folder(folder: Path) -> Path:
    """`folder` itself, or the pipeline in the run that it is."""
    for candidate in (folder, folder / FOLDER):
        if (candidate / INDEX).is_file():
            return candidate
    if (folder / "run.json").is_file():
        raise ModelError(
            f"{folder}: the run in it has not finished, there is no pipeline yet",
            "run `dreamdiff train finetune` again with the same --out",
        )
    raise ModelError(
        f"{folder}: no {INDEX} in it", "give a run of `dreamdiff train finetune`, or a folder of `dreamdiff convert`"
    )


def save_conditioner(conditioner: Conditioner, folder: Path) -> None:
    """config.json and model.safetensors."""
    save_folder(
        folder,
        {"architecture": "Conditioner", "version": 1, "conditioner": conditioner.config.model_dump()},
        conditioner.state_dict(),
    )


def load_conditioner(folder: Path) -> Conditioner:
    """The inverse of `save_conditioner`; every tensor must fit."""
    content = read_config(folder)
    config = settings.validated(ConditionerConfig, content.get("conditioner", {}))
    return load_module(lambda: Conditioner(config), folder)


# what diffusers' pipelines take for loading and means nothing, or is always so, for a local folder
_IGNORED = {
    "use_safetensors", "low_cpu_mem_usage", "force_download", "proxies", "mirror",
    "disable_mmap", "use_onnx", "load_connected_pipeline", "trust_remote_code",
}  # fmt: skip


def check_options(options: dict[str, Any]) -> None:
    """Raises UsageError for what `from_pretrained` does not know."""
    for name in options:
        if name == "device_map":
            raise UsageError(
                "device_map is not supported", "load the pipeline, then call .to(device) or enable_model_cpu_offload()"
            )
        if name not in _IGNORED:
            known = [
                *PARTS,
                *_IGNORED,
                "local_files_only",
                "revision",
                "cache_dir",
                "token",
                "dtype",
                "torch_dtype",
                "verify",
                "scheduler",
                "variant",
            ]
            raise UsageError(f"from_pretrained has no option {name!r}{settings.suggest(name, known)}", "leave it out")
    if options.get("use_safetensors") is False:
        raise UsageError("use_safetensors=False is not supported", "weights are safetensors; leave it out")


def verify_files(folder: Path, files: dict[str, str]) -> None:
    for name, expected in files.items():
        digest = sha256_once(folder / name) if (folder / name).is_file() else "nothing"
        if digest != expected:
            raise CheckpointError(
                f"{folder / name}: SHA-256 is {digest[:12]}, it was {expected[:12]} when the pipeline was written",
                "copy the pipeline again",
            )


def require_json(file: Path) -> dict[str, Any]:
    content = read_object(file)
    if content is None:
        raise CheckpointError(f"{file}: missing or not JSON", "copy the pipeline again")
    return content
