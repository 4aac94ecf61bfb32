"""Models and pairs as repositories, against a stand-in of the Hub in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hub_server
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "alignment"))
from tiny_alignment import make_pairs, small_config
from tiny_models import tiny_pipeline, tiny_stable_diffusion
from tiny_pairs import tiny_pairs

import dreamdiff
import eegprep
from dreamdiff.alignment.prepare import align
from dreamdiff.evaluation.retrieve import retrieve
from dreamdiff.sharing.models import scrubbed
from eegprep.errors import CheckpointError, DataError, FetchError, LicenceError, UsageError


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.chdir(tmp_path)
    with hub_server.stand_in(monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A run, its pairs, and a report on it."""
    folder = tmp_path_factory.mktemp("aligned")
    pairs, target = make_pairs(folder)
    align(pairs, folder / "run", small_config("loop.max_steps=8"), encoder="conv", targets=[target])
    retrieve(folder / "run", pairs, folder / "retrieved")
    return folder


def stated() -> dict[str, str]:
    """What nobody but whoever made the vectors can know."""
    return {"vectors:vectors.npz": "CC0-1.0"}


def encoder(seed: int = 0):
    torch.manual_seed(seed)
    return dreamdiff.EEGEncoder.from_preset("tiny").eval()


def test_an_aligned_run_comes_back_from_the_hub_with_the_same_vectors(server, aligned):
    pushed = dreamdiff.push_to_hub(aligned / "run", "lab/align", licences=stated(), reports=[aligned / "retrieved"])
    local = dreamdiff.AlignedEncoder.from_pretrained(aligned / "run")
    eeg = dreamdiff.Pairs.open(aligned / "pairs.zarr").eeg([0, 3, 5])

    for name, revision in (("lab/align", None), ("lab/align", pushed.commit), (f"hf:lab/align@{pushed.commit}", None)):
        there = dreamdiff.AlignedEncoder.from_pretrained(name, revision=revision)
        torch.testing.assert_close(there.encode(eeg, person=None), local.encode(eeg, person=None), rtol=0, atol=0)


def test_the_card_says_data_licences_protocol_numbers_with_intervals_certificate_and_limits(server, aligned):
    dreamdiff.push_to_hub(aligned / "run", "lab/align", licences=stated(), reports=[aligned / "retrieved"])
    repository = server.repositories["model", "lab/align"]
    files = repository.commits[repository.refs["main"]]
    card = files["README.md"].decode()
    report = json.loads((aligned / "retrieved" / "report.json").read_text())

    for heading in ("## Use", "## Data", "## Licences", "## Training", "## Results: retrieved", "## Limits", "## Files"):
        assert heading in card, heading
    first = report["measurements"][0]
    assert f"{first['value']:.1%} | {first['low']:.1%} to {first['high']:.1%} | {first['floor']:.1%} | {first['n']}" in card
    assert "encoder zeroed" in card and report["first_line"].split(":")[0] in card
    assert files["reports/retrieved/predictions.npz"] == (aligned / "retrieved" / "predictions.npz").read_bytes()


def test_nothing_of_this_machine_is_published_and_only_safetensors_and_json_are(server, aligned):
    dreamdiff.push_to_hub(aligned / "run", "lab/align", licences=stated())
    repository = server.repositories["model", "lab/align"]
    files = repository.commits[repository.refs["main"]]

    assert str(aligned).encode() not in b"".join(files.values())
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".md", ".png", ""}
    manifest = json.loads(files["manifest.json"])
    assert set(manifest["files"]) == set(files) - {"manifest.json", "README.md", ".gitattributes"}
    kept = load_file(aligned / "run" / "model.safetensors")
    (Path("again.safetensors")).write_bytes(files["model.safetensors"])
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_file("again.safetensors").items())


def test_a_file_that_was_altered_on_the_hub_is_refused(server, aligned):
    dreamdiff.push_to_hub(aligned / "run", "lab/align", licences=stated())
    repository = server.repositories["model", "lab/align"]
    files = dict(repository.commits[repository.refs["main"]])
    repository.commit({**files, "config.json": files["config.json"].replace(b'"dropout": 0.3', b'"dropout": 0.4')})

    with pytest.raises(CheckpointError, match=r"config\.json has another SHA-256 than the manifest"):
        dreamdiff.AlignedEncoder.from_pretrained("lab/align")


def test_a_pickle_in_a_repository_is_not_even_downloaded(server, tmp_path):
    encoder().save_pretrained("enc")
    dreamdiff.push_to_hub("enc", "lab/enc", licences={"enc": "MIT"})
    repository = server.repositories["model", "lab/enc"]
    repository.commit({**repository.commits[repository.refs["main"]], "pytorch_model.bin": b"\x80\x04pickle"})
    server.requests.clear()

    dreamdiff.EEGEncoder.from_pretrained("lab/enc")
    assert not [request for request in server.requests if "pytorch_model" in request]


def test_a_report_of_another_model_is_refused(server, aligned):
    encoder().save_pretrained("enc")

    with pytest.raises(DataError, match="report of a model with weights"):
        dreamdiff.push_to_hub("enc", "lab/enc", licences={"enc": "MIT"}, reports=[aligned / "retrieved"])
    assert server.requests == []


