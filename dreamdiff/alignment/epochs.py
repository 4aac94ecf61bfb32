"""The trained weights of every epoch of an alignment, kept small enough to ask afterwards what choosing an epoch is worth."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from dreamdiff.training.checkpoint import trained_state
from dreamdiff.untrusted.tensors import save_tensors

EPOCHS = "epochs"


def keep_epoch(run_dir: Path, module: nn.Module, step: int, score: float | None, most_mb: float) -> bool:
    """Write the parameters that train, unless they are larger than `most_mb` megabytes; whether they were written.

    Args:
        score: on validation trials, lower is better; None without any.
    """
    state = trained_state(module)
    if sum(p.numel() * p.element_size() for p in state.values()) > most_mb * 1e6:
        return False
    facts = {"step": str(step), **({} if score is None else {"score": repr(score)})}
    save_tensors(run_dir / EPOCHS / f"step-{step:08d}.safetensors", state, facts)
    return True


def epoch_files(run_dir: Path) -> list[Path]:
    """The kept epochs of a run, in order."""
    return sorted((run_dir / EPOCHS).glob("step-*.safetensors"))
