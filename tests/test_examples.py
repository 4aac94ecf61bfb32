"""The examples in the docstrings of public names are run, and give what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import dreamdiff
import eegprep

NEED_A_MODEL = {"DreamDiffusionPipeline", "AlignedEncoder", "EEGFeatures", "EEGClassifier"}
PUBLIC = [(package, name) for package in (eegprep, dreamdiff) for name in dir(package) if name[0] != "_"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with what the examples read."""
    from dreamdiff.simulation.simulate import SimulateConfig, simulate
    from eegprep.settings import validated

    path = tmp_path_factory.mktemp("examples")
    eegprep.build("sample.toml", path / "corpus.zarr")
    eegprep.fetch("sample.toml", path / "recordings.zarr")
    eegprep.filter_recordings(path / "recordings.zarr", path / "filtered.zarr")
    simulate(path / "pairs.zarr", validated(SimulateConfig, {"people": 1, "trials": 3, "background": "pink"}))
    return path


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=[f"{package.__name__}.{name}" for package, name in PUBLIC])
def test_the_example_of_a_public_name_gives_what_it_says(package, name, folder, monkeypatch):
    """A docstring without an example leaves out what people copy; one that is not run is wrong after a month."""
    thing = getattr(package, name)
    assert "Example:" in (thing.__doc__ or "") or any("Example:" in (part.__doc__ or "") for part in vars(thing).values())
    if name in NEED_A_MODEL:
        return
    monkeypatch.chdir(folder)
    finder = doctest.DocTestFinder(recurse=name == "Corpus")
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    tests = [test for test in finder.find(thing, name) if test.examples]

    assert tests
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
