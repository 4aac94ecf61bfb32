"""Corpora in object stores: a real S3-compatible server, byte ranges, retries, and a local cache with a limit."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import obstore
import pytest
import torch

import eegprep
from dreamdiff.pretraining.stream import WindowStream
from eegprep.corpus import objects
from eegprep.errors import StoreError, UsageError

PATIENCE = 120.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("objects") / "c.zarr"
    rng = np.random.default_rng(0)
    people = [{"subject": name, "windows": rng.standard_normal((24, 8, 256), np.float32)} for name in "abc"]
    eegprep.from_arrays(path, people, sfreq=128.0, pad_to=16, shard=8)
    return path


@pytest.fixture(scope="module")
def plain(folder) -> np.ndarray:
    return eegprep.Corpus.open(folder).read(np.arange(72))


# --- a real S3-compatible server -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def s3(folder) -> Iterator[dict[str, Any]]:
    """moto's server in a process of its own, with the corpus in a bucket; yields the options to reach it."""
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    options = {
        "endpoint": f"http://127.0.0.1:{port}",
        "access_key_id": "test",
        "secret_access_key": "test",
        "region": "us-east-1",
    }
    try:
        wait_for(port, process)
        make_bucket(options)
        files = objects.ObjectFiles("s3://eeg/c.zarr", options)
        for path in folder.rglob("*"):
            if path.is_file():
                obstore.put(files._store(), str(path.relative_to(folder)), path.read_bytes())
        yield options
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the S3 server did not start")


