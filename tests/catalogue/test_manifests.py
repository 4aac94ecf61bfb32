"""Lists of sources say what they mean, and draws are fair and repeatable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegprep.catalogue import licences as catalogue_licences
from eegprep.catalogue import manifests
from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.balance import balanced_caps, caps_by_group, draw
from eegprep.catalogue.manifests import load, parse_source
from eegprep.catalogue.subjects import choose_subjects, parse_subjects
from eegprep.errors import SourceError, UsageError

COUNTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 3000), max_size=40)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "m.toml"
    path.write_text(text)
    return path


# -- the shipped ones -----------------------------------------------------------------------------------------------------


def test_the_paper_era_is_20_classes_and_507_people() -> None:
    """Counted in an archive of MOABB 0.5; the file says that it is a reconstruction."""
    manifest = load("paper-era")
    everybody = {
        manifests.person(source, str(subject))
        for source in manifest.sources
        for subject in catalogue.entry(source.target).subjects
    }

    assert (len(manifest.sources), len(everybody), manifest.target_windows) == (20, 507, 120_000)
    assert "reconstruction" in manifest.description
    assert {s.dataset: s.options for s in manifest.sources}["PhysionetMI"] == {"imagined": True, "executed": True}


def test_without_physionetmi_the_paper_era_stays_under_400_people() -> None:
    """Which is why a rule for 160 Hz is unavoidable."""
    rest = [catalogue.entry(s.target) for s in load("paper-era").sources if s.target != "PhysionetMI"]

    assert len(catalogue.people(rest)) == 398


def test_the_lists_are_complete_for_the_moabb_they_name() -> None:
    """Everything with 30 channels, and everything under an open licence."""
    wide = load("all-30ch")
    if catalogue.moabb_version() not in wide.description:
        pytest.skip(f"the lists are not for MOABB {catalogue.moabb_version()}")

    assert [s.target for s in wide.sources] == [e.name for e in catalogue.search(min_channels=30)]
    assert [s.target for s in load("open-licence").sources] == [
        e.name for e in catalogue.search(min_channels=30, licences=["open"])
    ]


@pytest.mark.parametrize("name", ["paper-era", "all-30ch", "open-licence"])
def test_thirty_channels_must_be_observed_not_only_declared(name: str) -> None:
    """Zhou2020 declares 41 channels, and eight of its people have 26."""
    assert load(name).recipe == {"min_channels": 30}


def test_open_means_open() -> None:
    """Nobody should have to check 80 licences again."""
    assert all(catalogue_licences.is_open(source.licence) for source in load("open-licence").sources)


def test_the_sample_is_local_and_belongs_to_physionetmi() -> None:
    """It needs no download, and its people are those of the class."""
    (source,) = load("sample").sources

    assert source.kind == "files"
    assert manifests.person(source, "1") == manifests.person(parse_source("moabb:PhysionetMI"), "1")


@pytest.mark.parametrize("name", ["sample", "sample.toml", "data_manifests/sample.toml"])
def test_shipped_manifests_are_found_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's command works wherever it is typed."""
    monkeypatch.chdir(tmp_path)

    assert load(name).title == "Sample recordings"


# -- reading --------------------------------------------------------------------------------------------------------------


def test_every_key_arrives(tmp_path: Path) -> None:
    """What is written is what is built."""
    path = write(
        tmp_path,
        """
title = "mine"
target_windows = 1000
seed = 7
[[source]]
spec = "moabb:cho2017"
subjects = "1-3,9"
max_per_subject = 20
[[source]]
spec = "files:data/*.edf"
dataset = "Clinic"
pattern = 'P(?P<subject>[0-9]+)'
licence = "cc by 4.0"
person_family = "Clinic"
[source.sha256]
"a.edf" = "00"
[recipe]
high = 45.0
[software]
mne = "1.13"
""",
    )

    manifest = load(path)
    moabb, files = manifest.sources

    assert (manifest.title, manifest.target_windows, manifest.seed) == ("mine", 1000, 7)
    assert (moabb.target, moabb.dataset, moabb.subjects, moabb.max_per_subject) == (
        "Cho2017",
        "Cho2017",
        ("1", "2", "3", "9"),
        20,
    )
    assert (moabb.licence, moabb.doi) == ("CC-BY-4.0", catalogue.entry("Cho2017").doi)
    assert (files.target, files.licence, files.sha256) == (str(tmp_path / "data/*.edf"), "CC-BY-4.0", {"a.edf": "00"})
    assert (manifest.recipe, manifest.software) == ({"high": 45.0}, {"mne": "1.13"})
    assert manifests.person(files, "3") == "Clinic/3"


