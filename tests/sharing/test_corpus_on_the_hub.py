"""A corpus as a data set repository, against a stand-in of the Hub in this process."""

from __future__ import annotations

import json
import pickle

import hub_server
import numpy as np
import pytest

import eegprep
from eegprep.download import hub
from eegprep.errors import FetchError, LicenceError, StoreError, UsageError
from eegprep.sharing.corpus import corpus_repository, push_corpus

RNG = np.random.default_rng(5)


@pytest.fixture
def server(monkeypatch):
    with hub_server.stand_in(monkeypatch) as running:
        yield running


def corpus(folder, licence="CC-BY-4.0"):
    people = [
        {"windows": RNG.normal(0, 20, (7, 4, 32)).astype("f4"), "subject": name, "dataset": "lab", "licence": licence}
        for name in ("a", "b")
    ]
    return eegprep.from_arrays(folder / "corpus.zarr", people, sfreq=128, channels=["Fz", "Cz", "Pz", "Oz"], pad_to=4)


def test_a_pushed_corpus_is_read_back_by_ranges_to_the_bit(server, tmp_path):
    local = corpus(tmp_path)

    pushed = push_corpus(local.url, "lab/eeg")
    there = eegprep.Corpus.open("hf://datasets/lab/eeg")

    np.testing.assert_array_equal(there.read(np.arange(14)), local.read(np.arange(14)))
    assert there.identity == local.identity and pushed.commit in there.url
    assert server.ranges  # windows come as ranges, through the redirect of large files
    copy = pickle.loads(pickle.dumps(there))  # as a worker process gets it
    np.testing.assert_array_equal(copy[3], local[3])


def test_a_revision_is_fixed_when_the_corpus_is_opened(server, tmp_path):
    first = corpus(tmp_path / "one")
    old = push_corpus(first.url, "lab/eeg").commit
    opened = eegprep.Corpus.open("hf://datasets/lab/eeg")
    push_corpus(corpus(tmp_path / "two").url, "lab/eeg")

    np.testing.assert_array_equal(opened[0], first[0])  # not a mix of two versions
    np.testing.assert_array_equal(eegprep.Corpus.open(f"hf://datasets/lab/eeg@{old}/corpus.zarr")[0], first[0])
    assert not np.array_equal(eegprep.Corpus.open("hf://datasets/lab/eeg")[0], first[0])


def test_the_repository_has_a_manifest_croissant_metadata_and_a_card(server, tmp_path):
    push_corpus(corpus(tmp_path).url, "lab/eeg")
    repository = server.repositories["dataset", "lab/eeg"]
    files = repository.commits[repository.refs["main"]]
    manifest, described, card = (
        json.loads(files["manifest.json"]),
        json.loads(files["croissant.json"]),
        files["README.md"].decode(),
    )

    stored = {name for name in files if name.startswith("corpus.zarr/")}
    assert set(manifest["files"]) == stored and len(stored) > 10
    assert (
        described["@type"] == "sc:Dataset"
        and described["conformsTo"].endswith("croissant/1.0")
        and described["license"] == "cc-by-4.0"
    )
    assert 'license: "cc-by-4.0"' in card and "14 windows, 2 people" in card and "hf://datasets/lab/eeg" in card
    assert str(tmp_path) not in card + files["manifest.json"].decode() + files["croissant.json"].decode()


@pytest.mark.parametrize(
    ("licence", "reason"),
    [
        ("CC-BY-NC-4.0", "non-commercial"),
        ("CC-BY-ND-4.0", "no derivatives"),
        ("CC-BY-NC-ND-4.0", "no derivatives"),
        ("unknown", "unknown"),
    ],
)
def test_a_licence_that_forbids_publishing_is_named_and_nothing_is_sent(server, tmp_path, licence, reason):
    local = corpus(tmp_path, licence)

    with pytest.raises(LicenceError, match=f"recordings lab: {licence} \\({reason}\\)"):
        push_corpus(local.url, "lab/eeg")
    assert server.requests == []
    assert push_corpus(local.url, "lab/eeg", private=True).private
    assert server.repositories["dataset", "lab/eeg"].private


