"""One merge for every configuration."""

from __future__ import annotations

import pytest

from eegprep.errors import UsageError
from eegprep.provenance import fingerprint
from eegprep.settings import Settings, current_form, resolve


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
        ("optim.rl=1", "did you mean 'optim.lr'"),
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


class Sections(Settings):
    renamed = {"batch": "data.batch_size", "lr": "optim.lr"}  # noqa: RUF012

    class Data(Settings):
        batch_size: int = 8
        name: str = "x"

    data: Data = Data()
    optim: Optim = Optim()


def test_a_renamed_key_means_the_same_in_every_place_a_setting_can_come_from(tmp_path):
    """Files, commands and scripts of the version before keep working, and later sources still win over earlier ones."""
    (tmp_path / "old.toml").write_text("batch = 5\n")

    assert resolve(Sections, file=tmp_path / "old.toml").data.batch_size == 5
    assert resolve(Sections, assignments=["batch=6"]) == Sections(batch=6) == resolve(Sections, options={"batch": 6})
    assert resolve(Sections, presets={"p": {"data": {"batch_size": 2}}}, preset="p", assignments=["batch=3"]).data.batch_size == 3
    assert resolve(Sections, presets={"p": {"batch": 2}}, preset="p", assignments=["data.batch_size=3"]).data.batch_size == 3


def test_a_configuration_of_an_older_version_is_given_todays_form():
    """Moved keys are moved, and a key that did not exist then has the value that it had without a name."""
    assert current_form(Sections, {"batch": 5, "optim": {"lr": 1.0}}) == Sections(batch=5, lr=1.0).model_dump(mode="json")
    assert current_form(Sections, {"unknown": 1}) == {"unknown": 1}


def test_an_option_reaches_the_configuration_as_the_value_it_is():
    """`--pairs 2024` is the name of a store, not a number; None is an option that was not given."""
    assert resolve(Train, options={"name": "2024", "epochs": None}) == Train(name="2024")
    assert resolve(Train, assignments=["name=2024"]) == Train(name="2024")


@pytest.mark.parametrize(
    ("assignment", "meant"),
    [
        ("epochs=1", "'loop.epochs'"),
        ("loop.epoch=1", "'loop.epochs'"),
        ("optim.zzz=1", ""),
        ("encoder.width=3", "'model.encoder'"),
        ("optim.weigth_decay=1", "'optim.weight_decay'"),
    ],
)
def test_a_misspelt_setting_is_suggested_with_its_section(assignment, meant):
    """`epochs` alone is what people try first."""
    from dreamdiff.pretraining.config import PretrainConfig

    with pytest.raises(UsageError) as error:
        resolve(PretrainConfig, assignments=[assignment])

    assert ("did you mean " + meant in str(error.value)) if meant else ("did you mean" not in str(error.value))


def test_an_option_of_a_section_leaves_the_rest_of_the_section_alone():
    """`--device cpu` beside `--set loop.epochs=3` changes one key, and wins over the file that names it."""
    got = resolve(Train, options={"optim.lr": 0.5, "optim.betas": None}, assignments=["optim.betas=[0.5, 0.6]", "optim.lr=0.1"])

    assert got == Train(optim=Optim(lr=0.5, betas=(0.5, 0.6)))


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_a_number_that_json_cannot_hold_is_refused(value):
    """It came back as null from the store, and comparing it ended in a traceback."""

    class Limits(Settings):
        low: float = 1.0

    with pytest.raises(UsageError, match=r"'low' = .*finite"):
        resolve(Limits, assignments=[f"low={value}"])
    with pytest.raises(UsageError, match=r"'low' = .*finite"):
        resolve(Limits, options={"low": float(value)})