def test_several_names_are_joined_in_order(tmp_path: Path) -> None:
    """`eegprep build sample moabb:Cho2017`: the first manifest's title and target count."""
    path = write(tmp_path, 'title = "b"\ntarget_windows = 5\n[[source]]\nspec = "moabb:Cho2017"\n')

    joined = load(["sample", path, "moabb:Wang2016"])

    assert [s.dataset for s in joined.sources] == ["PhysionetMI", "Cho2017", "Wang2016"]
    assert (joined.title, joined.target_windows) == ("Sample recordings", 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[source]]\nspec = "moabb:Cho2017"\nsubject = "1"', r"no setting 'source.0.subject'"),
        ('[[source]]\nspec = "moabb:Cho2017"\nmax_per_subject = 0', r"'source.0.max_per_subject' = 0"),
        ('[[source]]\nspec = "moab:Cho2017"', r"m.toml: source 'moab:Cho2017' is not of a known kind; did you mean 'moabb'"),
        ('[[source]]\nspec = "moabb:"', r"source 'moabb:' is not of a known kind"),
        ('[[source]]\nspec = "files:a"\npattern = "["', r"pattern '\[' is not a regular expression"),
        ('[[source]]\nspec = "files:a"\npattern = "S(.*)"', r"has the named groups \[\]"),
        ('[[source]]\nspec = "files:a"\npattern = "(?P<person>.*)"', r"has the named groups \['person'\]"),
        ('[[source]]\nspec = "moabb:Cho2017"\npattern = "(?P<run>.*)"', r"has a pattern, which only files: sources know"),
        ('[[source]]\nspec = "files:a"\noptions = { a = 1 }', r"has options, which only moabb: and nemar: sources know"),
        ('[[source]]\nspec = "files:a"\ndataset = "a/b"', r"'a/b' cannot name a group"),
        ('title = "empty"', r"m.toml lists no source"),
        ('[[source]]\nspec = "moabb:Cho2017"\nsubjects = "53"', r"m.toml: there is no subject '53'"),
        ("[[source]", r"not a TOML file"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    """A manifest is written by hand."""
    with pytest.raises(UsageError, match=message):
        load(write(tmp_path, text))


def test_an_unknown_class_is_corrected() -> None:
    """From the catalogue, not from the network."""
    with pytest.raises(SourceError, match="did you mean 'Cho2017'"):
        load("moabb:Cho2107")


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        ("paper-eer", "there is no file, folder or manifest 'paper-eer'; did you mean 'paper-era'", "paper-era.toml"),
        ("cho2017", "there is no manifest 'cho2017'", "moabb:Cho2017"),
        ("nowhere/x.toml", "there is no file, folder or manifest 'nowhere/x.toml'", "give a path"),
    ],
)
def test_an_unknown_manifest_gets_the_likely_cure(name: str, message: str, fix: str) -> None:
    """People forget the kind in front of a name."""
    with pytest.raises((SourceError, UsageError), match=message) as raised:
        load(name)
    assert fix in raised.value.fix
    assert raised.value.exit_code == (2 if name == "cho2017" else 1)  # a kind is missing; or something that is not there


