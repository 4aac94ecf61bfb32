"""`--device` and `--precision`: offered by every command that runs a network, and never a silent CPU."""

from __future__ import annotations

import pytest
import torch
import typer

from cli import _output
from cli.main import dreamdiff_app
from dreamdiff.devices import choose_device, dtype_of, fitting_batch, resolved_precision, send, used
from dreamdiff.generation.config import GenerateConfig
from dreamdiff.training.config import LoopConfig
from eegprep.errors import UsageError
from eegprep.settings import resolve

NETWORKS = (
    "generate",
    "evaluate",
    "retrieve",
    "ablate",
    "app",
    "probe",
    "adapt",
    "demo",
    "train msm",
    "train align",
    "train finetune",
)
NO_PRECISION = {"retrieve", "probe"}  # neither trains nor generates


def options_of(name: str) -> set[str]:
    command = typer.main.get_command(dreamdiff_app)
    for part in name.split():
        command = command.commands[part]  # type: ignore[attr-defined]
    return {option for one in command.params for option in one.opts}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_command_that_runs_a_network_offers_a_device(name) -> None:
    """A person with two cards chooses one in the same words everywhere."""
    expected = {"--device"} if name in NO_PRECISION else {"--device", "--precision"}
    assert expected <= options_of(name)


def test_a_card_that_is_not_there_is_an_error(monkeypatch) -> None:
    """Hours on a CPU that nobody asked for are worse than a message."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(UsageError, match="0 GPUs here"):
            choose_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="2 GPUs here"):
        choose_device("cuda:2")


def test_each_process_of_a_launcher_takes_its_own_card(monkeypatch) -> None:
    """`accelerate launch` and `torchrun` number the processes of a machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda:3")


@pytest.mark.parametrize(("rank", "expected"), [(None, 2), ("0", 2), ("1", 0)])
def test_of_the_processes_of_a_launcher_the_first_speaks(monkeypatch, capsys, rank, expected) -> None:
    """Four cards would give every line four times."""
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    _output.set_detail(quiet=False, verbose=False)
    _output.note("progress")
    _output.emit_line("done")
    monkeypatch.delenv("RANK", raising=False)
    _output.set_detail(quiet=False, verbose=False)

    said = capsys.readouterr()
    assert len((said.out + said.err).splitlines()) == expected


@pytest.mark.parametrize(("schema", "key"), [(LoopConfig, "device"), (GenerateConfig, "device")])
def test_an_unknown_device_is_refused_where_settings_are_read(schema, key) -> None:
    """Before data and weights are loaded."""
    with pytest.raises(UsageError, match="no such device"):
        resolve(schema, assignments=[f"{key}=gpu"])
    assert resolve(schema, assignments=[f"{key}=cuda:1"]).device == "cuda:1"


def test_precision_of_networks(monkeypatch) -> None:
    """`auto` is fp32 on a CPU; fp16 there is refused, not replaced."""
    cpu, card = torch.device("cpu"), torch.device("cuda")
    assert resolved_precision("auto", cpu) == "fp32" and dtype_of("bf16", cpu) == torch.bfloat16
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        dtype_of("fp16", cpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert resolved_precision("auto", card) == "fp16"


def test_batches_of_frozen_networks_follow_the_memory_of_the_card(monkeypatch) -> None:
    """Half of what is free, a power of two, between the two limits."""
    assert fitting_batch(torch.device("cpu"), 1.5e8, least=4, most=64) == 4
    card = torch.device("cuda")
    for free, size in ((10e9, 32), (1e9, 4), (1e12, 64)):
        monkeypatch.setattr("dreamdiff.devices.free_bytes", lambda _, free=free: int(free))
        assert fitting_batch(card, 1.5e8, least=4, most=64) == size


def test_records_say_where_they_were_computed() -> None:
    """Device, precision and threads change bits."""
    assert used(torch.device("cpu"), "bf16") == {"device": "cpu", "precision": "bf16", "threads": torch.get_num_threads()}
    assert send(torch.arange(3), torch.device("cpu"), torch.float32).dtype == torch.float32
