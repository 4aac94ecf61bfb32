"""What a model folder is, read from its names and config.json alone: PyTorch is not needed to tell runs apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eegprep.errors import CheckpointError, missing_path
from eegprep.sealed import read_object

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
ALIGNED = "AlignedEncoder"  # architecture of the runs of `train align`


def weights_folder(folder: Path) -> Path:
    """`folder` itself when it holds weights, else the newest checkpoint of the run in it."""
    if not folder.exists():
        raise missing_path(folder, CheckpointError)
    if (folder / WEIGHTS_FILE).is_file():
        return folder
    # step numbers have leading zeros, so that the order of names is that of steps
    checkpoints = sorted((folder / "checkpoints").glob("step-*/" + WEIGHTS_FILE))
    if checkpoints:
        return checkpoints[-1].parent
    raise CheckpointError(
        f"{folder}: there is no {WEIGHTS_FILE} in it, nor a checkpoint of a run",
        "give the --out folder of `dreamdiff train msm` or of `dreamdiff convert`",
    )


def read_config(folder: Path) -> Mapping[str, Any]:
    """config.json of a model folder."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise CheckpointError(f"{file}: missing", "give a folder that holds config.json beside model.safetensors")
    content = read_object(file)
    if content is None:
        raise CheckpointError(f"{file}: not JSON", "make the folder again with the command that wrote it")
    if content.get("version") != 1:
        raise CheckpointError(
            f"{file}: version {content.get('version')!r}, this release reads version 1", "use the release that wrote it"
        )
    return content


def is_aligned(folder: str | Path) -> bool:
    """Whether a folder holds an aligned encoder, finished or not."""
    try:
        return read_config(weights_folder(Path(folder))).get("architecture") == ALIGNED
    except (CheckpointError, OSError):
        return False
