"""What a person says of EEG files that do not say it themselves."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from eegprep.settings import Settings


class FileReading(Settings):
    """What a person says of an EEG file that does not say it, as `eegprep build` takes it."""

    sfreq: float | None = Field(
        default=None, gt=0, description="Sampling rate of files that do not state it, such as tables and arrays, Hz"
    )
    unit: str = Field(default="", description="Unit of channels whose file does not state it: uV, mV or V")
    channel_names: tuple[str, ...] = Field(
        default=(),
        description="Names of channels, for files that have none; or which channels are EEG, where their names do not say",
    )
    scale: float | None = Field(
        default=None, gt=0, description="Factor for all values, e.g. 1e-6 where microvolts are stored as volts"
    )

    @property
    def given(self) -> dict[str, Any]:
        """What was said, as plain JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)
