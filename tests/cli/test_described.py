"""What an option that is a setting means is written once, at the setting."""

from __future__ import annotations

import pytest
import typer

from cli import main
from cli._described import field_help
from dreamdiff.alignment.config import AlignConfig
from dreamdiff.diffusion.pipeline import PipelineConfig
from dreamdiff.finetuning.config import FinetuneConfig
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pretraining.config import PretrainConfig
from dreamdiff.programs.ablate_config import AblateConfig
from dreamdiff.programs.demo_config import DemoConfig
from dreamdiff.protocols.config import EvaluateConfig, RetrieveConfig
from dreamdiff.simulation.config import SimulateConfig
from eegprep.signals.recipe import Recipe
from eegprep.sources.file_reading import FileReading


@pytest.mark.parametrize("field", list(Recipe.model_fields))
def test_help_is_read_from_the_source_as_pydantic_has_it(field):
    """The two readings of one text must agree, or `--help` says something that is not so."""
    described = Recipe.model_fields[field]

    text = field_help("eegprep.signals.recipe", "Recipe", field)

    assert text.startswith(described.description.replace("`", ""))
    default = described.default
    default = default or None if isinstance(default, tuple | str) else default
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
        RetrieveConfig,
        SimulateConfig,
        FileReading,
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


# command -> the configurations that its options set
CONFIGURED = {
    "train msm": (PretrainConfig,),
    "train align": (AlignConfig,),
    "train finetune": (FinetuneConfig,),
    "adapt": (AlignConfig,),
    "generate": (GenerateConfig, FileReading),
    "evaluate": (EvaluateConfig,),
    "retrieve": (RetrieveConfig,),
    "ablate": (AblateConfig,),
    "demo": (DemoConfig,),
    "pairs import": (ImportConfig,),
    "pairs simulate": (SimulateConfig,),
}
RENAMED = {("train align", "people"): "maps"}
ELSEWHERE = {
    ("train align", "loss"): "the name of a mixture; the setting is a section of weights",
    ("evaluate", "baselines"): "a flag that asks for all of them; the setting is a list of names",
}


def _options(command):
    group = typer.main.get_command(main.dreamdiff_app)
    for part in command.split():
        group = group.commands[part]
    return group.params


def _settings(command):
    """(option, its setting) for every option of a command that has the name of a setting; those of a training are in `loop`."""
    for option in _options(command):
        name = RENAMED.get((command, option.name), option.name)
        for config in CONFIGURED[command]:
            loop = config.model_fields.get("loop")
            fields = {**(loop.annotation.model_fields if loop else {}), **config.model_fields}
            if name in fields and (command, option.name) not in ELSEWHERE:
                yield option, fields[name]


@pytest.mark.parametrize("command", list(CONFIGURED))
def test_an_option_that_is_a_setting_shows_the_description_of_the_setting(command):
    """Two texts about one setting drift apart."""
    pairs = list(_settings(command))

    assert pairs
    assert [option.name for option, field in pairs if not option.help.startswith(field.description.replace("`", ""))] == []


def test_settings_described_elsewhere_are_still_settings():
    """An exception that no longer applies would hide the next option of that name."""
    for command, name in ELSEWHERE:
        assert name in {option.name for option in _options(command)}
        assert any(name in config.model_fields for config in CONFIGURED[command])
