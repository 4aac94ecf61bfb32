"""Another setting on a store that is there: refused with both values, or made again beside it; never a mixture, never a half."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from eeg_files import eeg, write_edf, write_people

import eegprep
from eegprep import atomic
from eegprep.errors import StoreError
from eegprep.signals import recipe
from eegprep.signals.recipe import make_recipe
from eegprep.steps import jobs
from eegprep.steps.build import fetch, filter_recordings, pad


def tree(root: Path) -> dict[str, str]:
    """SHA-256 of every file of a store, hidden ones included."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A SOURCE of three people; the third was recorded at a lower rate."""
    folder = tmp_path_factory.mktemp("people") / "p"
    source = write_people(folder, 2)
    write_edf(folder / "sub-03_run-1.edf", eeg(4, 2400, 160.0, 7), 160.0)
    return source


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"low": 1.0}, "--low 5 there, 1 here"),
        ({"notch": "auto", "stride": 256}, r"--notch not given there, \"auto\" here; --stride 512 there, 256 here"),
        ({"nyquist": "highpass"}, "--nyquist \"clip\" there, \"highpass\" here"),
        ({"window": 256}, "--window 512 there, 256 here"),
        ({"scale": 2.0}, "--scale not given there, 2 here"),
        ({"bad": "reject"}, "--bad not given there, \"reject\" here"),
        ({"keep_private": True}, "--keep-private not given there, true here"),
    ],
)  # fmt: skip
def test_another_setting_on_a_finished_corpus_is_refused_with_both_values(tmp_path, people, settings, said):
    """A weekend of ingest is not replaced by an old line from the shell's history."""
    eegprep.build(people, tmp_path / "c.zarr")
    before = tree(tmp_path / "c.zarr")

    with pytest.raises(StoreError, match=said) as error:
        eegprep.build(people, tmp_path / "c.zarr", **settings)

    assert "--rebuild" in error.value.fix and tree(tmp_path / "c.zarr") == before


def test_a_corpus_of_an_older_algorithm_is_read_but_not_added_to(tmp_path, people, monkeypatch):
    """Two precisions of one filter in one corpus would be nobody's recipe; what was made stays usable as it is."""
    with monkeypatch.context() as older:
        for module in (recipe, jobs):
            older.setattr(module, "ALGORITHM", recipe.ALGORITHM - 1)
        eegprep.build(people, tmp_path / "c.zarr", subjects="1")
    before = tree(tmp_path / "c.zarr")

    assert eegprep.Corpus.open(tmp_path / "c.zarr").read([0]).shape == (1, 128, 512)
    assert eegprep.verify(tmp_path / "c.zarr").problems == ()
    with pytest.raises(StoreError, match="made by a version whose same settings give other numbers") as error:
        eegprep.build(people, tmp_path / "c.zarr")
    assert "--rebuild" in error.value.fix and tree(tmp_path / "c.zarr") == before
    assert eegprep.build(people, tmp_path / "c.zarr", rebuild=True).built == 3


def test_the_three_steps_refuse_and_make_again_as_the_one_pass_does(tmp_path, people):
    """`fetch` by how files are read, `filter` and `pad` by their settings."""
    r, f, c = (tmp_path / f"{name}.zarr" for name in "rfc")
    fetch(people, r)
    filter_recordings(r, f)
    pad(f, c)
    other = make_recipe(low=1.0)

    with pytest.raises(StoreError, match="--scale not given there, 2 here"):
        fetch(people, r, scale=2.0)
    with pytest.raises(StoreError, match="--low 5 there, 1 here"):
        filter_recordings(r, f, recipe=other)
    with pytest.raises(StoreError, match="--stride 512 there, 100 here"):
        pad(f, c, recipe=make_recipe(stride=100))
    fetch(people, r, scale=2.0, rebuild=True)
    filter_recordings(r, f, recipe=other, rebuild=True)
    with pytest.raises(StoreError, match="--low 5 there, 1 here"):
        pad(f, c)  # what it is made from has changed
    pad(f, c, rebuild=True)

    eegprep.build(people, tmp_path / "one.zarr", scale=2.0, low=1.0)
    corpora = [eegprep.Corpus.open(path) for path in (c, tmp_path / "one.zarr")]
    one, three = (corpus.read(range(len(corpus))) for corpus in corpora)
    assert (one == three).all()