def test_bare_files_and_folders_are_sources(tmp_path: Path) -> None:
    """`eegprep build recordings/*.edf` and `eegprep build study/` are what people type first."""
    for name in (
        "recordings/a.edf",
        "recordings/b.edf",
        "study/sub-01/eeg/sub-01_task-x_eeg.edf",
        "study/dataset_description.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"0")

    one, both, folder, root, person, pattern = (
        load(names, tmp_path).sources[0]
        for names in (
            "recordings/a.edf",
            ["recordings/a.edf", "recordings/b.edf"],
            "recordings",
            "study/",
            "study/sub-01",
            "recordings/*.edf",
        )
    )

    assert one.spec == f"files:{tmp_path}/recordings/a.edf"
    assert (both.spec, both.files) == (f"files:{tmp_path}/recordings", ("a.edf", "b.edf"))
    assert folder.spec == f"files:{tmp_path}/recordings" and root.spec == f"bids:{tmp_path}/study"
    assert (person.spec, person.subjects) == (f"bids:{tmp_path}/study", ("01",))
    assert pattern.spec == f"files:{tmp_path}/recordings/*.edf"
    assert {source.dataset for source in (one, both, folder, pattern)} == {"recordings"}


def test_a_shipped_manifest_wins_over_a_folder_of_its_name_unless_the_folder_is_meant(tmp_path: Path) -> None:
    """`sample` is the manifest, `./sample` and `sample/` the folder."""
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample/a.edf").write_bytes(b"0")

    assert load("sample", tmp_path).title
    assert load("sample/", tmp_path).sources[0].spec == load("./sample", tmp_path).sources[0].spec == f"files:{tmp_path}/sample"


def test_no_source_at_all_is_an_error() -> None:
    """From Python, an empty list."""
    with pytest.raises(UsageError, match="no source was given"):
        load([])


def test_two_sources_may_not_be_stored_over_each_other() -> None:
    """The same class twice would be two writers of one group."""
    with pytest.raises(UsageError, match="would both be stored as 'Cho2017'"):
        load(["moabb:Cho2017", "moabb:Cho2017"])


def test_two_sources_with_different_subjects_may_share_a_name(tmp_path: Path) -> None:
    """One study on two disks."""
    text = "".join(f'[[source]]\nspec = "bids:{n}"\ndataset = "A"\nsubjects = "{n}"\n' for n in (1, 2))

    assert [s.subjects for s in load(write(tmp_path, text)).sources] == [("1",), ("2",)]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("files:/data/clinic/*.edf", "clinic"),
        ("files:/data/clinic/a.edf", "clinic"),
        ("files:/data/my clinic/**/*.edf", "my_clinic"),
        ("bids:/data/ds001", "ds001"),
        ("files:/*.edf", "files"),
        ("files:/data/eegset/1.0.0/*.edf", "eegset"),
        ("files:/data/files/eegset/part2/v1.2/**/*.edf", "eegset"),
        ("bids:/data/ds001/1.0.1", "ds001"),
        ("files:/data/study/*/rest_raw.fif", "study"),
        ("files:/data/\u00e9tude/*.edf", "etude"),
    ],
)
def test_local_sources_are_named_after_their_folder(spec: str, name: str) -> None:
    """A group name has no spaces or slashes."""
    assert parse_source(spec).dataset == name


# -- subjects -------------------------------------------------------------------------------------------------------------


def test_ranges_and_lists_of_subjects() -> None:
    """In the order given, once each, zeros kept."""
    assert parse_subjects("3, 1-2,2") == ("3", "1", "2")
    assert parse_subjects("01-03") == ("01", "02", "03")
    assert parse_subjects("S1,control-7") == ("S1", "control-7")


def test_a_range_skips_gaps_but_a_name_must_exist() -> None:
    """EPFLP300 has no subject 5."""
    known = [str(subject) for subject in catalogue.entry("EPFLP300").subjects]

    assert parse_subjects("4-6", known) == ("4", "6")
    with pytest.raises(UsageError, match="there is no subject '5'") as raised:
        parse_subjects("4,5", known)
    assert raised.value.fix == "choose among the 8: 1-4, 6-9"
    with pytest.raises(UsageError, match="there is no subject '10-12'"):
        parse_subjects("10-12", known)


def test_subjects_that_make_no_sense_are_refused() -> None:
    """With what to write instead."""
    with pytest.raises(UsageError, match="'9-3': 9 comes after 3") as raised:
        parse_subjects("9-3")
    assert raised.value.fix == "write 3-9"
    with pytest.raises(UsageError, match="',' names nobody"):
        parse_subjects(",")


def test_a_range_means_ids_with_leading_zeros_and_letters_in_front_too() -> None:
    """People write `1-2` and files are called 01 and 02; who means nobody sees the ids that exist."""
    known = ["01", "02", "07", "S03", "S04"]

    assert choose_subjects(["1-7"], known) == ("01", "02", "07")
    assert choose_subjects(["2", "sub-07", "S1-S3"], known) == ("02", "07", "S03")
    with pytest.raises(UsageError, match="there is no subject '9'") as raised:
        choose_subjects(["9"], known)
    assert raised.value.fix == "choose among the 5: 01, 02, 07, S03, S04"


def test_subjects_of_the_command_line_are_checked_against_the_catalogue() -> None:
    """Before anything is downloaded."""
    source = parse_source("moabb:Cho2017")

    assert manifests.with_subjects(source, None) is source
    assert manifests.with_subjects(source, "2-3").subjects == ("2", "3")
    with pytest.raises(UsageError, match="there is no subject '77'"):
        manifests.with_subjects(source, "77")


# -- draws ----------------------------------------------------------------------------------------------------------------


@given(COUNTS, st.integers(0, 50_000), st.integers(0, 5))
def test_a_balanced_draw_takes_the_target_as_evenly_as_the_data_allow(available: dict[str, int], target: int, seed: int) -> None:
    """The definition of water-filling: the right sum, nobody over what they have, and only who has less gives less."""
    caps = balanced_caps(available, target, seed)

    assert caps.keys() == available.keys()
    assert sum(caps.values()) == min(target, sum(available.values()))
    assert all(0 <= caps[key] <= available[key] for key in available)
    level = max(caps.values(), default=0)
    assert all(cap >= level - 1 or cap == available[key] for key, cap in caps.items())


