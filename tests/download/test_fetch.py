"""Source files arrive under MOABB's names, once, checked, with the licence accepted and nothing but what was asked for."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pooch
import pytest
import requests
from unreliable_server import Server, serving

from eegprep.catalogue import moabb as catalogue
from eegprep.catalogue.manifests import Source, parse_source
from eegprep.download import data_folder as fetch_data_folder
from eegprep.download import fetch
from eegprep.download import moabb_child as fetch_moabb_child
from eegprep.download import moabb_child as moabb_files
from eegprep.download import transfer as moabb_files_transfer
from eegprep.download.transfer import Unreachable
from eegprep.errors import FetchError, LicenceError, UsageError
from eegprep.offline import no_network
from eegprep.recording import SourceFile

CONTENT = {subject: f"MATLAB 5.0 MAT-file of subject {subject}".encode() * 100 for subject in range(1, 13)}


class SpyDataset:
    """A class in MOABB's manner: pooch, certificates not verified, hash of an existing file taken on trust."""

    code, nemar_id = "Spy", None
    subject_list = tuple(CONTENT)
    base = ""
    loads = 0

    def __init__(self, **options: Any) -> None:
        self.options = options

    def data_path(self, subject: int) -> str:
        type(self).loads += 1
        destination = Path(os.environ["MNE_DATA"]) / "MNE-spy-data" / f"s{subject}.mat"
        if not destination.exists():
            pooch.retrieve(
                f"{self.base}/s{subject}.mat",
                None,
                fname=destination.name,
                path=destination.parent,
                downloader=pooch.HTTPDownloader(verify=False),
            )
        return str(destination)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        for subject, content in CONTENT.items():
            running.put(f"/s{subject}.mat", content)
        yield running


@pytest.fixture
def spy(server: Server, monkeypatch: pytest.MonkeyPatch) -> type[SpyDataset]:
    """MOABB as a module with one class, asked in this process instead of a child."""

    class Spy(SpyDataset):
        base = server.url

    _install(monkeypatch, {"CastillosCVEP40": Spy, "Shin2017A": Spy})
    return Spy


def _install(monkeypatch: pytest.MonkeyPatch, classes: Mapping[str, type]) -> None:
    for name in ("moabb", "moabb.datasets"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "moabb.datasets.utils", SimpleNamespace(dataset_dict=classes))

    def in_process(request: Mapping[str, Any], data_dir: Path) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        with monkeypatch.context() as patch:
            for name, value in fetch_moabb_child.environment(data_dir).items():
                patch.setenv(name, value)
            guard = no_network(everywhere=True) if request["offline"] else pytest.MonkeyPatch.context()
            with guard:
                moabb_files.find_files(request, answers.append)
        return answers

    monkeypatch.setattr(fetch, "_ask_child", in_process)


