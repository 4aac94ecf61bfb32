"""What leaves the project says what it is: recorded or simulated EEG, generator and model, licences, and no path of this machine.

A picture says so in its PNG text, a sidecar and a pipeline folder in a section `origin`, a sheet and a page in words.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, PngImagePlugin
from pydantic import Field

from eegprep import atomic
from eegprep.settings import Settings

Provenance = Literal["recorded", "simulated", "unknown"]

# base model, by a part of its name -> licence of its weights
GENERATOR_LICENCES = (
    ("embedded", "MIT"), ("stable-diffusion-v1", "CreativeML OpenRAIL-M"), ("v1-5", "CreativeML OpenRAIL-M"),
    ("v1-4", "CreativeML OpenRAIL-M"), ("stable-diffusion-2", "CreativeML OpenRAIL++-M"), ("sdxl-turbo", "Stability AI Community"),
    ("stable-diffusion-xl", "CreativeML OpenRAIL++-M"), ("kandinsky", "Apache-2.0"),
)  # fmt: skip


class PictureOrigin(Settings):
    """Where a picture comes from."""

    eeg: Provenance = Field(description="The EEG that it was made from")
    training: Provenance = Field(description="The EEG-image pairs that the model was trained on")
    model: str = Field(description="What turned EEG into a condition, by name")
    generator: str = Field(description="What drew it, by name; empty where nothing was drawn")
    licences: dict[str, str] = Field(description="Of the EEG, the training pairs and the generator")

    @property
    def sentence(self) -> str:
        """For people, in words."""
        drawn = f"generator {self.generator}; " if self.generator else ""
        return (
            f"{self.eeg} EEG; model {self.model}, trained on {self.training} EEG; {drawn}"
            f"licences: {roll_up(self.licences.values())}"
        )

    def notes(self) -> dict[str, str]:
        """Text of a PNG."""
        return {
            "provenance": f"{self.eeg} EEG; trained on {self.training} EEG", "generator": self.generator, "model": self.model,
            "licence": "; ".join(f"{what}: {licence}" for what, licence in self.licences.items()),
        }  # fmt: skip


def roll_up(licences: Iterable[str]) -> str:
    """Licences, each once, in order."""
    return (
        ", ".join(dict.fromkeys(part.strip() for text in licences for part in str(text).split(",") if part.strip())) or "unknown"
    )


def generator_name(source: object) -> str:
    """A base model by name, never by where it lies: embedded, owner/model, or the last part of a path."""
    text = str(source or "unknown")
    if text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text).exists():
        return text  # a name of a hub
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] or "unknown"


def generator_licence(name: str) -> str:
    """Of a base model that is known by name; "not stated" otherwise."""
    return next((licence for part, licence in GENERATOR_LICENCES if part in name.lower()), "not stated")


def as_provenance(text: object) -> Provenance:
    """The word, or "unknown"."""
    return "recorded" if text == "recorded" else "simulated" if text == "simulated" else "unknown"


def picture_origin(training: Mapping[str, Any], *, model: str, generator: object, eeg: object, licence: str) -> PictureOrigin:
    """Origin of the pictures of a model.

    Args:
        training: what a model says of its training: provenance, licence. model: name of what reads EEG.
        generator: base model as it was asked for; "" where nothing is drawn. eeg, licence: of the EEG that is shown to it.
    """
    licences = {"EEG": licence or "unknown", "training pairs": str(training.get("licence") or "unknown")}
    name = "" if generator == "" else generator_name(training.get("sd") if generator is None else generator)
    if name:
        licences["generator"] = str(training.get("generator_licence") or generator_licence(name))
    return PictureOrigin(
        eeg=as_provenance(eeg), training=as_provenance(training.get("provenance")), model=model, generator=name, licences=licences
    )


# --------------------------------------------------------------------------------------------------- paths and pictures


def portable(path: str | Path, folder: Path) -> str:
    """How a file in `folder` names another file or folder: relative to itself; names of hubs and addresses stay."""
    text = str(path)
    if text == "embedded" or "://" in text or not Path(text).exists():
        return text if not Path(text).is_absolute() else Path(text).name
    return Path(os.path.relpath(Path(text).resolve(), folder.resolve())).as_posix()


def found_again(text: str, folder: Path) -> str:
    """The inverse of `portable`; what is not there is left as it is (sidecars of 0.1.0 count from where the command ran)."""
    candidate = folder / text
    return str(candidate) if "://" not in text and candidate.exists() else text


def portable_settings(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Settings as a file in `folder` holds them: what names a place on this machine (`FOLDER`, `NAME:FILE`) is named from there."""

    def moved(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, mark, file = value.partition(":")
        if Path(value).is_absolute():
            return portable(value, folder)
        return f"{name}:{portable(file, folder)}" if mark and Path(file).is_absolute() else value

    return {key: moved(value) for key, value in content.items()}


def space_name(target: str) -> str:
    """The name of a target's space without the folder of its file: `vectors:/home/x/v.npz` is `vectors:v.npz`."""
    kind, mark, file = target.partition(":")
    return f"{kind}:{Path(file).name}" if mark and Path(file).is_absolute() else target


def without_folders(text: str) -> str:
    """A message for somebody elsewhere: the names of files, not where they lie on this machine."""
    return re.sub(r"(?<![\w.:/])(?:~|[A-Za-z]:)?[\\/](?:[^\s:'\"\\/]+[\\/])+(?=[^\s\\/])", "", text)


def write_png(file: Path, image_HWC: np.ndarray, notes: Mapping[str, str]) -> None:
    """A PNG with text notes in it, whole or not at all."""
    atomic.write_bytes(file, png(image_HWC, notes))


def png(image_HWC: np.ndarray, notes: Mapping[str, str]) -> bytes:
    """The bytes of a PNG with text notes in it."""
    info = PngImagePlugin.PngInfo()
    for name, text in notes.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


CAPTION_LINE = 12  # pixels


def caption_strip(text: str, width: int) -> np.ndarray:
    """(h, width, 3): a sentence over a sheet, broken into lines that fit."""
    most = max(10, (width - 8) // 6)  # the default font has 6 pixels a letter
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > most:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    lines.append(line)
    strip = Image.new("RGB", (width, CAPTION_LINE * len(lines) + 6), "#fdf4e3")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((4, 2 + CAPTION_LINE * number), line, fill="black")
    return np.asarray(strip)
