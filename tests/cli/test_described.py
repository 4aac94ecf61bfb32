"""What an option that is a setting means is written once, at the setting."""

from __future__ import annotations

import pytest

from cli._described import field_help
from dreamdiff.diffusion.pipeline import PipelineConfig
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pretraining.config import PretrainConfig
from dreamdiff.programs.ablate_config import AblateConfig
from dreamdiff.programs.demo_config import DemoConfig
from dreamdiff.protocols.config import EvaluateConfig
from eegprep.signals.recipe import Recipe


@pytest.mark.parametrize("field", list(Recipe.model_fields))
def test_help_is_read_from_the_source_as_pydantic_has_it(field):
    """The two readings of one text must agree, or `--help` says something that is not so."""
    described = Recipe.model_fields[field]

    text = field_help("eegprep.signals.recipe", "Recipe", field)

    assert text.startswith(described.description.replace("`", ""))
    default = described.default
    default = default or None if isinstance(default, tuple) else default
    shown = f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"
    assert text.endswith(shown) is (default is not None)


@pytest.mark.parametrize(
    "config",
    [
        Recipe,
        PretrainConfig,
        FinetuneConfig,
        GenerateConfig,
        EvaluateConfig,
        AblateConfig,
        DemoConfig,
        ImportConfig,
        PipelineConfig,
    ],
)
def test_every_setting_is_described(config):
    """Help, the reference and TOML files made by the commands have no other source."""

    def undescribed(schema):
        for name, field in schema.model_fields.items():
            if not field.description:
                yield f"{schema.__name__}.{name}"
            if hasattr(field.annotation, "model_fields"):
                yield from undescribed(field.annotation)

    known = {"MaskedSignalConfig", "SignalConfig"}  # sections that other files describe
    assert [name for name in undescribed(config) if name.split(".")[0] not in known] == []
