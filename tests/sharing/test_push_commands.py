"""`eegprep push`, `dreamdiff push`, and models of the Hub on a command line."""

from __future__ import annotations

import json

import hub_server
import numpy as np
import pytest
import torch

import dreamdiff
import eegprep
from cli import main


@pytest.fixture
def server(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.chdir(tmp_path)
    with hub_server.stand_in(monkeypatch) as running:
        yield running


def corpus(licence: str) -> None:
    windows = np.random.default_rng(0).normal(0, 20, (3, 4, 32)).astype("f4")
    eegprep.from_arrays(
        "corpus.zarr", [{"windows": windows, "subject": "a", "dataset": "lab", "licence": licence}], sfreq=128, pad_to=4
    )


def test_eegprep_push_publishes_a_corpus_and_says_where(server, capsys):
    corpus("CC-BY-4.0")

    assert main.run(main.eegprep_app, "eegprep", ["push", "corpus.zarr", "--to", "lab/eeg", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["repository"] == "lab/eeg" and said["licence"] == "cc-by-4.0" and len(said["commit"]) == 40
    assert main.run(main.eegprep_app, "eegprep", ["inspect", "corpus.zarr", "-q"]) == 0


def test_a_refused_push_names_the_part_and_a_fix_that_works(server, capsys):
    corpus("unknown")

    assert main.run(main.eegprep_app, "eegprep", ["push", "corpus.zarr", "--to", "lab/eeg"]) == 1
    err = capsys.readouterr().err
    assert "recordings lab: unknown" in err and "--licence 'lab=CC-BY-4.0'" in err and "--private" in err
    assert server.requests == []
    assert main.run(main.eegprep_app, "eegprep", ["push", "corpus.zarr", "--to", "lab/eeg", "--licence", "lab=CC-BY-4.0"]) == 0


def test_wrong_names_are_wrong_usage(server):
    corpus("CC-BY-4.0")

    assert main.run(main.eegprep_app, "eegprep", ["push", "corpus.zarr", "--to", "lab"]) == 2
    assert main.run(main.eegprep_app, "eegprep", ["push", "corpus.zarr", "--to", "lab/eeg", "--licence", "CC0"]) == 2
    assert main.run(main.dreamdiff_app, "dreamdiff", ["push", "nothing", "--to", "lab/x"]) == 1


def test_a_command_takes_a_model_by_its_name_on_the_hub(server, capsys):
    torch.manual_seed(0)
    dreamdiff.EEGEncoder.from_preset("tiny").save_pretrained("enc")
    corpus("CC-BY-4.0")
    assert main.run(main.dreamdiff_app, "dreamdiff", ["push", "enc", "--to", "lab/enc", "--licence", "enc=MIT"]) == 0
    capsys.readouterr()

    # the encoder is downloaded and read; that it does not fit this corpus is what comes next
    assert main.run(main.dreamdiff_app, "dreamdiff", ["probe", "--model", "hf:lab/enc", "--store", "corpus.zarr"]) == 1
    assert "does not exist" not in capsys.readouterr().err
    assert any("/lab/enc/resolve/" in request for request in server.requests)
    assert main.run(main.dreamdiff_app, "dreamdiff", ["probe", "--model", "hf:lab/other", "--store", "corpus.zarr"]) == 1
    assert "knows no such model" in capsys.readouterr().err
