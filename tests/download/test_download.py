"""One URL becomes one file, whatever the server does."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from unreliable_server import Server, serving

from eegprep.download.content import archive_problem, content_problem
from eegprep.download.transfer import ATTEMPTS, _https, download
from eegprep.errors import FetchError
from eegprep.provenance import sha256_file

BODY = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


def test_a_good_file_arrives_whole_and_leaves_nothing_else(server: Server, tmp_path: Path) -> None:
    """The plain case, and no litter in the data folder."""
    got = download(server.put("/a.bin", BODY), tmp_path / "a.bin")

    assert (got.path.read_bytes(), got.bytes, got.sha256, got.tls) == (BODY, len(BODY), SHA, False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_dropped_connection_is_continued_where_it_stopped(server: Server, tmp_path: Path, waits: list[float]) -> None:
    """A 60 GB archive must not start anew for each hiccup: the second request asks for the rest only."""
    url = server.put("/a.bin", BODY, drops=[100_000, 50_000])

    download(url, tmp_path / "a.bin", sha256=SHA, sleep=waits.append)

    assert server.resources["/a.bin"].requests == ["", "bytes=100000-", "bytes=150000-"]
    assert waits == [1.0, 1.0]  # each attempt brought something


def test_waits_double_while_nothing_arrives_and_then_it_gives_up(server: Server, tmp_path: Path, waits: list[float]) -> None:
    """Back-off is polite to the host; an error after six tries names how many bytes were there and keeps them."""
    url = server.put("/a.bin", BODY, always_drop=0, drops=[1000])

    with pytest.raises(FetchError, match=rf"ended after 1000 of 300000 bytes.*\({ATTEMPTS} attempts\)"):
        download(url, tmp_path / "a.bin", sleep=waits.append)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert (tmp_path / ".a.bin.partial").stat().st_size == 1000
    assert not (tmp_path / "a.bin").exists()


def test_a_killed_download_is_taken_up_by_the_next_call(server: Server, tmp_path: Path) -> None:
    """The bytes of an earlier process are kept, whichever process goes on."""
    url = server.put("/a.bin", BODY, always_drop=0, drops=[120_000])
    with pytest.raises(FetchError, match="120000 of 300000"):
        download(url, tmp_path / "a.bin", sleep=lambda _: None)
    server.resources["/a.bin"].always_drop = None

    got = download(url, tmp_path / "a.bin")

    assert got.sha256 == SHA
    assert "bytes=120000-" in server.resources["/a.bin"].requests
    assert "" not in server.resources["/a.bin"].requests[1:]


def test_two_versions_of_a_file_are_never_mixed(server: Server, tmp_path: Path) -> None:
    """The file was replaced between two attempts: half of each would pass a length check."""
    url = server.put("/a.bin", BODY, always_drop=0, drops=[120_000])
    with pytest.raises(FetchError, match="120000 of 300000"):
        download(url, tmp_path / "a.bin", sleep=lambda _: None)
    newer = BODY[::-1]
    server.put("/a.bin", newer, etag='"v2"')

    assert download(url, tmp_path / "a.bin").path.read_bytes() == newer


def test_without_a_version_the_rest_is_not_appended_unless_a_checksum_will_tell(server: Server, tmp_path: Path) -> None:
    """No ETag, no date: only a known SHA-256 makes it safe to go on."""
    url = server.put("/a.bin", BODY, etag="", drops=[100_000])
    download(url, tmp_path / "a.bin", sleep=lambda _: None)
    assert server.resources["/a.bin"].requests[:2] == ["", ""]

    url = server.put("/b.bin", BODY, etag="", drops=[100_000])
    download(url, tmp_path / "b.bin", sha256=SHA, sleep=lambda _: None)
    assert server.resources["/b.bin"].requests == ["", "bytes=100000-"]


def test_a_web_page_with_status_200_never_becomes_data(server: Server, tmp_path: Path) -> None:
    """Repositories answer so for a file that is gone; MOABB stores the page under the file's name."""
    page = "<html><head><title>File not found</title></head></html>"
    url = server.put("/a.mat", b"", page=page)

    with pytest.raises(FetchError, match="a web page came instead of the file \\(titled 'File not found'\\)"):
        download(url, tmp_path / "a.mat", sleep=lambda _: None)

    assert list(tmp_path.iterdir()) == []


