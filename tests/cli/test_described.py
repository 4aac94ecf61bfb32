"""What an option that is a setting means is written once, at the setting."""

from __future__ import annotations

import pytest
import typer.main

from cli._described import field_help
from cli.main import dreamdiff_app
from dreamdiff.alignment.config import AlignConfig
from dreamdiff.diffusion.pipeline import PipelineConfig
from dreamdiff.evaluation.retrieve import RetrieveConfig
from dreamdiff.evaluation.scorer import EvaluateConfig
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pretraining.config import PretrainConfig
from dreamdiff.programs.ablate_config import AblateConfig
from dreamdiff.programs.demo_config import DemoConfig
from dreamdiff.simulation.config import SimulateConfig
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
        AlignConfig,
        RetrieveConfig,
        SimulateConfig,
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


@pytest.mark.parametrize(
    ("command", "config", "own"),
    [
        ("ablate", AblateConfig, set()),
        ("evaluate", EvaluateConfig, {"baselines"}),  # a flag that stands for a list of names
        ("generate", GenerateConfig, set()),
        ("retrieve", RetrieveConfig, set()),
        ("pairs import", ImportConfig, set()),
        ("pairs simulate", SimulateConfig, set()),
    ],
)
def test_an_option_that_is_a_setting_says_what_the_setting_says(command, config, own):
    """One description for `--help`, the reference and TOML files: a second one would sooner or later say something else."""
    result = typer.main.get_command(dreamdiff_app)
    for word in command.split():
        result = result.commands[word]
    shared = {"device", "precision"}  # one text for all commands, see cli/_described.py
    options = {one.name: one.help for one in result.params if one.name in config.model_fields and one.name not in shared}

    wrong = [n for n, text in options.items() if not text.startswith(config.model_fields[n].description.replace("`", ""))]

    assert options and set(wrong) == own & set(options)