def test_a_rebuilt_store_is_that_of_a_fresh_build_and_untouched_subjects_are_kept(tmp_path, people):
    """The Nyquist rule concerns the one slow recording only; another shape concerns everything."""
    out = tmp_path / "c.zarr"
    eegprep.build(people, out)
    kept = (out / "p/01/windows/zarr.json").stat().st_ino

    assert eegprep.build(people, out, nyquist="highpass", rebuild=True).built == 1
    assert (out / "p/01/windows/zarr.json").stat().st_ino == kept
    for settings in ({"nyquist": "highpass"}, {"channels": 64, "window": 256, "stride": 256, "high": 45.0}):
        eegprep.build(people, out, **settings, rebuild=True)
        eegprep.build(people, tmp_path / "fresh.zarr", **settings, rebuild=True)
        assert tree(out) == tree(tmp_path / "fresh.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.zarr", "fresh.zarr"]


def test_people_that_a_rebuild_does_not_name_are_no_mixture(tmp_path, people):
    """They would keep the old filter; with the settings of the store they stay as they are."""
    eegprep.build(people, tmp_path / "c.zarr")

    with pytest.raises(StoreError, match="2 subjects made with another recipe"):
        eegprep.build(people, tmp_path / "c.zarr", subjects="01", high=45.0, rebuild=True)
    assert eegprep.build(people, tmp_path / "c.zarr", subjects="01", scale=2.0, rebuild=True).built == 1
    assert len(eegprep.Corpus.open(tmp_path / "c.zarr").subjects) == 3


@pytest.mark.parametrize("swaps", [True, False])
def test_a_rebuild_that_is_killed_leaves_the_old_or_the_new_store_whole(tmp_path, people, monkeypatch, swaps):
    """At random moments, also where two folders cannot trade places in one step; the same command finishes it."""
    out = tmp_path / "c.zarr"
    eegprep.build(people, out)
    eegprep.build(people, tmp_path / "new.zarr", low=1.0)
    allowed = [tree(out), tree(tmp_path / "new.zarr")]
    if not swaps:
        monkeypatch.setattr(atomic, "exchange", lambda new, old: False)
    rng = random.Random(3)
    started = time.monotonic()
    eegprep.build(people, tmp_path / "timed.zarr", low=2.0)
    duration = time.monotonic() - started

    for _ in range(8):
        child = os.fork()
        if child == 0:
            try:
                eegprep.build(people, out, low=1.0, rebuild=True)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if swaps or out.exists():
            assert {name: digest for name, digest in tree(out).items() if name != ".writer.json"} in allowed

    eegprep.build(people, out, low=1.0, rebuild=True)
    assert tree(out) == allowed[1]


def test_a_rebuild_that_was_given_up_leaves_nothing(tmp_path, people):
    """The next plain command takes away what lies beside the store."""
    eegprep.build(people, tmp_path / "c.zarr")
    eegprep.build(people, tmp_path / ".c.zarr.partial", low=1.0)

    eegprep.build(people, tmp_path / "c.zarr")

    assert [path.name for path in tmp_path.iterdir()] == ["c.zarr"]


def test_people_that_were_named_wrongly_are_named_again_by_a_rebuild(tmp_path):
    """Four files taken as four people become two, and nobody is in the store twice."""
    for name in ("a-x", "a-y", "b-x", "b-y"):
        write_edf(tmp_path / f"lab/{name}.edf", eeg(4, 1200, 200.0, seed=sum(map(ord, name))), 200.0)
    source, out = f"files:{tmp_path}/lab/*.edf", tmp_path / "c.zarr"
    first = eegprep.build(source, out)
    assert first.subjects == 4 and "each file by itself" in first.names[0] and "--subject-pattern" in first.names[0]

    with pytest.raises(StoreError, match=r"a-x.edf is in the store as lab/a-x, .* again as lab/a") as error:
        eegprep.build(source, out, subject_pattern="^.")
    assert "--rebuild" in error.value.fix
    again = eegprep.build(source, out, subject_pattern="^.", rebuild=True)

    assert again.names[0].startswith("names: 4 recordings of 2 people, by the pattern that was given (a of a-x.edf)")
    assert sorted(eegprep.Corpus.open(out).subjects["subject"]) == ["a", "b"]
    with pytest.raises(StoreError, match=r"--session-pattern not given there, .\[xy\]. here"):
        eegprep.build(source, out, subject_pattern="^.", session_pattern="[xy]")