def test_terms_of_non_commercial_use_lift_only_that_restriction(tmp_path):
    local = corpus(tmp_path / "nc", "CC-BY-NC-4.0")
    _, verdict = corpus_repository(tmp_path / "nc" / "corpus.zarr", "lab/eeg", False, True, {})
    assert verdict.licence == "cc-by-nc-4.0" and "non-commercial" in verdict.sentence

    corpus(tmp_path / "nd", "CC-BY-NC-ND-4.0")
    with pytest.raises(LicenceError, match="no derivatives"):
        push_corpus(tmp_path / "nd" / "corpus.zarr", "lab/eeg", non_commercial=True)
    assert local.url


def test_whoever_holds_the_rights_states_a_licence_and_cannot_overrule_one(tmp_path):
    corpus(tmp_path / "own", "unknown")
    files, verdict = corpus_repository(tmp_path / "own" / "corpus.zarr", "lab/eeg", False, False, {"lab": "CC-BY-4.0"})
    assert verdict.licence == "cc-by-4.0" and "stated" in files["README.md"].decode()

    corpus(tmp_path / "other", "CC-BY-ND-4.0")
    with pytest.raises(LicenceError, match="no derivatives"):
        corpus_repository(tmp_path / "other" / "corpus.zarr", "lab/eeg", False, False, {"lab": "CC-BY-4.0"})


def test_what_must_be_private_never_goes_into_a_public_repository(server, tmp_path):
    server.add("dataset", "lab/eeg", {"a.txt": b"public"})

    with pytest.raises(LicenceError, match="public repository"):
        push_corpus(corpus(tmp_path, "unknown").url, "lab/eeg", private=True)
    assert list(server.repositories["dataset", "lab/eeg"].commits.values()) == [{"a.txt": b"public"}]


def test_a_damaged_corpus_is_not_published(server, tmp_path):
    local = corpus(tmp_path)
    next(path for path in (tmp_path / "corpus.zarr" / "lab" / "a" / "windows" / "c").rglob("0") if path.is_file()).write_bytes(
        b"short"
    )

    with pytest.raises(StoreError, match="not whole"):
        push_corpus(local.url, "lab/eeg")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_asks_nobody(server, tmp_path, monkeypatch, variable):
    local = corpus(tmp_path)
    monkeypatch.setenv(variable, "1")

    for act in (lambda: push_corpus(local.url, "lab/eeg"), lambda: eegprep.Corpus.open("hf://datasets/lab/eeg")):
        with pytest.raises(FetchError, match="offline"):
            act()
    assert server.requests == []


def test_a_missing_repository_revision_and_address_are_told_apart(server, tmp_path):
    server.add("dataset", "lab/eeg", {"a.txt": b""})

    with pytest.raises(FetchError, match="knows no such dataset"):
        eegprep.Corpus.open("hf://datasets/lab/other")
    with pytest.raises(FetchError, match="no such revision"):
        eegprep.Corpus.open("hf://datasets/lab/eeg@v9")
    with pytest.raises(UsageError, match="not an address"):
        eegprep.Corpus.open("hf://lab/eeg")
    with pytest.raises(StoreError, match="not there"):
        eegprep.Corpus.open("hf://datasets/lab/eeg")


def test_a_private_corpus_is_read_with_the_token_and_by_nobody_else(server, tmp_path, monkeypatch):
    local = corpus(tmp_path, "unknown")
    push_corpus(local.url, "lab/eeg", private=True)
    np.testing.assert_array_equal(eegprep.Corpus.open("hf://datasets/lab/eeg")[2], local[2])

    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(FetchError, match="may not do that"):
        eegprep.Corpus.open("hf://datasets/lab/eeg")


def test_names_of_the_hub_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()

    assert str(hub.model_name("lab/msm")) == "hf:lab/msm"
    assert hub.model_name("runs/msm") is None  # a folder of that name is here: a path with a mistake in it
    assert hub.model_name("hf:runs/msm@v1") == hub.HubName("model", "runs/msm", "v1")
    assert hub.model_name("/data/msm") is None and hub.model_name("msm") is None and hub.model_name("a/b/c") is None
    assert hub.dataset_name("hf:/datasets/lab/eeg@v1/c.zarr") == hub.HubName("dataset", "lab/eeg", "v1", "c.zarr")