def test_a_host_that_gives_no_answer_is_asked_for_one_subject_only(
    spy: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, 109 subjects with six attempts each would take hours to fail; what is on the disk still counts."""
    fetch.ensure(OPEN, tmp_path, subjects=("3",))
    gave_up: list[str] = []

    def download(url: str, *arguments: Any, **options: Any) -> Any:
        try:
            return real(url, *arguments, **options, sleep=lambda _: None)
        except Unreachable:
            gave_up.append(url)
            raise

    real = moabb_files_transfer.download
    monkeypatch.setattr(moabb_files, "download", download)
    monkeypatch.setattr(spy, "base", "https://127.0.0.1:1")  # nobody listens there
    shutil.rmtree(tmp_path / ".eegprep", ignore_errors=True)
    failed: dict[str, Any] = {}

    result = fetch.ensure(OPEN, tmp_path, subjects=("1", "2", "3", "4"), failed=failed)

    assert list(result) == ["3"]
    assert list(failed) == ["1", "2", "4"]
    assert len(gave_up) == 1
    assert "6 attempts" in failed["4"].problem


OPEN = parse_source("moabb:CastillosCVEP40")  # CC-BY-4.0, 12 subjects
GPL = parse_source("moabb:Shin2017A")


def test_files_of_the_wanted_subjects_arrive_with_name_size_and_hash(spy: type, tmp_path: Path) -> None:
    """Names are relative to the data folder, so that a store does not depend on the machine."""
    result = fetch.ensure(OPEN, tmp_path, subjects=("2", "3"))

    assert list(result) == ["2", "3"]
    assert result["2"][0].name == "MNE-spy-data/s2.mat"
    assert result["2"][0].bytes == len(CONTENT[2])
    fetch.check(result["2"] + result["3"], tmp_path)


def test_a_second_call_asks_neither_moabb_nor_the_server(spy: type[SpyDataset], server: Server, tmp_path: Path) -> None:
    """A re-run with nothing to do over 400 subjects has to be quick."""
    first = fetch.ensure(OPEN, tmp_path, subjects=("1",))
    loads, asked = spy.loads, len(server.resources["/s1.mat"].requests)

    assert fetch.ensure(OPEN, tmp_path, subjects=("1",)) == first
    assert (spy.loads, len(server.resources["/s1.mat"].requests)) == (loads, asked)


def test_other_options_of_a_class_are_other_files(spy: type[SpyDataset], tmp_path: Path) -> None:
    """PhysionetMI with executed movements has more runs than without: the record of one must not answer for the other."""
    fetch.ensure(OPEN, tmp_path, subjects=("1",))
    loads = spy.loads

    fetch.ensure(OPEN.model_copy(update={"options": {"executed": True}}), tmp_path, subjects=("1",))

    assert spy.loads > loads


def test_progress_names_subjects(spy: type, tmp_path: Path) -> None:
    """(done, total, message) after each subject."""
    messages: list[tuple[int, int, str]] = []

    fetch.ensure(OPEN, tmp_path, subjects=("1", "2"), progress=lambda *what: messages.append(what))

    assert (1, 2, "CastillosCVEP40 subject 1") in messages
    assert (2, 2, "CastillosCVEP40 subject 2") in messages


def test_one_subject_that_fails_does_not_lose_the_others(spy: type, server: Server, tmp_path: Path) -> None:
    """The first problem is raised after everything else has arrived; or all are handed over."""
    del server.resources["/s2.mat"]

    with pytest.raises(FetchError, match=r"CastillosCVEP40 subject 2: .*404"):
        fetch.ensure(OPEN, tmp_path, subjects=("1", "2", "3"))
    failed: dict[str, FetchError] = {}
    result = fetch.ensure(OPEN, tmp_path, subjects=("1", "2", "3"), failed=failed)

    assert list(result) == ["1", "3"]
    assert list(failed) == ["2"]


def test_the_number_of_failed_subjects_is_told(spy: type, server: Server, tmp_path: Path) -> None:
    """One line, but not as if it were the only one."""
    server.resources.clear()

    with pytest.raises(FetchError, match=r"subject 1: .*\(and 2 more subjects\)"):
        fetch.ensure(OPEN, tmp_path, subjects=("1", "2", "3"))


def test_classes_that_want_more_than_a_subject_get_it(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Castillos' classes want their paradigm, Nieto2022 one session at a time: 5 of the 108 classes with 30 channels."""

    class Wants(SpyDataset):
        base, paradigm_type = server.url, "burst"

        def data_path(self, subject: int, paradigm_type: str) -> str:  # type: ignore[override]
            assert paradigm_type == "burst"
            return super().data_path(subject)

    class Sessions(SpyDataset):
        base, n_sessions = server.url, 3

        def data_path(self, subject: int, session: int | None = None) -> str:  # type: ignore[override]
            return super().data_path(int(f"{session:d}"))  # as Nieto2022 does: fails without a session

    _install(monkeypatch, {"CastillosCVEP40": Wants, "Nieto2022": Sessions})

    assert len(fetch.ensure(OPEN, tmp_path, subjects=("1",))["1"]) == 1
    assert len(fetch.ensure(parse_source("moabb:Nieto2022"), tmp_path, subjects=("1",))["1"]) == 3


def test_a_class_that_names_no_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some loaders swallow every problem and return nothing."""

    class Silent(SpyDataset):
        def data_path(self, subject: int) -> list[str]:  # type: ignore[override]
            return []

    _install(monkeypatch, {"CastillosCVEP40": Silent})

    with pytest.raises(FetchError, match="CastillosCVEP40 names no file for subject 1"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",))


def test_a_dangerous_archive_never_gets_its_name(spy: type, server: Server, tmp_path: Path) -> None:
    """A member that would be written outside the folder: refused before any loader can unpack it."""
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil", "x")
    url = server.put("/s1.zip", packed.getvalue())

    with pytest.raises(FetchError, match=r"member '../../evil' would be written outside its folder"):
        moabb_files.Route(tmp_path, {}, False, lambda answer: None).fetch(url, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / ".eegprep" / "parts").iterdir()) == []


def test_an_archive_that_was_here_already_is_looked_at_before_it_is_unpacked(tmp_path: Path) -> None:
    """MOABB unpacks in 21 modules; in its process all of them go through one check."""
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("/etc/evil", "x")
    route = moabb_files.Route(tmp_path, {}, False, lambda answer: None)

    with (
        route.installed(),
        zipfile.ZipFile(tmp_path / "a.zip") as archive,
        pytest.raises(FetchError, match=r"a\.zip: member '/etc/evil' would be written outside"),
    ):
        archive.extractall(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert zipfile.ZipFile.extractall.__module__ == "zipfile"  # and afterwards everything is as before


def test_tar_archives_are_unpacked_with_the_data_filter(tmp_path: Path) -> None:
    """Python 3.11 does not use it by itself: a link out of the folder would be followed."""
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)

    with (
        moabb_files.Route(tmp_path, {}, False, lambda answer: None).installed(),
        tarfile.open(tmp_path / "a.tar") as tar,
        pytest.raises(tarfile.FilterError, match="link"),
    ):
        tar.extractall(tmp_path / "out")


def test_requests_that_bypass_pooch_verify_certificates_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some classes ask web services directly; `verify=False` does not reach the network."""
    seen: list[Any] = []
    monkeypatch.setattr(requests.Session, "request", lambda self, method, url, **kwargs: seen.append((url, kwargs)))

    with moabb_files.Route(tmp_path, {"https://api/": "https://mirror/"}, False, lambda answer: None).installed():
        requests.get("https://api/files", verify=False, timeout=1)

    assert seen == [("https://mirror/files", {"params": None, "timeout": 1})]


def test_nemar_cannot_be_demanded_where_it_has_nothing(spy: type, tmp_path: Path) -> None:
    """Three classes are not mirrored."""
    with pytest.raises(FetchError, match="Spy is not mirrored by NEMAR"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",), provider="nemar")


def test_companions_of_a_file_and_files_of_a_folder_belong_to_a_subject(tmp_path: Path) -> None:
    """A .set without its .fdt, a .vhdr without its .eeg, is half a recording."""
    for name in ("a.set", "a.fdt", "b.vhdr", "b.eeg", "b.vmrk", "folder/c.mat", "folder/.hidden", "other.fdt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    result = moabb_files._expand({"x": [tmp_path / "a.set", str(tmp_path / "b.vhdr")], "y": tmp_path / "folder", "z": None})

    assert sorted(path.name for path in result) == ["a.fdt", "a.set", "b.eeg", "b.vhdr", "b.vmrk", "c.mat"]


# -- offline --------------------------------------------------------------------------------------------------------------


def test_offline_finds_what_is_there_and_opens_no_socket(spy: type, tmp_path: Path) -> None:
    """MOABB's own default goes to the network even when the files are on disk."""
    folder = tmp_path / "MNE-spy-data"
    folder.mkdir()
    (folder / "s1.mat").write_bytes(CONTENT[1])

    result = fetch.ensure(OPEN, tmp_path, subjects=("1",), offline=True)

    assert [file.name for file in result["1"]] == ["MNE-spy-data/s1.mat"]


def test_offline_names_what_is_missing(spy: type, server: Server, tmp_path: Path) -> None:
    """And the server hears nothing of it."""
    with pytest.raises(FetchError, match="subject 1: not all of its files are in the data folder, and this is offline"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",), offline=True)

    assert server.resources["/s1.mat"].requests == []


def test_online_looks_at_the_disk_first(spy: type, server: Server, tmp_path: Path) -> None:
    """Files that somebody copied here are used, not downloaded again."""
    folder = tmp_path / "MNE-spy-data"
    folder.mkdir()
    (folder / "s1.mat").write_bytes(CONTENT[1])

    fetch.ensure(OPEN, tmp_path, subjects=("1",))

    assert server.resources["/s1.mat"].requests == []


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: socket.socket(socket.AF_INET),
        lambda: socket.socket(socket.AF_INET6),
        lambda: socket.create_connection(("127.0.0.1", 9)),
        lambda: socket.getaddrinfo("example.org", 80),
        lambda: socket.gethostbyname("example.org"),
        lambda: requests.get("https://example.org", timeout=1),
    ],
)
def test_the_guard_refuses_every_way_out(attempt: Any) -> None:
    """Enforced by the interpreter's audit events, whatever library is used."""
    with no_network() as guard, pytest.raises(FetchError, match="offline: something asked for the network"):
        attempt()

    assert guard.refused


def test_the_guard_leaves_other_threads_and_local_sockets_alone() -> None:
    """A Dask worker talks to its scheduler in another thread; multiprocessing uses sockets without a network."""
    opened: list[bool] = []

    def elsewhere() -> None:
        socket.socket(socket.AF_INET).close()
        opened.append(True)

    with no_network():
        for end in socket.socketpair():
            end.close()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    assert opened == [True]
    socket.socket(socket.AF_INET).close()  # and afterwards everything is as before


def test_the_guard_can_cover_the_whole_process() -> None:
    """In the process that MOABB has to itself, its threads must not get out either."""
    refused: list[type] = []

    def elsewhere() -> None:
        try:
            socket.socket(socket.AF_INET).close()
        except FetchError as error:
            refused.append(type(error))

    with no_network(everywhere=True):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    assert refused == [FetchError]


# -- licences -------------------------------------------------------------------------------------------------------------


def test_a_download_under_an_open_licence_asks_nothing(spy: type, tmp_path: Path) -> None:
    """CC-BY needs attribution, which the store keeps."""
    assert fetch.plan([OPEN], tmp_path)[0].needs_accept is False


def test_any_other_licence_must_be_named_before_a_byte_is_downloaded(spy: type, server: Server, tmp_path: Path) -> None:
    """MOABB downloads silently whatever the licence is."""
    with pytest.raises(LicenceError, match=r"GPL-3.0-only \(derivatives under the same licence\) of Shin2017A") as raised:
        fetch.ensure(GPL, tmp_path, subjects=("1",))

    assert raised.value.fix == "read them, then add --accept GPL-3.0-only"
    assert server.resources["/s1.mat"].requests == []


@pytest.mark.parametrize("spelling", ["GPL-3.0", "gpl-3.0-only", "GPL 3", "all"])
def test_an_accepted_licence_opens_the_gate_in_any_spelling(spy: type, tmp_path: Path, spelling: str) -> None:
    """People write licences in many ways."""
    assert fetch.ensure(GPL, tmp_path, subjects=("1",), accept=(spelling,))


def test_files_that_are_here_need_no_acceptance(spy: type, tmp_path: Path) -> None:
    """Whoever put them there has settled that; the licence still goes into the store."""
    folder = tmp_path / "MNE-spy-data"
    folder.mkdir()
    (folder / "s1.mat").write_bytes(CONTENT[1])

    assert fetch.ensure(GPL, tmp_path, subjects=("1",))


def test_the_gate_lists_every_licence_with_its_data_sets(tmp_path: Path) -> None:
    """One error for a manifest of twenty sets, not twenty."""
    rows = fetch.plan([parse_source("moabb:BNCI2015_004"), parse_source("moabb:EPFLP300"), GPL], tmp_path)

    with pytest.raises(LicenceError, match=r"3 licence\(s\).*CC-BY-NC-ND-4.0.*BNCI2015_004.*unknown.*EPFLP300"):
        fetch.require_licences(rows)
    with pytest.raises(LicenceError, match=r"1 licence\(s\) .*unknown"):
        fetch.require_licences(rows, ["GPL-3.0", "CC BY-NC-ND 4.0"])
    fetch.require_licences(rows, ["all"])


# -- plan -----------------------------------------------------------------------------------------------------------------


def test_the_plan_tells_sizes_licences_and_what_is_here(spy: type, tmp_path: Path) -> None:
    """Before anything is downloaded; a third of the subjects is a third of the bytes."""
    before = fetch.plan([OPEN], tmp_path, subjects=("1", "2", "3"))[0]
    fetch.ensure(OPEN, tmp_path, subjects=("1",))
    after = fetch.plan([OPEN], tmp_path, subjects=("1", "2", "3"))[0]
    done = fetch.plan([OPEN], tmp_path, subjects=("1",))[0]

    declared = catalogue.entry("CastillosCVEP40").bytes
    assert declared is not None
    assert before.bytes == round(declared * 3 / 12)
    assert (before.subjects, before.subjects_on_disk, before.provider) == (3, 0, "nemar")
    assert (after.subjects_on_disk, done.provider) == (1, "local")
    assert before.row()["licence"] == "CC-BY-4.0"


def test_the_plan_opens_no_socket(tmp_path: Path) -> None:
    """Also for a set whose size nobody declares."""
    with no_network(everywhere=True) as guard:
        row = fetch.plan([parse_source("moabb:Kaneshiro2015")], tmp_path)[0]

    assert guard.refused == []
    assert row.row()["size"] == "not declared"


# -- records --------------------------------------------------------------------------------------------------------------


def test_a_file_that_changed_is_an_error_not_an_update(spy: type, tmp_path: Path) -> None:
    """Same name, same length, another content: only the hash sees it."""
    result = fetch.ensure(OPEN, tmp_path, subjects=("1",))
    path = tmp_path / result["1"][0].name
    path.write_bytes(CONTENT[1][:-1] + b"!")

    with pytest.raises(FetchError, match=r"s1\.mat has changed: SHA-256 [0-9a-f]{16}\.\.\., on record"):
        fetch.check(result["1"], tmp_path)
    with pytest.raises(FetchError, match=r"s1\.mat has changed: SHA-256 [0-9a-f]{16}\.\.\., on record"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",))


def test_a_file_that_was_deleted_is_fetched_again_and_must_be_the_same(spy: type, server: Server, tmp_path: Path) -> None:
    """The record pins what was there, for all time."""
    result = fetch.ensure(OPEN, tmp_path, subjects=("1",))
    path = tmp_path / result["1"][0].name
    path.unlink()
    assert fetch.ensure(OPEN, tmp_path, subjects=("1",)) == result

    path.unlink()
    server.put("/s1.mat", CONTENT[2], etag='"v2"')
    with pytest.raises(FetchError, match=r"s1\.mat has changed"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",))


def test_check_sees_missing_and_truncated_files(tmp_path: Path) -> None:
    """The quick look catches length, the full one content."""
    (tmp_path / "a").write_bytes(b"1234")
    good = fetch_data_folder.hash_files([tmp_path / "a"], tmp_path)
    fetch.check(good, tmp_path)

    with pytest.raises(FetchError, match="b is missing in"):
        fetch.check([SourceFile("b", 4, "")], tmp_path)
    with pytest.raises(FetchError, match="a has 4 bytes, on record are 5"):
        fetch.check([SourceFile("a", 5, "")], tmp_path)
    fetch.check([SourceFile("a", 4, "wrong")], tmp_path, quick=True)
    with pytest.raises(FetchError, match="a has changed"):
        fetch.check([SourceFile("a", 4, "wrong")], tmp_path)


def test_a_damaged_record_is_an_error_not_forgotten(spy: type, tmp_path: Path) -> None:
    """To begin anew without a word would forget every hash."""
    fetch.ensure(OPEN, tmp_path, subjects=("1",))
    record = tmp_path / ".eegprep" / "CastillosCVEP40.json"
    record.write_text(record.read_text()[:100])

    with pytest.raises(FetchError, match=r"CastillosCVEP40\.json: the record of fetched files cannot be read"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",))


def test_files_unlike_their_published_checksum_are_pointed_out(spy: type, tmp_path: Path) -> None:
    """A file somebody put there may be meant; it is used, and said to differ."""
    folder = tmp_path / "files" / "eegmmidb" / "1.0.0" / "S001"
    folder.mkdir(parents=True)
    (folder / "S001R03.edf").write_bytes(b"mine")
    messages: list[str] = []

    class Local(SpyDataset):
        def data_path(self, subject: int) -> str:
            return str(folder / "S001R03.edf")

    with pytest.MonkeyPatch.context() as patch:
        _install(patch, {"CastillosCVEP40": Local})
        fetch.ensure(OPEN, tmp_path, subjects=("1",), progress=lambda done, total, message: messages.append(message))

    assert any("1 of its files differ from the published checksums" in message for message in messages)


def test_published_checksums_are_those_of_the_genuine_files() -> None:
    """The sample recordings in the package are what PhysioNet published."""
    from eegprep.catalogue.manifests import shipped_folder
    from eegprep.provenance import sha256_file

    files = sorted((shipped_folder() / "sample").rglob("S*R*.edf"))

    assert files
    assert all(moabb_files.published_sha256(f"https://physionet.org{path}") == sha256_file(path) for path in files)
    assert moabb_files.published_sha256("https://physionet.org/other/S001/S001R03.edf") is None


def test_a_download_unlike_its_published_checksum_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PhysionetMI through a mirror that serves something else."""
    server.put("/files/eegmmidb/1.0.0/S001/S001R03.edf", b"something else")

    class Physionet(SpyDataset):
        def data_path(self, subject: int) -> str:
            name = "files/eegmmidb/1.0.0/S001/S001R03.edf"
            return str(pooch.retrieve(f"https://physionet.org/{name}", None, fname="S001R03.edf", path=tmp_path))

    _install(monkeypatch, {"CastillosCVEP40": Physionet})
    monkeypatch.setenv("EEGPREP_MIRRORS", f"https://physionet.org/={server.url}/")

    with pytest.raises(FetchError, match=r"its SHA-256 is [0-9a-f]{16}\.\.\., published is"):
        fetch.ensure(OPEN, tmp_path, subjects=("1",))


def test_a_lock_file_pins_hashes(spy: type, tmp_path: Path) -> None:
    """`build LOCKFILE` must repeat with the same bytes or stop."""
    pinned = OPEN.model_copy(update={"sha256": {"MNE-spy-data/s1.mat": "0" * 64}})

    with pytest.raises(FetchError, match=r"s1\.mat: SHA-256 [0-9a-f]{16}\.\.\., the manifest has 0000000000000000"):
        fetch.ensure(pinned, tmp_path, subjects=("1",))


def test_a_record_tells_where_files_came_from(spy: type, server: Server, tmp_path: Path) -> None:
    """URL, hash and whether it was encrypted, for whoever asks later."""
    fetch.ensure(OPEN, tmp_path, subjects=("1",))
    record = json.loads((tmp_path / ".eegprep" / "CastillosCVEP40.json").read_text())

    (subject,) = record["subjects"].values()
    assert subject["downloads"][0]["url"] == f"{server.url}/s1.mat"
    assert (subject["provider"], subject["downloads"][0]["tls"]) == ("upstream", False)


# -- hashes of local files ------------------------------------------------------------------------------------------------


def test_hashes_of_unchanged_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 recordings must not be read again to find out that nothing changed."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **kwargs: str(tmp_path / "cache"))
    (tmp_path / "a").write_bytes(b"1234")
    os.utime(tmp_path / "a", (1e9, 1e9))
    first = fetch_data_folder.hash_files([tmp_path / "a"], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(fetch_data_folder, "sha256_file", lambda path: pytest.fail("it was hashed again"))
        assert fetch_data_folder.hash_files([tmp_path / "a"], tmp_path) == first

    (tmp_path / "a").write_bytes(b"4321")  # a young file: its time may not show the next change
    fresh = fetch_data_folder.hash_files([tmp_path / "a"], tmp_path)
    (tmp_path / "a").write_bytes(b"5678")

    assert len({first[0].sha256, fresh[0].sha256, fetch_data_folder.hash_files([tmp_path / "a"], tmp_path)[0].sha256}) == 3


def test_names_are_relative_to_the_root_and_sorted(tmp_path: Path) -> None:
    """So that two machines agree; a file elsewhere keeps its bare name."""
    (tmp_path / "root" / "b").mkdir(parents=True)
    for name in ("root/b/2", "root/a", "other"):
        (tmp_path / name).write_bytes(b"x")

    result = fetch_data_folder.hash_files([tmp_path / "root/b/2", tmp_path / "root/a", tmp_path / "other"], tmp_path / "root")

    assert [file.name for file in result] == ["a", "b/2", "other"]


# -- one process at a time ------------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from eegprep.download.data_folder import data_folder_lock
with data_folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def _holder(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_two_processes_cannot_fetch_into_one_folder(tmp_path: Path) -> None:
    """MOABB races on shared archives; here the second waits, is told for whom, and can be told to give up."""
    child = _holder(tmp_path)
    messages: list[str] = []
    try:
        with (
            pytest.raises(FetchError, match=rf"is in use by process {child.pid} on .*, waited 0.05 s"),
            fetch_data_folder.data_folder_lock(tmp_path, timeout=0.05, progress=lambda done, total, text: messages.append(text)),
        ):
            pytest.fail("it was taken twice")
    finally:
        child.kill()
        child.communicate()
    assert messages == [f"waiting for process {child.pid} on {socket.gethostname()}, which holds {tmp_path}"]


def test_a_killed_process_lets_go(tmp_path: Path) -> None:
    """SIGKILL leaves no lock that somebody has to remove."""
    child = _holder(tmp_path)
    child.kill()
    child.communicate()

    with fetch_data_folder.data_folder_lock(tmp_path, timeout=5):
        pass


def test_the_same_process_may_take_it_again(tmp_path: Path) -> None:
    """`build` holds it around several `ensure`."""
    with fetch_data_folder.data_folder_lock(tmp_path), fetch_data_folder.data_folder_lock(tmp_path, timeout=0):
        pass
    assert not (tmp_path / ".eegprep" / "lock.owner.json").exists()


def test_moabb_s_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    """After SIGKILL the folder's lock is free: a child that went on downloading would race with the next owner."""
    code = "import sys, time; from eegprep.download.moabb_child import end_with_parent; end_with_parent(0); print('up', flush=True); time.sleep(600)"
    starter = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdin=subprocess.PIPE); print(c.pid, flush=True); c.wait()"
    parent = subprocess.Popen([sys.executable, "-c", starter, code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    output = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    (child,) = (int(word) for word in output - {"up"})

    parent.kill()
    parent.communicate()  # returns when the child, which shares this pipe, has ended as well

    with pytest.raises(ProcessLookupError, match="No such process"):
        for _ in range(100):  # its pipe closes a moment before the process is gone
            _still_runs(child)
            time.sleep(0.05)


def _still_runs(pid: int) -> None:
    """Raise ProcessLookupError for a process that has ended, also if nobody has collected it."""
    os.kill(pid, 0)
    status = Path(f"/proc/{pid}/stat")
    if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
        raise ProcessLookupError("No such process")


# -- wrong calls ----------------------------------------------------------------------------------------------------------


def test_local_sources_have_nothing_to_fetch(tmp_path: Path) -> None:
    """A programming error, said as one."""
    with pytest.raises(UsageError, match=r"files:.*is local: there is nothing to fetch"):
        fetch.ensure(Source(kind="files", target="/a/*.edf", dataset="a"), tmp_path)


def test_an_unknown_provider_is_named(tmp_path: Path) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match="there is no provider 'torrent'"):
        fetch.ensure(OPEN, tmp_path, provider="torrent")


def test_a_child_that_dies_is_an_error_with_its_log(tmp_path: Path) -> None:
    """Out of memory, or a MOABB that cannot be imported: not an empty answer."""
    request = {"subjects": ["1"], "data_dir": str(tmp_path)}  # lacks everything else

    with pytest.raises(FetchError, match="ended with status 1 after 0 of 1 subjects"):
        list(fetch._ask_child(request, tmp_path))

    assert "KeyError" in (tmp_path / ".eegprep" / "log.txt").read_text()


# -- MOABB itself ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cho(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """MOABB's real Cho2017, with its host replaced by this machine."""
    import scipy.io

    scipy.io.savemat(tmp_path / "x.mat", {"eeg": 1})
    server.put("/s01.mat", (tmp_path / "x.mat").read_bytes())
    (tmp_path / "x.mat").unlink()
    host = "https://s3.ap-northeast-1.wasabisys.com/gigadb-datasets/live/pub/10.5524/100001_101000/100295/mat_data/"
    monkeypatch.setenv("EEGPREP_MIRRORS", f"{host}={server.url}/")
    return parse_source("moabb:Cho2017")


@pytest.mark.slow
def test_a_real_class_downloads_through_our_downloader_in_its_own_process(cho: Source, server: Server, tmp_path: Path) -> None:
    """The connection drops twice, MOABB does not notice, and the file lies where its loader will look."""
    server.resources["/s01.mat"].drops = [50, 20]

    result = fetch.ensure(cho, tmp_path, subjects=("1",), provider="upstream")

    (file,) = result["1"]
    assert file.name.endswith("100001_101000/100295/mat_data/s01.mat")
    assert file.name.startswith("MNE-gigadb-data/")
    assert (tmp_path / file.name).read_bytes() == server.resources["/s01.mat"].content
    assert "bytes=50-" in server.resources["/s01.mat"].requests
    assert fetch.ensure(cho, tmp_path, subjects=("1",), offline=True) == result
    assert not (tmp_path / ".eegprep" / "parts" / "s01.mat").exists()


@pytest.mark.slow
def test_nemar_fills_the_upstream_layout_and_its_failure_falls_back(
    cho: Source, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where NEMAR delivers, the original host is not asked; where it does not, it is, unless NEMAR was demanded."""
    import moabb.datasets.download as moabb_download
    from nemar.errors import NemarError

    content = server.resources["/s01.mat"].content
    works = [True]

    def nemar_download(dataset: str, target_dir: Path, include: Any = None, **_: Any) -> None:
        if not works[0]:
            raise NemarError("the mirror is down")
        folder = Path(target_dir) / "sourcedata"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "s01.mat").write_bytes(content)
        (folder / "sourcedata_provenance.json").write_text(json.dumps({"files": [{"file": "s01.mat", "subject": 1}]}))

    monkeypatch.setattr(moabb_download.nemar, "download", nemar_download)

    def ask(folder: Path, provider: str) -> dict[str, Any]:
        answers: list[dict[str, Any]] = []
        request = {
            "dataset": "Cho2017", "options": {}, "subjects": ["1"], "data_dir": str(folder), "offline": False,
            "accept_terms": True, "plain_http": False, "provider": provider, "mirrors": fetch.mirrors(),
        }  # fmt: skip
        with monkeypatch.context() as patch:
            for name, value in fetch_moabb_child.environment(folder).items():
                patch.setenv(name, value)
            folder.mkdir()
            moabb_files.find_files(request, answers.append)
        return answers[-1]

    mirrored = ask(tmp_path / "a", "auto")
    assert mirrored["provider"] == "nemar"
    assert any(name.endswith("mat_data/s01.mat") for name in mirrored["files"])
    assert server.resources["/s01.mat"].requests == []

    works[0] = False
    assert ask(tmp_path / "b", "auto")["provider"] == "upstream"
    assert server.resources["/s01.mat"].requests != []
    assert "the mirror is down" in ask(tmp_path / "c", "nemar")["problem"]
