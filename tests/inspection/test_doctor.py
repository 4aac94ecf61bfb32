"""`eegprep doctor` finds what is wrong, and says so without breaking."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import eegprep_app, run
from eegprep.catalogue import moabb as catalogue
from eegprep.inspection import doctor, loader_check
from eegprep.inspection.doctor import Check, examine
from eegprep.offline import no_network


def named(checks: list[Check], name: str) -> Check:
    (result,) = [check for check in checks if check.name == name]
    return result


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the self-test of the loader, which starts processes."""
    monkeypatch.setattr(doctor, "check_reader", lambda timeout: [])


@pytest.mark.slow
def test_this_installation_is_well_and_is_examined_without_a_socket(tmp_path: Path) -> None:
    """The environment that runs the tests has everything; the loader answers in threads and in processes of every kind."""
    with no_network(everywhere=True) as guard:
        checks = examine(tmp_path)

    assert [check for check in checks if check.state == "failed"] == []
    assert {"loader, threads", "loader, fork, opened before", "filter self-test"} <= {check.name for check in checks}
    assert named(checks, "zarr").state == "ok"
    assert named(checks, "data folder").found.startswith(str(tmp_path))
    assert guard.refused == []


def test_old_and_missing_packages_are_named_with_both_versions(quick: None) -> None:
    """The floor in pyproject has a reason; pip does not keep it for a later install."""
    needs = ["numpy>=99", "not-a-package-of-anyone>=1.0", "zarr>=3.1", "unneeded>=1; extra == 'app'"]

    checks = examine(requirements=needs)

    assert named(checks, "numpy").state == "failed"
    assert "(needs >=99)" in named(checks, "numpy").found
    assert named(checks, "not-a-package-of-anyone").found == "not installed (needs >=1.0)"
    assert named(checks, "not-a-package-of-anyone").fix == "pip install 'not-a-package-of-anyone>=1.0'"
    assert named(checks, "zarr").state == "ok"
    assert "unneeded" not in [check.name for check in checks]


def test_a_checkout_that_was_never_installed_is_said_to_be_one(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then no requirement was ever looked at."""
    monkeypatch.setattr(doctor, "DISTRIBUTION", "eeg-dreamdiff-not-there")

    check = named(examine(), "eeg-dreamdiff-not-there")

    assert (check.state, check.fix) == ("failed", "pip install -e .")


def test_a_foreign_eegprep_fails_the_examination(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyPI's eegprep has the same import name; `doctor` is the command that still runs beside it."""
    folder = tmp_path / "eegprep-0.4.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: eegprep\nVersion: 0.4.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert run(eegprep_app, "eegprep", ["doctor", "--json"]) == 1
    (check,) = [line for line in json.loads(capsys.readouterr().out) if line["name"] == "foreign eegprep"]
    assert check["state"] == "failed"
    assert "'eegprep' 0.4.0 is installed as well" in check["found"]
    assert check["fix"].startswith("pip uninstall eegprep")


def test_when_the_foreign_package_is_the_one_imported_the_cure_is_still_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of ours can be imported then, not even the examination."""
    monkeypatch.setitem(sys.modules, "eegprep.inspection.doctor", None)  # what `import` sees when it is not there
    monkeypatch.setattr("cli.corpus.doctor.foreign_eegprep", lambda: "0.4.0")

    assert run(eegprep_app, "eegprep", ["doctor"]) == 1
    assert "pip uninstall eegprep" in capsys.readouterr().err


def test_a_table_is_printed_and_the_exit_code_is_0_when_all_is_well(
    quick: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings do not fail."""
    monkeypatch.setattr(doctor, "_optional", lambda: [Check("mffpy", "warning", "not installed", "pip install mffpy")])

    assert run(eegprep_app, "eegprep", ["doctor"]) == 0
    assert "mffpy\twarning\tnot installed\tpip install mffpy" in capsys.readouterr().out


def test_a_data_folder_that_cannot_be_written_is_a_warning(quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading from it is fine."""
    monkeypatch.setattr(os, "access", lambda *args: False)

    check = named(examine(tmp_path / "a" / "b"), "data folder")

    assert check.state == "warning"
    assert "cannot be written" in check.found


def test_passwords_of_proxies_are_not_printed(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """People paste this report into issues."""
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:secret@proxy:3128")

    assert "HTTPS_PROXY=http://***@proxy:3128" in named(examine(), "network").found


def test_a_moabb_that_cannot_be_read_fails(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its import raises."""
    monkeypatch.setattr(catalogue, "entries", lambda: (_ for _ in ()).throw(AttributeError("numpy has no float")))

    assert named(examine(), "catalogue").found == "MOABB cannot be read: AttributeError: numpy has no float"


def test_a_reader_that_hangs_is_a_failed_check_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadlock that other readers meet after fork must end in a message, not in a hanging doctor."""
    tried = [
        loader_check.Check("threads", True, "0.1 s"),
        loader_check.Check("fork, opened before", False, "hung: no answer in 60 s"),
    ]
    monkeypatch.setattr(doctor, "check_reader", lambda timeout: tried)

    checks = examine(requirements=[])

    assert named(checks, "loader, threads").state == "ok"
    assert named(checks, "loader, fork, opened before").found == "hung: no answer in 60 s"
    assert named(checks, "loader, fork, opened before").state == "failed"


def test_a_loader_that_cannot_even_be_tried_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """For instance without a temporary folder to write into."""

    def no_space(timeout: float) -> list[loader_check.Check]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(doctor, "check_reader", no_space)

    assert "No space left on device" in named(examine(requirements=[]), "loader self-test").found


@pytest.mark.parametrize(
    ("broken", "found"),
    [(lambda signal_CT, *args: signal_CT, "uV wrong"), (lambda *args: 1 / 0, "ZeroDivisionError")],
)
def test_a_filter_that_moves_the_rhythm_or_breaks_fails(
    broken: Callable[..., object], found: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero phase is the point of it."""
    monkeypatch.setattr(doctor, "band_pass", broken)

    check = named(examine(requirements=[]), "filter self-test")

    assert check.state == "failed"
    assert found in check.found