def test_a_web_page_that_calls_itself_data_is_seen_in_its_bytes(server: Server, tmp_path: Path) -> None:
    """Some hosts send application/octet-stream for their login page."""
    url = server.put("/a", b"\n <!DOCTYPE html><html>log in</html>")

    with pytest.raises(FetchError, match="a web page came instead"):
        download(url, tmp_path / "a", sleep=lambda _: None)


def test_a_page_that_goes_away_costs_only_a_wait(server: Server, tmp_path: Path, waits: list[float]) -> None:
    """A host under maintenance is asked again."""
    url = server.put("/a.bin", BODY, page="<html>back soon</html>")

    def repaired(seconds: float) -> None:
        waits.append(seconds)
        server.resources["/a.bin"].page = ""

    assert download(url, tmp_path / "a.bin", sleep=repaired).sha256 == SHA
    assert waits == [1.0]


def test_a_server_that_always_truncates_never_succeeds_silently(server: Server, tmp_path: Path) -> None:
    """Without ranges each attempt starts anew and ends short."""
    url = server.put("/a.bin", BODY, ranges=False, always_drop=299_999)

    with pytest.raises(FetchError, match="ended after 299999 of 300000 bytes"):
        download(url, tmp_path / "a.bin", sleep=lambda _: None)


def test_a_content_length_that_is_too_small_is_found_out_and_the_rest_fetched(server: Server, tmp_path: Path) -> None:
    """HTTP ends a body where the length says: only the question for what comes after it shows that there is more."""
    url = server.put("/a.bin", BODY, announce=200_000)

    assert download(url, tmp_path / "a.bin", sleep=lambda _: None).sha256 == SHA


def test_a_content_length_that_is_too_large_is_an_error(server: Server, tmp_path: Path) -> None:
    """The file cannot be told from a truncated one, so it is not accepted."""
    url = server.put("/a.bin", BODY, announce=400_000, ranges=False)

    with pytest.raises(FetchError, match="ended after 300000 of 400000 bytes"):
        download(url, tmp_path / "a.bin", sleep=lambda _: None)


def test_a_server_that_changes_its_mind_about_the_length_is_not_believed(server: Server, tmp_path: Path) -> None:
    """200 said 300,000 bytes and sent them; asked for what comes after, it says that there are 250,000, or 400,000."""
    for claim, output in ((250_000, "300000 bytes came, the server now says 250000"), (400_000, "longer than the 300000 bytes")):
        with pytest.raises(FetchError, match=output):
            download(server.put("/a.bin", BODY, claim=claim), tmp_path / "a.bin", sleep=lambda _: None)


def test_a_partial_answer_from_another_place_is_not_appended(server: Server, tmp_path: Path) -> None:
    """Some proxies round ranges; the file would have a hole."""
    url = server.put("/a.bin", BODY, drops=[100_000], shift=512)

    got = download(url, tmp_path / "a.bin", sha256=SHA, sleep=lambda _: None)

    assert got.path.read_bytes() == BODY
    assert server.resources["/a.bin"].requests == ["", "bytes=100000-", ""]


def test_bytes_beyond_the_end_of_the_file_are_thrown_away(server: Server, tmp_path: Path) -> None:
    """The file on the server became shorter, its name and version did not: 416 tells the new length."""
    url = server.put("/a.bin", BODY, always_drop=0, drops=[120_000])
    with pytest.raises(FetchError, match="120000 of 300000"):
        download(url, tmp_path / "a.bin", sleep=lambda _: None)
    server.put("/a.bin", BODY[:100_000])

    assert download(url, tmp_path / "a.bin", sleep=lambda _: None).bytes == 100_000


