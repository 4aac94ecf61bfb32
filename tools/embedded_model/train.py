"""Train the embedded model from the drawings: autoencoder, CLIP, its image tower further, the decoder again, the U-Net, the adapter.

`python -m tools.embedded_model.train all --work build/embedded-model` (or `make embedded-model`).  Every stage is resumable: it
saves its whole state every few minutes, and every random number of a step follows from the seed and the step's number alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dreamdiff.embedded import paths
from tools.embedded_model.adapter import export_adapter, train_adapter
from tools.embedded_model.clip import export_clip, load_clip, train_clip
from tools.embedded_model.stages import PLANS, SEED, Plan
from tools.embedded_model.tower import train_tower
from tools.embedded_model.unet import export_unet, train_unet
from tools.embedded_model.vae import export_vae, load_vae, train_decoder, train_vae

STAGES = ("vae", "clip", "tower", "decoder", "unet", "adapter")


def main(arguments: list[str] | None = None) -> None:
    """Train the stages asked for, in order, and write their folders."""
    parser = argparse.ArgumentParser(prog="python -m tools.embedded_model.train", description="Train the embedded model again.")
    parser.add_argument("stage", nargs="?", default="all", choices=[*STAGES, "all"])
    parser.add_argument("--work", type=Path, default=Path("build/embedded-model"), help="states and logs, to go on after a stop")
    parser.add_argument("--out", type=Path, default=paths().sd.parent, help="where sd/, clip/ and adapter/ are written")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, help="another number of steps (for one stage)")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    expected = STAGES if given.stage == "all" else (given.stage,)

    def plan(name: str) -> Plan:
        known = PLANS[name]
        return Plan(**{**known.__dict__, "steps": given.steps}) if given.steps and name in expected else known

    if "vae" in expected:
        export_vae(train_vae(given.work, given.seed, plan("vae")), given.out / "sd")
    if "clip" in expected:
        export_clip(train_clip(given.work, given.seed, plan("clip")), given.out / "clip")
    if "tower" in expected:
        export_clip(train_tower(given.work, given.seed, plan("tower"), load_clip(given.out / "clip")), given.out / "clip")
    if "decoder" in expected:
        export_vae(train_decoder(given.work, given.seed, plan("decoder"), load_vae(given.out / "sd")), given.out / "sd")
    if "unet" in expected:
        export_unet(
            train_unet(given.work, given.seed, plan("unet"), load_vae(given.out / "sd"), load_clip(given.out / "clip")),
            given.out / "sd",
        )
    if "adapter" in expected:
        clip, vae = load_clip(given.out / "clip"), load_vae(given.out / "sd")
        trained = train_adapter(given.work, given.seed, plan("adapter"), given.out / "sd", vae, clip)
        export_adapter(trained, given.out / "adapter", clip, given.out / "clip")


if __name__ == "__main__":
    main()
