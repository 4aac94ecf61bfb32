"""What MOABB declares, kept without getting stale."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eegprep.catalogue import licences as catalogue_licences
from eegprep.catalogue import moabb as catalogue
from eegprep.errors import SourceError, UsageError


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """No table of another test."""
    catalogue._table.cache_clear()
    yield
    catalogue._table.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **kwargs: str(tmp_path))
    return tmp_path


@pytest.fixture
def asked(cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often MOABB itself was asked; it answers with one class."""
    counted: list[int] = []
    one = [catalogue.entry("PhysionetMI")]
    catalogue._table.cache_clear()
    catalogue.cache_file().unlink(missing_ok=True)  # there where the table that ships is for another MOABB

    def ask() -> list[catalogue.Entry]:
        counted.append(1)
        return one

    monkeypatch.setattr(catalogue, "ask_moabb", ask)
    return counted


@pytest.mark.slow
def test_the_shipped_table_is_what_the_installed_moabb_says() -> None:
    """A snapshot that differs is a lie. To renew it: catalogue.snapshot_text(catalogue.ask_moabb()) -> eegprep/data/catalogue.json"""
    shipped = catalogue.entries()

    assert list(shipped) == catalogue.ask_moabb()


def test_the_table_needs_neither_moabb_nor_a_socket() -> None:
    """MOABB takes seconds to import; a list must not."""
    import subprocess
    import sys

    code = (
        "import sys; from eegprep.catalogue import moabb as catalogue; from eegprep import offline\n"
        "with offline.no_network(everywhere=True): print(len(catalogue.search(min_channels=30)))\n"
        "assert 'moabb' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "108\n"


def test_another_moabb_gets_another_table_which_is_then_kept(
    cache: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked once for a version that the snapshot is not for; the next process reads the cache."""
    monkeypatch.setattr(catalogue, "moabb_version", lambda: "1.9.0")

    assert [e.name for e in catalogue.entries()] == ["PhysionetMI"]
    catalogue._table.cache_clear()
    assert [e.name for e in catalogue.entries()] == ["PhysionetMI"]

    assert len(asked) == 1
    assert [path.name for path in cache.iterdir()] == [f"catalogue-{catalogue.CATALOGUE_FORM}-moabb-1.9.0.json"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"form": 0}', '{"form": 1, "moabb": "1.9.0", "entries": [{"name": "A"}]}'])
def test_a_damaged_or_foreign_cache_is_made_anew(
    cache: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A cache is never believed because it is there."""
    monkeypatch.setattr(catalogue, "moabb_version", lambda: "1.9.0")
    catalogue.cache_file().write_text(damage)

    assert len(catalogue.entries()) == 1
    assert asked == [1]


@pytest.mark.parametrize("version", ["1.8.0.dev0", "1.8.0rc1", "1.7.2+local"])
def test_a_development_version_is_asked_each_time(
    cache: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """Its number does not say what is in it."""
    monkeypatch.setattr(catalogue, "moabb_version", lambda: version)
    catalogue.entries()

    assert asked == [1]
    assert list(cache.iterdir()) == []


def test_a_home_that_cannot_be_written_costs_only_time(cache: Path, asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters have read-only homes."""
    monkeypatch.setattr(catalogue, "moabb_version", lambda: "1.9.0")
    monkeypatch.setattr(catalogue, "write_text", lambda *args: (_ for _ in ()).throw(PermissionError(13, "no")))

    assert len(catalogue.entries()) == 1


# -- totals that were counted independently, in MOABB 1.7.2 ----------------------------------------------------------------


def test_108_classes_declare_30_channels_or_more() -> None:
    """Counted by hand from METADATA: 108 classes, 2,560 subjects; 106 with at most 128 channels."""
    wide = catalogue.search(min_channels=30)

    assert (len(wide), sum(e.n_subjects for e in wide)) == (108, 2560)
    assert len(catalogue.search(min_channels=30, max_channels=128)) == 106
    assert len(catalogue.search(min_channels=30, max_channels=128, min_rate=191)) == 99
    assert len(catalogue.search(min_channels=30, max_channels=128, licences=["open"])) == 78


def test_filters_combine() -> None:
    """Each narrows what the others leave."""
    result = catalogue.search(min_channels=60, max_rate=250, paradigm="ssvep", licences=["cc by 4.0"], name="wang")

    assert [e.name for e in result] == ["Wang2016"]


def test_an_unknown_paradigm_is_corrected() -> None:
    """With the list to choose from."""
    with pytest.raises(UsageError, match="there is no paradigm 'imagry'; did you mean 'imagery'"):
        catalogue.search(paradigm="imagry")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("Phsyionet_MI", "PhysionetMI"), ("lee2019-m", "Lee2019_MI"), ("schirmeister2017", "Schirrmeister2017")],
)
def test_a_misspelt_name_is_corrected_with_the_class_as_it_is_written(typed: str, meant: str) -> None:
    """159 names, many of them alike."""
    with pytest.raises(SourceError, match=f"has no data set '{typed}' among its 159; did you mean '{meant}'"):
        catalogue.entry(typed)


def test_a_name_like_no_other_gets_no_guess() -> None:
    """A wrong guess is worse than none."""
    with pytest.raises(SourceError, match=r"no data set 'zzzzzzzzzz' among its 159\n") as raised:
        catalogue.entry("zzzzzzzzzz")
    assert "eegprep datasets" in raised.value.fix


@pytest.mark.parametrize("name", ["physionetmi", "PhysionetMotorImagery", "PHYSIONET-MI"])
def test_case_dashes_and_moabb_codes_find_the_class(name: str) -> None:
    """MOABB calls the same set PhysionetMI and PhysionetMotorImagery."""
    assert catalogue.entry(name).name == "PhysionetMI"


# -- licences -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("CC-BY-4.0", "CC-BY-4.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("CC-BY-NC-ND-4.0", "CC-BY-NC-ND-4.0"),
        ("CC-BY", "CC-BY-4.0"),
        ("CC0", "CC0-1.0"),
        ("CC0 1.0", "CC0-1.0"),
        ("ODC-By-1.0", "ODC-By-1.0"),
        ("GPL-3.0", "GPL-3.0-only"),
        ("Non-commercial research use", "LicenseRef-noncommercial-research"),
        ("Unknown", "unknown"),
        ("other-open", "unknown"),
        (None, "unknown"),
        ("", "unknown"),
        ("Some university licence", "Some university licence"),
    ],
)
def test_every_spelling_in_the_catalogue_has_one_name(written: str | None, expected: str) -> None:
    """MOABB writes CC-BY-4.0 in two ways and CC0 in three; a filter must not miss any."""
    assert catalogue_licences.spdx(written) == expected


@given(st.text(max_size=30))
def test_naming_a_licence_twice_changes_nothing(text: str) -> None:
    """The store keeps the result, and reads it again."""
    assert catalogue_licences.spdx(catalogue_licences.spdx(text)) == catalogue_licences.spdx(text)


def test_only_licences_that_allow_shared_derivatives_are_open() -> None:
    """A filtered, cropped corpus is a derivative."""
    closed = ["CC-BY-NC-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0", "GPL-3.0", "unknown", "my own terms"]

    assert not any(catalogue_licences.is_open(name) for name in closed)
    assert all(catalogue_licences.is_open(name) for name in ("CC0", "cc by 4.0", "CC-BY-SA-4.0", "ODC-By-1.0"))


def test_terms_say_what_is_not_allowed() -> None:
    """One phrase for each restriction."""
    assert catalogue_licences.licence_terms("CC-BY-4.0") == []
    assert len(catalogue_licences.licence_terms("CC-BY-NC-ND-4.0")) == 2
    assert catalogue_licences.licence_terms("CC-BY-NC-SA-4.0") == ["non-commercial use only", "share-alike"]
    assert catalogue_licences.licence_terms("CC-BY-SA-4.0") == ["share-alike"]
    assert catalogue_licences.licence_terms("whatever") == ["nothing is known about what is allowed"]


# -- people ---------------------------------------------------------------------------------------------------------------


def test_one_person_in_several_classes_has_one_name() -> None:
    """Lee2019 recorded the same 54 people three times: a split by class would leak them."""
    names = {catalogue.person_of(name, "7") for name in ("Lee2019_MI", "Lee2019_ERP", "Lee2019_SSVEP")}

    assert names == {"Lee2019/7"}


def test_the_berlin_codes_join_people_that_numbers_hide() -> None:
    """Participant `fat` is number 1 of two sets and number 19 of a third."""
    assert catalogue.person_of("BNCI2015_007", "1") == catalogue.person_of("BNCI2015_010", "1") == "Berlin/fat"
    assert catalogue.person_of("BNCI2015_009", "19") == "Berlin/fat"
    assert catalogue.person_of("BNCI2015_007", "2") == "Berlin/gdf"


def test_where_ids_do_not_tell_people_stay_apart() -> None:
    """Nguyen2017's 15 people have 26 numbers, and nobody says which are whose."""
    assert catalogue.person_of("Nguyen2017_L", "1") != catalogue.person_of("Nguyen2017_S", "1")
    assert catalogue.entry("Nguyen2017_L").same_people == "no"


def test_berlin_codes_are_as_many_as_the_classes_have_subjects() -> None:
    """One code a subject, or the mapping is shifted."""
    for name, codes in catalogue._people().items():
        assert len(codes) == len(set(codes)) == catalogue.entry(name).n_subjects, name


def test_one_deposit_behind_several_classes_counts_once() -> None:
    """ErpCore2021 is one 17.5 GB deposit for seven classes."""
    seven = catalogue.search(name="ErpCore2021")

    assert len(seven) == 7
    assert catalogue.total_bytes(seven) == seven[0].bytes


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, ""), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (371_500_000_000, "371.5 GB")],
)
def test_sizes_are_readable(count: int | None, text: str) -> None:
    """Powers of 1000, as disks are sold."""
    assert catalogue.format_bytes(count) == text


def test_records_are_json_and_rows_have_the_columns() -> None:
    """What `--json` prints must be JSON, with numbers as numbers."""
    entry = catalogue.entry("Cho2017")
    record = json.loads(json.dumps(entry.record()))

    assert (record["class"], record["size"], record["rate"], record["subjects"]) == ("Cho2017", entry.bytes, 512.0, 52)
    assert set(catalogue.COLUMNS) <= set(entry.row())


def test_tasks_say_what_people_did_where_the_paradigm_does_not() -> None:
    """MOABB files looking at pictures and inner speech under imagery."""
    assert [entry.name for entry in catalogue.search(task="viewing")] == ["Kaneshiro2015"]
    assert {catalogue.entry(name).task for name in ("Cho2017", "Nieto2022", "EPFLP300", "Nakanishi2015")} == {
        "motor imagery", "inner speech", "oddball", "flicker",
    }  # fmt: skip
    with pytest.raises(UsageError, match="there is no task 'imagery'"):
        catalogue.search(task="imagery")


@pytest.mark.parametrize(("options", "runs"), [({}, 6), ({"executed": True}, 12), ({"imagined": False, "executed": True}, 6)])
def test_the_plan_counts_the_runs_that_a_class_gives(options: dict[str, bool], runs: int) -> None:
    """PhysionetMI gives the imagined runs alone unless told otherwise, of 14."""
    assert catalogue.share_given("PhysionetMI", options) == runs / 14
    assert catalogue.share_given("Cho2017", options) == 1.0
