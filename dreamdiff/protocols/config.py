"""Settings of `dreamdiff evaluate` and `dreamdiff retrieve`; importing them loads no network."""

from __future__ import annotations

from pydantic import Field

from dreamdiff.devices import Device, Precision
from eegprep.settings import Settings


class EvaluateConfig(Settings):
    """How a model is judged."""

    split: str = Field(default="test", description="Part of a split to evaluate: `test`, `val`, or NAME/test as in `block/test`")
    samples: int = Field(default=3, ge=1, description="Images per trial; every number is their mean, never the best")
    trials: int | None = Field(
        default=None, ge=2, description="Maximum number of trials, taken evenly from all classes [default: all]"
    )
    steps: int = Field(default=20, ge=1, description="Sampler steps per image")
    guidance: float | None = Field(default=None, ge=0, description="Guidance scale [default: the model's own]")
    scheduler: str = Field(
        default="dpm-solver++", description="Noise schedule: dpm-solver++, pndm, ddim, ..., or a diffusers class"
    )
    batch_size: int = Field(default=8, ge=1, description="Images at a time")
    device: Device = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one, a device that is not there is an error",
    )
    precision: Precision = Field(default="fp32", description="Precision of the networks: fp32, bf16 or fp16 (GPU only)")
    seed: int = Field(default=0, ge=0, description="Random seed of images, draws and intervals")
    n_way: int = Field(default=50, ge=2, description="Classes in a draw of the n-way accuracy")
    draws: int = Field(default=50, ge=1, description="Draws per image of the n-way accuracy")
    classifier: str = Field(
        default="efficientnet-lite0",
        description="ImageNet classifier: efficientnet-lite0, vit_h_14:FILE for the paper's protocol, or another torchvision NAME:FILE",
    )
    inception: str | None = Field(default=None, description="Weight file of the Inception network, for FID, KID and IS")
    lpips: str | None = Field(default=None, description="Weight file of torchvision's AlexNet, for LPIPS")
    clip: str = Field(
        default="auto",
        description="CLIP that judges: `embedded`, a folder, ARCHITECTURE:FILE, or `none`; `auto` takes the embedded one where its width fits the model",
    )
    controls: bool = Field(default=False, description="Run the controls, which show what else could have produced the result")
    control_trials: int = Field(default=40, ge=2, description="Trials of the controls that need new images")
    baselines: tuple[str, ...] = Field(default=(), description="Names of baselines measured on the same trials, or `all`")
    certificate_trials: int = Field(
        default=24, ge=2, description="Trials for which each row of the certificate makes a picture; vectors are judged for all"
    )
    baseline_epochs: int = Field(default=30, ge=1, description="Passes over the training trials for baselines that are trained")
    sd: str = Field(
        default="auto", description="Frozen generator of the baselines; `auto` takes the one that the model was trained from"
    )


class RetrieveConfig(Settings):
    """How vectors are judged."""

    split: str = Field(default="test", description="Part of a split to evaluate: `test`, `val`, or NAME/test as in `block/test`")
    gallery: str = Field(
        default="test",
        description="`test` (the different pictures of that part), or an npz file whose `vectors` (n, D) are added as wrong answers",
    )
    repetitions: tuple[str, ...] = Field(
        default=("1", "2", "4", "...", "all"),
        description="Numbers of trials of a picture that are averaged, separated by commas; `...` goes on doubling, `all` takes every one",
    )
    centres: str | None = Field(
        default=None,
        description="Folder FOLDER/CONCEPT/* with further pictures of concepts that training never shows, for the protocol of class centres",
    )
    ways: int | None = Field(
        default=None,
        ge=2,
        description="Number of pictures to choose from, averaged over all such galleries [default: all of the gallery]",
    )
    target: str = Field(default="0", description="Name or number of the model's target; 0 is the first")
    seed: int = Field(default=0, description="Random seed of groups, controls and intervals")
    device: Device = Field(
        default="auto",
        description="Device: auto, cpu, cuda, cuda:N or mps; `auto` takes a GPU where there is one, a device that is not there is an error",
    )
