"""The kinds of encoders, by name: one table, so that a new kind is one entry here and one file beside this one.

Every kind is a module class with `Config` (a `Settings` with `channels` and `window`), built from that configuration, with
`config`, `tokens`, `width`, and `forward(eeg_BCT, scale_B=None)` -> (B, tokens, width). The section `encoder` of config.json names
the kind; without a name it is "paper", as in all folders of release 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from dreamdiff.encoders.weights import config_section, load_module, signal_section
from dreamdiff.run_folder import read_config, weights_folder
from eegprep import settings
from eegprep.errors import CheckpointError

# kind -> module and class, imported when asked for
KINDS: dict[str, tuple[str, str]] = {
    "paper": ("dreamdiff.encoders.encoder", "EEGEncoder"),
    "conv": ("dreamdiff.encoders.conv", "ConvEncoder"),
    "fronted": ("dreamdiff.encoders.fronted", "FrontedEncoder"),
    "positions": ("dreamdiff.encoders.positions", "PositionsEncoder"),
    "braindecode": ("dreamdiff.encoders.library", "LibraryEncoder"),
    "nice": ("dreamdiff.encoders.published.nice", "NiceEncoder"),
    "atm-s": ("dreamdiff.encoders.published.atm", "AtmEncoder"),
    "enigma": ("dreamdiff.encoders.published.enigma", "EnigmaEncoder"),
}


# architectures whose weights hold those of an encoder under `encoder.`
HOLD_AN_ENCODER = {"AlignedEncoder", "MaskedPositionsModel"}


def encoder_class(name: str) -> Any:
    """The class of a kind.

    Raises:
        CheckpointError: a kind that this release does not know.
    """
    if name not in KINDS:
        raise CheckpointError(
            f"there is no encoder kind {name!r}{settings.suggest(name, KINDS)}", f"this release knows: {', '.join(KINDS)}"
        )
    module, attribute = KINDS[name]
    return getattr(import_module(module), attribute)


def build_encoder(section: Mapping[str, Any]) -> nn.Module:
    """A module with fresh weights from the section `encoder` of a configuration."""
    kind = encoder_class(str(section.get("kind", "paper")))
    return kind(settings.validated(kind.Config, section))


def read_encoder(folder: str | Path, changes: Mapping[str, Any] | None = None) -> nn.Module:
    """The encoder of any kind in a folder: an encoder's own, a run of `dreamdiff train msm`, or one of `dreamdiff train align`.

    Args:
        changes: settings that replace those in config.json, such as another `window`; the weights must still fit.
    """
    source = weights_folder(Path(folder))
    content = read_config(source)
    section = {**config_section(content, "encoder", source), **(changes or {})}
    derived = getattr(encoder_class(str(section.get("kind", "paper"))), "derived", ()) if changes else ()
    encoder = load_module(lambda: build_encoder(section), source, prefix=encoder_prefix(content), derived=derived)
    if "signal" in content:
        encoder.signal = signal_section(content)  # type: ignore[assignment]
    return encoder


def encoder_prefix(content: Mapping[str, Any]) -> str:
    """What stands before the encoder's names in model.safetensors: nothing in a folder that holds the encoder alone."""
    return "encoder." if "decoder" in content or content.get("architecture") in HOLD_AN_ENCODER else ""