def test_a_report_that_was_touched_is_refused(server, aligned, tmp_path):
    copy = tmp_path / "retrieved"
    copy.mkdir()
    for file in (aligned / "retrieved").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    text = (copy / "report.json").read_text()
    (copy / "report.json").write_text(text.replace('"value": 0.', '"value": 0.9', 1))

    with pytest.raises(DataError):
        dreamdiff.push_to_hub(aligned / "run", "lab/align", licences=stated(), reports=[copy])
    assert server.requests == []


def test_weights_of_unknown_origin_are_named_and_refused(server):
    encoder().save_pretrained("enc")

    with pytest.raises(LicenceError, match="weights enc: unknown"):
        dreamdiff.push_to_hub("enc", "lab/enc")
    assert server.requests == []
    assert dreamdiff.push_to_hub("enc", "lab/enc", private=True).private


def test_an_encoder_object_is_published_and_read_back(server):
    model = encoder(3)
    dreamdiff.push_to_hub(model, "lab/enc", licences={"enc": "Apache-2.0"})
    eeg = torch.randn(2, 128, 512)

    with torch.no_grad():
        torch.testing.assert_close(dreamdiff.EEGEncoder.from_pretrained("lab/enc")(eeg), model(eeg), rtol=0, atol=0)


def test_a_pipeline_is_published_with_its_generator_in_the_chain(server, tmp_path):
    pipe = tiny_pipeline(tiny_stable_diffusion(tmp_path / "sd"))
    pipe.save_pretrained("pipe")
    with pytest.raises(LicenceError, match="generator unknown: unknown"):
        dreamdiff.push_to_hub("pipe", "lab/pipe", licences={"pipe": "MIT"})
    pipe.details.training["sd"] = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    pipe.save_pretrained("pipe")

    pushed = dreamdiff.push_to_hub("pipe", "lab/pipe", licences={"pipe": "MIT"})
    there = dreamdiff.DreamDiffusionPipeline.from_pretrained("lab/pipe", revision=pushed.commit)

    assert pushed.licence == "creativeml-openrail-m" and there.fingerprint == pipe.fingerprint
    with pytest.raises(UsageError, match="licences and evidence"):
        pipe.push_to_hub("lab/pipe")


def test_pairs_are_published_and_opened_by_their_address(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = dreamdiff.Pairs.open(tiny_pairs(tmp_path / "pairs.zarr"))
    dreamdiff.push_to_hub(tmp_path / "pairs.zarr", "lab/pairs", licences={"pairs.zarr": "CC-BY-4.0"})

    there = dreamdiff.Pairs.open("hf://datasets/lab/pairs")
    assert there.content_sha256 == local.content_sha256
    np.testing.assert_array_equal(there.eeg([1]), local.eeg([1]))


def test_nothing_is_asked_of_the_hub_unless_a_repository_is_named(server, tmp_path, monkeypatch):
    encoder().save_pretrained("runs/enc")
    dreamdiff.EEGEncoder.from_pretrained("runs/enc")
    for wrong in ("runs/missing", tmp_path / "missing"):  # a path with a mistake in it
        with pytest.raises(CheckpointError, match="does not exist"):
            dreamdiff.EEGEncoder.from_pretrained(wrong)
    with pytest.raises(UsageError, match="a folder has no revision"):
        dreamdiff.EEGEncoder.from_pretrained("runs/enc", revision="main")
    with pytest.raises(FetchError, match="not in the Hub's cache"):
        dreamdiff.EEGEncoder.from_pretrained("lab/enc", local_files_only=True)
    assert server.requests == []


def test_what_is_in_the_cache_is_read_offline(server, monkeypatch):
    dreamdiff.push_to_hub(encoder(4), "lab/enc", licences={"enc": "MIT"})
    dreamdiff.EEGEncoder.from_pretrained("lab/enc")
    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    dreamdiff.EEGEncoder.from_pretrained("lab/enc")
    assert server.requests == []


def test_paths_are_scrubbed_and_names_are_kept():
    content = {
        "a": "/home/me/runs/msm",
        "b": "msm:/home/me/msm",
        "c": "hf:lab/x",
        "d": "clip:ViT-B-32/openai",
        "e": ["~/x/y"],
        "f": "a/b: 1/2",
    }

    assert scrubbed(content) == {
        "a": "msm",
        "b": "msm:msm",
        "c": "hf:lab/x",
        "d": "clip:ViT-B-32/openai",
        "e": ["y"],
        "f": "a/b: 1/2",
    }


def test_a_stream_reads_a_corpus_of_the_hub_window_by_window(server, tmp_path):
    windows = np.random.default_rng(0).normal(0, 20, (9, 4, 32)).astype("f4")
    local = eegprep.from_arrays(
        tmp_path / "c.zarr", [{"windows": windows, "subject": "a", "dataset": "lab", "licence": "CC0-1.0"}], sfreq=128, pad_to=4
    )
    dreamdiff.push_to_hub(tmp_path / "c.zarr", "lab/eeg")

    stream = dreamdiff.WindowStream("hf://datasets/lab/eeg", batch_size=4, seed=1)
    for batch in stream:
        np.testing.assert_array_equal(batch["eeg"].numpy(), local.read(batch["index"].numpy()))
    assert server.ranges
