"""What `eegprep` and `dreamdiff` offer a script, and what importing them loads: modules are counted, not seconds."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

import dreamdiff
import eegprep
from eegprep.signals.recipe import Recipe

PUBLIC = {
    "eegprep": {
        "Corpus", "ToolkitError", "band_pass", "build", "crop", "effective_band", "export", "fetch", "filter_recordings",
        "from_arrays", "from_raw", "index", "merge", "pad", "pad_channels", "verify",
    },
    "dreamdiff": {"DreamDiffusionPipeline", "EEGEncoder", "MaskedSignalModel", "Pairs", "PairsWriter", "WindowStream"},
}  # fmt: skip


@pytest.mark.parametrize("package", [eegprep, dreamdiff], ids=lambda package: package.__name__)
def test_public_names_are_there_and_nothing_else_shows(package):
    """`dir()` in a notebook lists what is promised, no modules."""
    shown = {name for name in dir(package) if not name.startswith("_")}

    assert PUBLIC[package.__name__] <= shown
    for name in shown:
        value = getattr(package, name)
        assert value.__name__ == name
        assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    """`hasattr` and `from eegprep import nothing` must work as usual."""
    assert not hasattr(eegprep, "nothing")
    assert not hasattr(dreamdiff, "nothing")


@pytest.mark.parametrize(
    ("code", "forbidden", "most"),
    [
        ("import eegprep", {"numpy", "pandas", "mne", "matplotlib", "torch", "pydantic", "zarr"}, 150),
        ("import eegprep; eegprep.Corpus", {"mne", "matplotlib", "torch", "moabb", "zarr"}, 1100),
        ("import dreamdiff", {"torch", "numpy"}, 150),
        ("import dreamdiff; dreamdiff.WindowStream", {"diffusers", "mne", "matplotlib", "transformers", "open_clip"}, 2200),
    ],
)
def test_an_import_loads_only_what_it_needs(code, forbidden, most):
    """Seconds depend on the machine; which modules are loaded, and how many, does not."""
    script = f"{code}\nimport sys\nprint(len(sys.modules), *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    count, *tops = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()

    assert forbidden & set(tops) == set()
    assert int(count) <= most


def test_help_of_build_names_every_setting():
    """`**settings` alone leaves people to guess."""
    words = set(re.findall(r"\w+", eegprep.build.__doc__))

    assert set(Recipe.model_fields) <= words


def test_a_corpus_says_what_is_selected_and_reads_like_an_array(tmp_path):
    """What people try first in a notebook."""
    rng = np.random.default_rng(0)
    data = rng.normal(0, 10, (6, 3, 64)).astype(np.float32)
    parts = [
        {"windows": data[:4], "subject": "a", "sfreq": 160.0, "channels": ["C3", "Cz", "C4"]},
        {"windows": data[4:], "subject": "b", "sfreq": 128.0, "channels": ["C3", "Cz", "C4"]},
    ]
    corpus = eegprep.from_arrays(tmp_path / "c.zarr", parts, sfreq=160.0, pad_to=4)

    assert "6 windows of (4, 64), 2 subjects, 2 recordings, arrays, 128 and 160 Hz" in repr(corpus)
    assert "4 windows of (4, 64), 1 subject, 1 recording, arrays, 160 Hz" in repr(corpus.select(subjects="a"))
    assert corpus.shape == (6, 4, 64)
    assert corpus.channel_names == ["C3", "Cz", "C4"]
    whole = corpus.read(range(6))
    for index in (slice(0, 4), slice(None, None, -2), [1, 5], np.array([True, False] * 3), []):
        expected = whole[index] if len(np.shape(index)) or isinstance(index, slice) else whole
        assert np.array_equal(corpus[index], expected)
    assert np.array_equal(corpus[-1], whole[-1])
    assert len(corpus.select(rate=128)) == 2 and len(corpus.select(max_rate=150)) == 2
    with pytest.raises(eegprep.ToolkitError, match="no recording of"):
        corpus.select(rate=100)
    with pytest.raises(eegprep.ToolkitError, match=r"corpus\.to_epochs\(rate=128\)"):
        corpus.to_epochs()
    assert len(corpus.to_epochs(rate=160)) == 4