def make_bucket(options: dict[str, Any]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=options["endpoint"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="eeg")


def test_a_corpus_on_s3_gives_the_same_bits(s3, plain):
    """The same reader with another source of bytes."""
    corpus = eegprep.Corpus.open("s3://eeg/c.zarr", options=s3)
    order = np.random.default_rng(0).permutation(72)

    assert np.array_equal(corpus.read(order), plain[order])
    assert corpus.select(subjects="b").labels.tolist() == [None] * 24
    assert corpus.survives_fork is False


def test_a_stream_from_s3_gives_every_window_once(s3, plain):
    """Threads that read ahead hide the latency."""
    stream = WindowStream(eegprep.Corpus.open("s3://eeg/c.zarr", options=s3), 16)
    result = list(stream)

    assert sorted(i for batch in result for i in batch["index"].tolist()) == list(range(72))
    assert all(np.array_equal(batch["eeg"].numpy(), plain[batch["index"].numpy()]) for batch in result)


def test_a_corpus_on_s3_without_consolidated_metadata_is_listed(s3, folder, plain, tmp_path):
    """While it is still being uploaded or built."""
    import shutil

    from eegprep.store.commit import reopen_root

    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    reopen_root(copy)
    files = objects.ObjectFiles("s3://eeg/growing.zarr", s3)
    for path in copy.rglob("*"):
        if path.is_file():
            obstore.put(files._store(), str(path.relative_to(copy)), path.read_bytes())

    assert np.array_equal(eegprep.Corpus.open("s3://eeg/growing.zarr", options=s3).read(np.arange(72)), plain)


def test_what_is_not_on_s3_is_an_error(s3):
    """A wrong bucket, a wrong path, a wrong option."""
    with pytest.raises(StoreError, match=r"s3://eeg/nothing.zarr/zarr.json: not there"):
        eegprep.Corpus.open("s3://eeg/nothing.zarr", options=s3)
    with pytest.raises(UsageError, match="no_such_option"):
        eegprep.Corpus.open("s3://eeg/c.zarr", options={**s3, "no_such_option": "x"})


def _read_in_child(corpus: eegprep.Corpus) -> None:
    try:
        corpus.read([0])
    except StoreError as error:
        os._exit(3 if "was forked from one that reads from an object store" in str(error) else 1)
    os._exit(0)


def test_a_forked_child_gets_an_error_and_no_deadlock(s3):
    """obstore's threads are gone in the child, and its calls would wait for them for ever."""
    corpus = eegprep.Corpus.open("s3://eeg/c.zarr", options=s3)
    process = multiprocessing.get_context("fork").Process(target=_read_in_child, args=(corpus,))
    process.start()
    process.join(PATIENCE)
    hung = process.is_alive()
    process.kill()

    assert not hung and process.exitcode == 3


@pytest.mark.slow
def test_workers_on_object_stores_are_spawned(s3):
    """The loader knows that a fork would not do."""
    stream = WindowStream(eegprep.Corpus.open("s3://eeg/c.zarr", options=s3), 16)
    whole = torch.cat([batch["index"] for batch in stream])
    stream.set_epoch(0)

    assert torch.cat([batch["index"] for batch in stream.loader(2, timeout=PATIENCE)]).equal(whole)


# --- a web server that counts, and misbehaves when told to ----------------------------------------------------------


class Web:
    """Files of a folder over HTTP with byte ranges."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent, self.requests, self.ranges = folder, 0, [], True
        self.failures: list[str] = []  # what to do wrong next: "503" or "drop"
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                web.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/c.zarr"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = self.folder / request.path.removeprefix("/c.zarr/")
        asked = request.headers.get("Range", "")
        self.requests.append((request.path, asked))
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "503" or not path.is_file():
            request.send_response(503 if failure else 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        content, size = path.read_bytes(), path.stat().st_size
        if asked and self.ranges:
            first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        else:
            request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if failure == "drop":
            request.wfile.write(content[: len(content) // 2])
            request.wfile.flush()
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        request.wfile.write(content)
        self.sent += len(content)


@pytest.fixture
def web(folder) -> Iterator[Web]:
    server = Web(folder)
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_only_the_bytes_of_the_windows_travel(web, folder, plain):
    """A window of a shard of 60 MB must not cost 60 MB."""
    corpus = eegprep.Corpus.open(web.url)
    corpus.read([0])  # the index
    web.sent, web.requests = 0, []

    assert np.array_equal(corpus.read([3]), plain[[3]])
    chunk = (folder / "arrays/a/windows/c/0/0/0").stat().st_size // 8
    assert len(web.requests) == 1 and web.requests[0][1].startswith("bytes=")
    assert web.sent < 1.2 * chunk


@pytest.mark.parametrize("failures", [["503"], ["503", "503"], ["drop"]])
def test_passing_failures_are_tried_again(web, plain, failures):
    """Throttling, restarts and cut connections are normal on the way to a data centre."""
    corpus = eegprep.Corpus.open(web.url)
    web.failures = list(failures)

    assert np.array_equal(corpus.read(np.arange(72)), plain)
    assert web.failures == []


def test_a_server_without_byte_ranges_is_an_error(web):
    """It would send whole shards for each window."""
    web.ranges = False

    with pytest.raises(StoreError, match=r"(?s)not support.*use a server that answers range requests"):
        eegprep.Corpus.open(web.url).read([0])


def test_a_server_that_always_fails_is_an_error(web, monkeypatch):
    """After the retries, with the address."""
    monkeypatch.setattr(objects, "PAUSE", 0.001)
    corpus = eegprep.Corpus.open(web.url)
    web.failures = ["drop"] * 100

    with pytest.raises(StoreError, match=r"windows/c/0/0/0: .*\n.*check the network"):
        corpus.read([0])
    assert len(web.failures) == 100 - objects.ATTEMPTS


def test_damage_on_the_way_is_an_error(web, tmp_path, folder):
    """A proxy that answers a range with other bytes."""
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    path = copy / "arrays/a/windows/c/0/0/0"
    content = bytearray(path.read_bytes())
    content[10] ^= 4
    path.write_bytes(content)
    web.folder = copy

    with pytest.raises(StoreError, match="window 0 of the shard is damaged"):
        eegprep.Corpus.open(web.url).read([0])


# --- the cache -----------------------------------------------------------------------------------------------------


def disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_what_was_read_once_is_not_fetched_again(web, plain, tmp_path):
    """Also not by the next process, which finds it on the disk."""
    corpus = eegprep.Corpus.open(web.url, cache=tmp_path / "cache")
    assert np.array_equal(corpus.read(np.arange(72)), plain)
    for again in (corpus, eegprep.Corpus.open(web.url, cache=tmp_path / "cache"), pickle.loads(pickle.dumps(corpus))):
        web.requests = []
        assert np.array_equal(again.read(np.arange(72)[::-1]), plain[::-1])
        assert web.requests == []


def test_the_cache_holds_windows_and_not_whole_shards(web, tmp_path):
    """Ten windows of a terabyte are ten windows."""
    corpus = eegprep.Corpus.open(web.url, cache=tmp_path / "cache")
    corpus.read([0])

    (shard,) = (tmp_path / "cache").glob("*.shard")
    assert shard.stat().st_blocks * 512 < shard.stat().st_size / 2


@pytest.mark.parametrize("limit", [0, 60_000, 250_000])
def test_the_cache_keeps_its_limit(web, plain, tmp_path, limit):
    """A scratch disk is shared; reading goes on when the cache is full."""
    corpus = eegprep.Corpus.open(web.url, cache=tmp_path / "cache", cache_limit=limit)
    rng = np.random.default_rng(0)
    for _ in range(6):
        order = rng.permutation(72)[:40]
        assert np.array_equal(corpus.read(order), plain[order])
        assert disk(tmp_path / "cache") <= limit


def test_what_was_not_used_for_longest_leaves_the_cache_first(web, tmp_path):
    """By the time of the last use of a shard."""
    corpus = eegprep.Corpus.open(web.url, cache=tmp_path / "cache")
    corpus.read(np.arange(16))
    first, second = sorted((tmp_path / "cache").glob("*.shard"), key=lambda path: path.stat().st_mtime_ns)
    os.utime(first, ns=(0, 0))
    size = disk(tmp_path / "cache")

    limited = eegprep.Corpus.open(web.url, cache=tmp_path / "cache", cache_limit=size + 4096)
    limited.read([70])

    assert not first.exists() and second.exists()


def test_damage_in_the_cache_is_fetched_again(web, plain, tmp_path):
    """A crash may leave a mark without its bytes; the checksum tells."""
    eegprep.Corpus.open(web.url, cache=tmp_path / "cache").read(np.arange(8))
    (shard,) = (tmp_path / "cache").glob("*.shard")
    with shard.open("r+b") as file:
        file.write(bytes(1000))

    corpus = eegprep.Corpus.open(web.url, cache=tmp_path / "cache")
    assert np.array_equal(corpus.read(np.arange(8)), plain[:8])
    web.requests = []
    assert np.array_equal(eegprep.Corpus.open(web.url, cache=tmp_path / "cache").read(np.arange(8)), plain[:8])
    assert [path for path, _ in web.requests] == ["/c.zarr/zarr.json"]


def test_a_full_disk_does_not_stop_reading(web, plain, tmp_path, monkeypatch):
    """A cache is a convenience."""

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    corpus = eegprep.Corpus.open(web.url, cache=tmp_path / "cache")
    monkeypatch.setattr(os, "pwrite", full)

    assert np.array_equal(corpus.read(np.arange(72)), plain)


@pytest.mark.slow
def test_several_processes_share_a_cache(web, plain, tmp_path):
    """Ranks of one machine; with a limit that makes them take each other's shards away."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = (
        "import sys, hashlib, numpy as np, eegprep\n"
        "c = eegprep.Corpus.open(sys.argv[1], cache=sys.argv[2], cache_limit=150_000)\n"
        "for seed in range(4):\n"
        "    order = np.random.default_rng(seed).permutation(72)\n"
        "    x = np.empty((72, 16, 256), np.float32); x[order] = c.read(order)\n"
        "print(hashlib.sha256(x.tobytes()).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, web.url, str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    answers = {process.communicate(timeout=PATIENCE)[0].strip() for process in processes}

    import hashlib

    assert answers == {hashlib.sha256(plain.tobytes()).hexdigest()}


# --- everything else that fsspec knows ------------------------------------------------------------------------------


@contextmanager
def in_memory(folder: Path) -> Iterator[str]:
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/eeg/c.zarr", recursive=True)
    try:
        yield "memory://eeg/c.zarr"
    finally:
        memory.rm("/eeg", recursive=True)


def test_a_corpus_in_memory_gives_the_same_bits(folder, plain):
    """memory:// is fsspec's, which zarr writes to as well."""
    with in_memory(folder) as url:
        corpus = eegprep.Corpus.open(url)
        assert np.array_equal(corpus.read(np.arange(72)[::-1]), plain[::-1])

        fsspec.filesystem("memory").rm("/eeg/c.zarr/zarr.json")
        with pytest.raises(StoreError, match="not there"):
            eegprep.Corpus.open(url)


def test_a_corpus_in_memory_is_listed_when_it_is_not_consolidated(folder, plain, tmp_path):
    """Folders of fsspec look different from those of a disk."""
    import shutil

    from eegprep.store.commit import reopen_root

    copy = Path(shutil.copytree(folder, tmp_path / "c"))
    reopen_root(copy)
    with in_memory(copy) as url:
        assert np.array_equal(eegprep.Corpus.open(url).read(np.arange(72)), plain)


def test_a_short_answer_is_an_error(folder):
    """An object that was cut off while it was uploaded."""
    with in_memory(folder) as url:
        memory = fsspec.filesystem("memory")
        path = "/eeg/c.zarr/arrays/a/windows/c/0/0/0"
        memory.pipe_file(path, memory.cat_file(path)[:-1])

        with pytest.raises(StoreError, match=r"131 bytes at \d+, expected 132\n.*upload the corpus again"):
            eegprep.Corpus.open(url).read([0])


def test_a_scheme_that_nobody_knows_is_an_error():
    """With what would do."""
    with pytest.raises(UsageError, match="teapot"):
        eegprep.Corpus.open("teapot://kitchen/c.zarr")


def test_a_file_url_is_a_folder(folder, plain):
    """Schedulers like to write paths so."""
    assert np.array_equal(eegprep.Corpus.open(f"file://{folder}").read([5]), plain[[5]])
