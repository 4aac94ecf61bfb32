"""Pairs of the Hub in commands: generated from, and views of a corpus published."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import hub_server
import numpy as np
import pytest
from eeg_files import write_edf
from PIL import Image
from tiny_pairs import CHANNELS, SAMPLES, tiny_pairs

import dreamdiff
import eegprep
from cli import main
from dreamdiff.eeg_input import SignalConfig
from dreamdiff.generation.trials import open_trials
from dreamdiff.pairs.importers.importer import ImportConfig
from dreamdiff.pairs.importers.run import import_pairs
from eegprep.errors import FetchError

NAMES = ["Fp1", "Fp2", "C3", "C4"]


@pytest.fixture
def server(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with hub_server.stand_in(monkeypatch) as running:
        yield running


def reads(channels: int, window: int, **signal):
    """What `open_trials` asks of a pipeline."""
    return SimpleNamespace(
        details=SimpleNamespace(signal=SignalConfig(**signal), training={}),
        encoder=SimpleNamespace(config=SimpleNamespace(channels=channels, window=window, scaling="none")),
    )


def corpus() -> None:
    """A corpus of a person, here as c.zarr and published as lab/eeg; pictures, and a table of trials."""
    signal = eegprep.band_pass(np.random.default_rng(0).normal(0, 20, (4, 2560)).astype("f4"), 128.0, 2.0, 60.0)
    write_edf(Path("study/sub-01/view.edf"), signal, 128.0, NAMES, [(1.0, 1.0, "x")])
    eegprep.build("study", "c.zarr", channels=4, window=128, stride=128, min_uv=0.0)
    dreamdiff.push_to_hub("c.zarr", "lab/eeg", licences={"study": "CC-BY-4.0"})
    Path("pictures").mkdir()
    for name, colour in (("cat.png", "white"), ("dog.png", "black")):
        Image.new("RGB", (16, 16), colour).save(f"pictures/{name}")
    rows = [f"sub-01/0.view,{1 + 0.75 * k},{('cat', 'dog')[k % 2]}.png,{('cat', 'dog')[k % 2]},sub-01" for k in range(12)]
    Path("t.csv").write_text("\n".join(["recording,onset,image,label,subject", *rows]) + "\n")


def view(source: str, out: str) -> dreamdiff.Pairs:
    return import_pairs(source, out, ImportConfig(kind="corpus", trials="t.csv", images="pictures", split_by="trial"))


def test_pairs_and_corpora_of_the_hub_are_generated_from_by_their_address(server):
    local = dreamdiff.Pairs.open(tiny_pairs(Path("pairs.zarr")))
    dreamdiff.push_to_hub("pairs.zarr", "lab/pairs", licences={"pairs.zarr": "CC-BY-4.0"})
    pipeline = reads(CHANNELS, SAMPLES, sfreq=local.attributes[local.subjects[0]]["sfreq"])

    for source in ("hf://datasets/lab/pairs", Path("hf://datasets/lab/pairs")):
        there = open_trials(source, pipeline, "test")
        here = open_trials("pairs.zarr", pipeline, "test")
        assert (there.source, there.kind, there.provenance) == ("hf://datasets/lab/pairs", "pairs", "simulated")
        np.testing.assert_array_equal(there.read([1]), here.read([1]))
        np.testing.assert_array_equal(there.seen([0], 16), here.seen([0], 16))

    corpus()
    windows = open_trials("hf://datasets/lab/eeg", reads(4, 128, sfreq=128.0))
    assert windows.kind == "corpus"
    np.testing.assert_array_equal(windows.read([0, 3]), eegprep.Corpus.open("c.zarr").read([0, 3]))
    with pytest.raises(FetchError, match="knows no such dataset"):
        open_trials("hf://datasets/lab/nothing", pipeline)


def test_a_view_of_a_corpus_on_the_hub_is_published_and_one_of_a_corpus_here_is_refused(server, capsys):
    corpus()
    own = view("c.zarr", "own.zarr")
    assert main.run(main.dreamdiff_app, "dreamdiff", ["push", "own.zarr", "--to", "lab/own"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "is a view of a corpus (c.zarr) and holds no EEG" in said and "hf://datasets/OWNER/NAME" in said

    published = view("hf://datasets/lab/eeg", "published.zarr")
    np.testing.assert_array_equal(published.eeg([0, 5]), own.eeg([0, 5]))
    dreamdiff.push_to_hub("published.zarr", "lab/view", licences={"corpus": "CC-BY-4.0"})
    there = dreamdiff.Pairs.open("hf://datasets/lab/view", images="pictures")
    np.testing.assert_array_equal(there.eeg([0, 5]), own.eeg([0, 5]))
    assert "EEG in hf://datasets/lab/eeg" in server.repositories["dataset", "lab/view"].files("main")[1]["README.md"].decode()
