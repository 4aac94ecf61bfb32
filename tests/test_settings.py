"""One merge for every configuration."""

from __future__ import annotations

import pytest

from eegprep.errors import UsageError
from eegprep.provenance import fingerprint
from eegprep.settings import Settings, resolve


class Optim(Settings):
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)


class Train(Settings):
    optim: Optim = Optim()
    epochs: int = 500
    name: str = "msm"


PRESETS = {"tiny": {"epochs": 3, "optim": {"lr": 0.1}}}


def test_later_sources_win_and_leave_the_rest_alone(tmp_path):
    """defaults < preset < file < --set, key by key, not section by section."""
    file = tmp_path / "f.toml"
    file.write_text("[optim]\nlr = 0.2\n")

    got = resolve(Train, presets=PRESETS, preset="tiny", file=file, assignments=["optim.betas=[0.5, 0.6]", "name=mine"])

    assert got == Train(optim=Optim(lr=0.2, betas=(0.5, 0.6)), epochs=3, name="mine")


def test_assignments_do_not_reach_into_presets():
    """A preset changed by one run would silently be another preset for the next run in the same process."""
    presets = {"deep": {"outer": {"optim": {"lr": 0.5}}}}

    class Outer(Settings):
        optim: Optim = Optim()

    class Deep(Settings):
        outer: Outer = Outer()

    assert resolve(Deep, presets=presets, preset="deep", assignments=["outer.optim.lr=9"]).outer.optim.lr == 9
    assert resolve(Deep, presets=presets, preset="deep").outer.optim.lr == 0.5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.rl=1", "did you mean 'lr'"),
        ("epoch=1", "did you mean 'epochs'"),
        ("epochs=many", "'many'"),
        ("epochs", "section.key=value"),
        ("epochs.x=1", "epochs"),
    ],
)
def test_a_mistake_names_the_key_and_the_nearest_right_one(assignment, message):
    """A typo must not be ignored: it would train for days with the wrong setting."""
    with pytest.raises(UsageError, match=message):
        resolve(Train, assignments=[assignment])


def test_an_unknown_preset_lists_the_known_ones():
    """The list is the help."""
    with pytest.raises(UsageError, match="did you mean 'tiny'") as error:
        resolve(Train, presets=PRESETS, preset="tinny")

    assert "tiny" in error.value.fix


@pytest.mark.parametrize(("content", "message"), [("a = [", "not a TOML file"), (None, "cannot be read")])
def test_a_bad_file_is_named(tmp_path, content, message):
    """Missing or malformed configuration is the person's to mend."""
    file = tmp_path / "f.toml"
    if content is not None:
        file.write_text(content)

    with pytest.raises(UsageError, match=message):
        resolve(Train, file=file)


def test_the_fingerprint_depends_on_values_only():
    """Resume compares fingerprints: equal settings must never look different, nor different ones equal."""
    assert fingerprint(resolve(Train, assignments=["epochs=500"])) == fingerprint(Train())
    assert fingerprint(Train(epochs=499)) != fingerprint(Train())
