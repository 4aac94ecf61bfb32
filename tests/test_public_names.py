"""What `eegprep` and `dreamdiff` offer a script, and what importing them loads: modules are counted, not seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dreamdiff
import eegprep

PUBLIC = {
    "eegprep": {
        "Corpus", "ToolkitError", "band_pass", "build", "crop", "effective_band", "export", "fetch", "filter_recordings",
        "from_arrays", "from_raw", "merge", "pad", "pad_channels", "verify",
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