@given(COUNTS, st.integers(0, 50_000), st.integers(0, 5))
def test_a_draw_depends_on_seed_and_content_not_on_order(available: dict[str, int], target: int, seed: int) -> None:
    """Workers list people in any order; the corpus must come out the same."""
    reversed_order = dict(reversed(list(available.items())))

    assert balanced_caps(available, target, seed) == balanced_caps(reversed_order, target, seed)


def test_the_paper_s_numbers_are_236_or_237_windows_a_person() -> None:
    """120,000 over 507 people."""
    caps = balanced_caps({str(n): 1000 for n in range(507)}, 120_000)

    assert set(caps.values()) == {236, 237}
    assert sum(caps.values()) == 120_000


def test_the_few_left_over_are_drawn_with_the_seed() -> None:
    """Else the first names of the alphabet would always give more."""
    people = {str(n): 10 for n in range(50)}

    assert balanced_caps(people, 75, 0) == balanced_caps(people, 75, 0)
    assert balanced_caps(people, 75, 0) != balanced_caps(people, 75, 1)


def test_negative_counts_are_refused() -> None:
    """A bug upstream, not a draw."""
    with pytest.raises(UsageError, match="a draw of -1 windows"):
        balanced_caps({"a": 1}, -1)
    with pytest.raises(UsageError, match="needs counts of 0 or more"):
        balanced_caps({"a": -1}, 1)


def test_a_person_in_three_classes_counts_once() -> None:
    """Else Lee2019's people would give three times as many windows as others."""
    available = {("Lee2019_MI", "1"): 500, ("Lee2019_ERP", "1"): 500, ("Lee2019_SSVEP", "1"): 10, ("Cho2017", "1"): 500}
    people = {key: catalogue.person_of(*key) for key in available}

    caps = caps_by_group(available, people, 400)

    assert sum(cap for (dataset, _), cap in caps.items() if dataset.startswith("Lee")) == caps["Cho2017", "1"] == 200
    assert caps["Lee2019_SSVEP", "1"] == 10
    assert abs(caps["Lee2019_MI", "1"] - caps["Lee2019_ERP", "1"]) <= 1


@given(st.integers(0, 500), st.integers(0, 600), st.integers(0, 3), st.text(max_size=5))
def test_drawn_windows_are_distinct_sorted_and_repeatable(n: int, keep: int, seed: int, key: str) -> None:
    """In any process, in any order of work."""
    chosen = draw(n, keep, seed, key)

    assert len(chosen) == min(n, keep)
    assert np.all(np.diff(chosen) > 0)
    assert np.all((chosen >= 0) & (chosen < n))
    np.testing.assert_array_equal(chosen, draw(n, keep, seed, key))


def test_every_window_is_drawn_about_equally_often() -> None:
    """A draw that prefers the beginning would prefer the alert minutes. 1000 draws of 10 of 50: 200 each, binomial spread 13."""
    counts = np.bincount(np.concatenate([draw(50, 10, seed, "a") for seed in range(1000)]), minlength=50)

    assert abs(counts - 200).max() < 5 * np.sqrt(1000 * 0.2 * 0.8)


# -- writing --------------------------------------------------------------------------------------------------------------


def test_a_written_manifest_reads_back(tmp_path: Path) -> None:
    """`eegprep datasets --manifest` must give what `eegprep build` takes."""
    chosen = catalogue.search(min_channels=100)
    manifests.write(tmp_path / "m.toml", chosen)

    assert [s.target for s in load(tmp_path / "m.toml").sources] == [e.name for e in chosen]


def test_a_rendered_manifest_keeps_its_target_and_least_channels(tmp_path: Path) -> None:
    """The shipped ones are made so."""
    chosen = catalogue.search(min_channels=100)
    text = manifests.render(chosen, title="t", description="d", target_windows=500, min_channels=100)

    manifest = load(write(tmp_path, text))

    assert (manifest.title, manifest.description.strip(), manifest.target_windows) == ("t", "d", 500)
    assert manifest.recipe == {"min_channels": 100}


def test_a_manifest_of_nothing_or_under_a_strange_name_is_refused(tmp_path: Path) -> None:
    """Before a file is made."""
    with pytest.raises(UsageError, match=r"m.json is not named like a manifest"):
        manifests.write(tmp_path / "m.json", catalogue.search(min_channels=100))
    with pytest.raises(UsageError, match="the manifest would be empty"):
        manifests.write(tmp_path / "m.toml", [])
    assert list(tmp_path.iterdir()) == []