def test_a_file_that_was_complete_when_the_process_was_killed_is_only_confirmed(server: Server, tmp_path: Path) -> None:
    """Killed between the last byte and the rename: the server is asked for nothing again."""
    url = server.put("/a.bin", BODY)
    download(url, tmp_path / "a.bin")
    (tmp_path / "a.bin").rename(tmp_path / ".a.bin.partial")
    note = {"url": url, "validator": '"v1"', "total": len(BODY)}
    (tmp_path / ".a.bin.partial.json").write_text(json.dumps(note))
    server.resources["/a.bin"].requests.clear()

    assert download(url, tmp_path / "a.bin").sha256 == SHA
    assert "" not in server.resources["/a.bin"].requests


def test_a_known_size_is_checked_when_the_server_names_none(server: Server, tmp_path: Path) -> None:
    """A packed answer has another length than the file; the size that is known decides."""
    url = server.put("/a.txt", BODY, compress=True, ranges=False)

    assert download(url, tmp_path / "a.txt", size=len(BODY), sleep=lambda _: None).sha256 == SHA
    with pytest.raises(FetchError, match="ended after 300000 of 300001 bytes"):
        download(url, tmp_path / "b.txt", size=len(BODY) + 1, sleep=lambda _: None)
    with pytest.raises(FetchError, match=r"300000 bytes came where .* 299999"):
        download(url, tmp_path / "c.txt", size=len(BODY) - 1, sleep=lambda _: None)


def test_a_known_size_convicts_a_lying_length_even_without_ranges(server: Server, tmp_path: Path) -> None:
    """The mirror's table of sizes knows better than the header."""
    url = server.put("/a.bin", BODY, announce=200_000, ranges=False)

    with pytest.raises(FetchError, match="announces 200000 bytes, the file has 300000"):
        download(url, tmp_path / "a.bin", size=300_000, sleep=lambda _: None)


def test_a_wrong_checksum_is_an_error_with_both_hashes(server: Server, tmp_path: Path) -> None:
    """Published hashes are the only defence against a changed file."""
    url = server.put("/a.bin", BODY[:-1] + b"x")

    with pytest.raises(FetchError, match=f"SHA-256 is [0-9a-f]{{16}}..., published is {SHA[:16]}"):
        download(url, tmp_path / "a.bin", sha256=SHA, sleep=lambda _: None)

    assert not (tmp_path / "a.bin").exists()


def test_an_empty_answer_is_no_file(server: Server, tmp_path: Path) -> None:
    """Status 200 with nothing in it."""
    with pytest.raises(FetchError, match="an empty file came"):
        download(server.put("/a.bin", b""), tmp_path / "a.bin", sleep=lambda _: None)


def test_a_busy_server_is_given_the_time_it_asks_for(server: Server, tmp_path: Path, waits: list[float]) -> None:
    """429 and 503 with Retry-After: hosts ban clients that do not listen."""
    url = server.put("/a.bin", BODY, statuses=[(429, {"Retry-After": "7"}), (503, {})])

    download(url, tmp_path / "a.bin", sleep=waits.append)

    assert waits == [7.0, 2.0]


def test_a_missing_file_is_reported_at_once(server: Server, tmp_path: Path, waits: list[float]) -> None:
    """404 will not go away by asking again."""
    with pytest.raises(FetchError, match=r"/gone\.bin: the server answered 404"):
        download(server.url + "/gone.bin", tmp_path / "a.bin", sleep=waits.append)

    assert waits == []


