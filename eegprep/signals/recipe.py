"""How recordings become windows: every setting that changes a number in the corpus, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from eegprep import provenance, settings
from eegprep.settings import Settings
from eegprep.signals.filters import NyquistPolicy

# raised when the same settings begin to give other numbers, so that old subjects are rebuilt; 2: the filter runs in float32
ALGORITHM = 2

LARGEST_WINDOW = 1 << 26  # values: 256 MB


# see `_as_before`
_SINCE_0_2 = ("max_channels", "select_channels")


class Recipe(Settings):
    """Settings of `filter` and `pad`. Defaults are those of the DreamDiffusion paper where it names them."""

    low: float = Field(default=5.0, ge=0.001, description="Lower edge of the pass band, Hz (paper: 5)")
    high: float = Field(default=95.0, gt=0, description="Upper edge of the pass band, Hz (paper: 95)")
    nyquist: NyquistPolicy = Field(
        default="clip",
        description="What to do when the upper edge does not fit a recording's rate: `clip` it to 0.45 x rate, only `highpass`, `skip` the recording, or stop with an `error`",
    )
    resample: float | None = Field(
        default=None, ge=1, le=100_000, description="Common sampling rate, Hz; each recording's own when not given (paper)"
    )
    notch: Annotated[float, Field(ge=1, le=1000)] | Literal["auto"] | None = Field(
        default=None,
        description="Line frequency to remove with its harmonics, Hz, or `auto` for the recording's own; off when not given (paper)",
    )
    channels: int = Field(default=128, ge=1, le=100_000, description="Rows of a window (paper: 128)")
    window: int = Field(default=512, ge=2, le=100_000_000, description="Samples of a window (paper: 512)")
    stride: int = Field(default=512, ge=1, description="Samples from the start of one window to the next")
    windows: Literal["sliding", "trials"] = Field(
        default="sliding", description="`sliding` over each recording, or one window per trial (`trials`)"
    )
    short: Literal["skip", "stretch"] = Field(
        default="skip", description="Recordings shorter than a window: `skip` them, or `stretch` them to a window (released code)"
    )
    mode: Literal["replicate", "zeros", "spline"] = Field(
        default="replicate",
        description="How rows beyond the recording's channels are filled: `replicate` the channels in order (paper), `zeros`, or `spline` interpolation",
    )
    channel_order: Literal["source", "canonical"] = Field(
        default="source",
        description="Order of channels: as in the `source`, or `canonical` from front to back and left to right, so that a row is about the same place everywhere",
    )
    max_per_subject: int | None = Field(default=None, ge=1, description="At most so many windows from a subject, drawn at random")
    seed: int = Field(default=0, description="Seed of the draw of max_per_subject")
    min_channels: int = Field(default=1, ge=1, description="Recordings with fewer EEG channels than this are quarantined")
    min_uv: float = Field(
        default=1.0,
        ge=0,
        description="Recordings whose median channel standard deviation after filtering is below this are quarantined, uV",
    )
    max_uv: float = Field(
        default=300.0,
        gt=0,
        description="Recordings whose median channel standard deviation after filtering is above this are quarantined, uV",
    )
    max_channels: int | None = Field(
        default=None, ge=1, description="Recordings with more EEG channels than this are quarantined"
    )
    select_channels: tuple[str, ...] = Field(
        default=(),
        description="Only these channels, by name; without any: all, and of more than fit as many as fit, spread over the head",
    )

    @model_serializer(mode="wrap")
    def _as_before(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that 0.1.0 did not have are written only when used, so that recipes and fingerprints of others stay."""
        content: dict[str, Any] = write(self)
        return {key: value for key, value in content.items() if key not in _SINCE_0_2 or value}

    @model_validator(mode="after")
    def _fits_memory(self) -> Recipe:
        if self.channels * self.window > LARGEST_WINDOW:
            raise ValueError(f"{self.channels} channels x {self.window} samples are more than {LARGEST_WINDOW:,} values a window")
        return self


def make_recipe(**options: Any) -> Recipe:
    """A recipe from options, None meaning "not given"; mistakes become a UsageError that names the key."""
    return settings.validated(Recipe, {key: value for key, value in options.items() if value is not None})


def recipe_fingerprint(recipe: Recipe) -> str:
    """Equal for recipes that give the same numbers."""
    return provenance.fingerprint({"algorithm": ALGORITHM, **recipe.model_dump(mode="json")})