def test_a_redirect_out_of_tls_is_refused_unless_allowed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host may send a browser to plain http; data that nobody checks must not come that way."""
    monkeypatch.setattr(
        "eegprep.download.transfer.LOOPBACK", ("127.0.0.1",)
    )  # so that `localhost` stands for somebody else's machine
    url = server.put("/a.bin", BODY, redirect=f"http://localhost:{server.port}/b.bin")
    server.put("/b.bin", BODY)

    with pytest.raises(FetchError, match=r"/b\.bin, which is not encrypted"):
        download(url, tmp_path / "a.bin", sleep=lambda _: None)
    assert download(url, tmp_path / "a.bin", plain_http=True).sha256 == SHA


def test_an_http_address_is_tried_over_tls_and_not_downgraded(tmp_path: Path) -> None:
    """MOABB lists hosts with http://; port 1 of a name that is not this machine's loopback refuses both."""
    with pytest.raises(FetchError, match="offers no encrypted connection"):
        download("http://0.0.0.0/a.bin", tmp_path / "a.bin", sleep=lambda _: None)


def test_plain_http_is_used_where_it_was_allowed_and_the_record_says_so(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17 of the 108 classes name hosts without TLS; whoever accepts that gets the file, marked as such."""
    monkeypatch.setattr("eegprep.download.transfer._https", lambda url: f"https://127.0.0.1:1{url.removeprefix(server.url)}")
    url = server.put("/a.bin", BODY)

    got = download(url, tmp_path / "a.bin", plain_http=True)

    assert (got.sha256, got.tls) == (SHA, False)


def test_only_addresses_of_other_machines_are_moved_to_tls() -> None:
    """A port of its own has no TLS twin that could be guessed."""
    assert _https("http://doc.ml.tu-berlin.de/bbci/a.mat?x=1") == "https://doc.ml.tu-berlin.de/bbci/a.mat?x=1"
    assert _https("http://host:8080/a") == "http://host:8080/a"
    assert _https("http://localhost/a") == "http://localhost/a"
    assert _https("https://host/a") == "https://host/a"


def test_a_certificate_that_is_not_trusted_stops_the_download(tmp_path: Path, self_signed: int) -> None:
    """MOABB switches verification off; a self-signed certificate must be an error here."""
    with pytest.raises(FetchError, match="TLS certificate is not valid"):
        download(f"https://127.0.0.1:{self_signed}/a.bin", tmp_path / "a.bin", sleep=lambda _: None)


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[int]:
    """A TLS server with a certificate that nobody but itself signed; its port."""
    import datetime
    import ipaddress
    import ssl
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    pem = tmp_path / "server.pem"
    pem.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(encoding))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    httpd = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield httpd.server_address[1]
    httpd.shutdown()
    httpd.server_close()


def test_progress_tells_bytes_and_total(server: Server, tmp_path: Path) -> None:
    """What a bar needs."""
    seen: list[tuple[int, int, str]] = []

    download(server.put("/a.bin", BODY), tmp_path / "a.bin", progress=lambda *told: seen.append(told))

    assert seen[-1] == (300_000, 300_000, "a.bin")


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_no_byte_that_had_arrived(tmp_path: Path) -> None:
    """Killed five times in mid-body, the file is still right, and no part of it was asked for twice but the last chunk."""
    with serving() as server:
        body = BODY * 40  # 12 MB
        url = server.put("/big.bin", body)
        code = (
            "import time; from pathlib import Path; from eegprep.download import transfer as d; d.CHUNK = 65536\n"
            "slow = lambda here, total, name: time.sleep(0.004)\n"
            f"d.download({url!r}, Path({str(tmp_path / 'big.bin')!r}), progress=slow)"
        )
        kills, sizes = 0, [0]
        for _ in range(20):
            child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
            partial = tmp_path / ".big.bin.partial"
            while child.poll() is None and kills < 5:
                if partial.exists() and partial.stat().st_size > sizes[-1] + 500_000:
                    child.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.002)
            if child.wait() == 0:
                break
            sizes.append(partial.stat().st_size)

        assert (tmp_path / "big.bin").read_bytes() == body
        assert kills == 5
        assert sizes == sorted(sizes)
        assert server.resources["/big.bin"].requests.count("") == 1  # only the first attempt began at the start


# -- what files tell about themselves ---------------------------------------------------------------------------------------


def test_a_truncated_edf_contradicts_its_own_header(tmp_path: Path) -> None:
    """MNE reads 26 s of a 54 s file without a word; the header says how long it has to be."""
    from eegprep.catalogue.manifests import shipped_folder

    genuine = sorted((shipped_folder() / "sample").rglob("*.edf"))[0].read_bytes()
    (tmp_path / "whole.edf").write_bytes(genuine)
    (tmp_path / "half.edf").write_bytes(genuine[: len(genuine) // 2])

    assert content_problem(tmp_path / "whole.edf", "whole.edf") is None
    problem = content_problem(tmp_path / "half.edf", "half.edf")
    assert problem == f"it has {len(genuine) // 2} bytes, its header describes {len(genuine)}"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.edf", b"not an edf at all", "it is not an EDF file"),
        ("a.edf", b"0" + b" " * 183 + b"999     " + b" " * 44 + b"1       " + b" " * 8 + b"2   ", "999 bytes for 2 channels"),
        ("a.mat", b"\x1f\x8b garbage", "not a MATLAB file"),
        ("a.zip", b"Rar!\x1a\x07", "not a zip archive"),
        ("a.zip", b"PK\x03\x04 and no end", "cut off"),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """Each format's beginning, and the parts that tell its length."""
    (tmp_path / name).write_bytes(content)

    assert said in (content_problem(tmp_path / name, name) or "")


def test_matlab_files_of_all_versions_pass(tmp_path: Path) -> None:
    """Versions 4, 5 and 7.3 (HDF5) are all in MOABB's catalogue."""
    import h5py
    import scipy.io

    scipy.io.savemat(tmp_path / "v4.mat", {"x": np.arange(3.0)}, format="4")
    scipy.io.savemat(tmp_path / "v5.mat", {"x": np.arange(3.0)})
    h5py.File(tmp_path / "v73.mat", "w").close()

    assert [content_problem(tmp_path / name, name) for name in ("v4.mat", "v5.mat", "v73.mat")] == [None] * 3


def _zip(path: Path, members: dict[str, bytes], link: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "/etc/passwd")
    return path


def test_honest_archives_pass(tmp_path: Path) -> None:
    """And files that are no archives are none of its business."""
    assert archive_problem(_zip(tmp_path / "a.zip", {"s1/a.mat": b"x", "s1/b.mat": b"y"})) is None
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("s1"), None)
    assert archive_problem(tmp_path / "a.tar.gz") is None
    (tmp_path / "a.mat").write_bytes(b"MATLAB")
    assert archive_problem(tmp_path / "a.mat") is None


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "C:/evil", "..\\evil"])
def test_members_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    """Zip slip."""
    assert archive_problem(_zip(tmp_path / "a.zip", {name: b"x"})) == f"member {name!r} would be written outside its folder"


def test_links_are_refused_in_zip_and_tar(tmp_path: Path) -> None:
    """A link may point anywhere, and the next member through it."""
    assert "link or a special file" in (archive_problem(_zip(tmp_path / "a.zip", {}, link="a")) or "")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    assert "link or a special file" in (archive_problem(tmp_path / "a.tar") or "")


def test_an_archive_that_does_not_fit_the_disk_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """Better before the download of the next than after the disk is full."""
    path = _zip(tmp_path / "a.zip", {"a": bytes(1_000_000)})

    assert archive_problem(path, free_bytes=999_999) == "it unpacks to 1000000 bytes, 999999 are free on the disk"


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more content than any recording compresses to."""
    monkeypatch.setattr("eegprep.download.content.BOMB_BYTES", 10**6)
    path = _zip(tmp_path / "a.zip", {"a": bytes(5_000_000)})

    assert archive_problem(path, free_bytes=10**12) == f"{path.stat().st_size} bytes would unpack to 5000000"


def test_sha256_agrees_with_the_standard_library(tmp_path: Path) -> None:
    """In pieces or at once."""
    (tmp_path / "a").write_bytes(BODY)

    assert sha256_file(tmp_path / "a") == SHA
