"""Shuffled batches from an S3-compatible server on this machine: requests, bytes and windows/s of this project's reader and of its peers.

    python benchmarks/object_store.py                    # 512 windows, batches of 64
    python benchmarks/object_store.py --latency 0.02     # every answer 20 ms later, as over a network

The server is moto's, in a process of its own; between it and every reader stands a proxy in another process that counts requests and
bytes, and can add a delay. moto answers a few hundred requests a second, so without a delay it is the server that bounds windows/s; what carries over to other stores
are requests and bytes a window. Each reader gets each window once, in shuffled batches, without a cache on disk (litdata always keeps one).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import multiprocessing
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import zarr
from loader_peers import BATCH, make_corpus
from obstore.store import S3Store

import eegprep

KEYS = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _proxy(port: int, server: int, latency: float, counts: Any) -> None:
    """Passes connections on; counts[0] requests, counts[1] bytes of answers."""
    lock = threading.Lock()

    def pump(source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while content := source.recv(1 << 18):
                with lock:
                    if answers:
                        counts[1] += len(content)
                    else:  # a request begins with its verb, at the start of what arrives
                        counts[0] += content.startswith((b"GET ", b"HEAD ", b"PUT ", b"POST "))
                if answers and latency and content.startswith(b"HTTP/1."):
                    time.sleep(latency)
                target.sendall(content)
        except OSError:
            pass
        finally:
            for side in (source, target):
                with suppress(OSError):
                    side.shutdown(socket.SHUT_RDWR)

    listener = socket.create_server(("127.0.0.1", port), backlog=256)
    while True:
        client, _ = listener.accept()
        upstream = socket.create_connection(("127.0.0.1", server))
        for side in (client, upstream):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(client, upstream, False), daemon=True).start()
        threading.Thread(target=pump, args=(upstream, client, True), daemon=True).start()


@contextmanager
def store(latency: float) -> Iterator[tuple[str, Any]]:
    """An S3-compatible store with an empty bucket `eeg`: its address, and what its proxy counts."""
    import boto3

    server, port = _free_port(), _free_port()
    counts = multiprocessing.get_context("spawn").Array("q", 2)
    moto = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    proxy = multiprocessing.get_context("spawn").Process(target=_proxy, args=(port, server, latency, counts), daemon=True)
    proxy.start()
    try:
        for place in (server, port):
            _wait_for(place)
        address = f"http://127.0.0.1:{port}"
        boto3.client("s3", endpoint_url=address, aws_access_key_id="test", aws_secret_access_key="test",
                     region_name="us-east-1").create_bucket(Bucket="eeg")  # fmt: skip
        yield address, counts
    finally:
        for process in (proxy, moto):
            process.kill()


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at port {port}")


# --- readers: each returns how many windows it gave --------------------------------------------------------------


def ours(address: str, order: np.ndarray) -> int:
    """`Corpus.read`, batch by batch."""
    corpus = eegprep.Corpus.open("s3://eeg/c.zarr", options={"endpoint": address, **KEYS})
    return sum(len(corpus.read(order[first : first + BATCH])) for first in range(0, len(order), BATCH))


def by_zarr(address: str, order: np.ndarray, threads: int) -> int:
    """zarr-python over obstore, one window at a time, `threads` at once."""
    files = S3Store("eeg", prefix="c.zarr", endpoint=address, client_options={"allow_http": True}, **KEYS)
    root = zarr.open_group(zarr.storage.ObjectStore(files, read_only=True), mode="r")
    arrays = [root[f"arrays/{name}/windows"] for name in sorted(name for name, _ in root["arrays"].groups())]
    ends = np.cumsum([array.shape[0] for array in arrays])

    def window(index: int) -> np.ndarray:
        number = int(np.searchsorted(ends, index, "right"))
        return arrays[number][index - (int(ends[number]) - arrays[number].shape[0])]

    given = 0
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(order), BATCH):
            given += len(np.stack(list(pool.map(window, order[first : first + BATCH].tolist()))))
    return given


def by_litdata(address: str, order: np.ndarray) -> int:
    """litdata's own format and order; chunks of 64 MB come whole."""
    import litdata
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"  # it has no option for a server without TLS
    options = {"endpoint_url": address, "aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    with tempfile.TemporaryDirectory() as cache:
        dataset = litdata.StreamingDataset("s3://eeg/lit", shuffle=True, storage_options=options, cache_dir=cache)
        return sum(len(batch) for batch in litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0))


def _upload(address: str, folder: Path, prefix: str) -> None:
    files = S3Store("eeg", prefix=prefix, endpoint=address, client_options={"allow_http": True}, **KEYS)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            obstore.put(files, path.relative_to(folder).as_posix(), path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=512, help="windows in the corpus (a multiple of 8)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that the proxy holds each answer back")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, store(options.latency) as (address, counts):
        corpus = make_corpus(Path(name) / "c.zarr", options.windows)
        _upload(address, Path(name) / "c.zarr", "c.zarr")
        readers: dict[str, Callable[[np.ndarray], int]] = {
            "eegprep": lambda order: ours(address, order),
            "zarr + obstore, one at a time": lambda order: by_zarr(address, order, 1),
            "zarr + obstore, 32 at a time": lambda order: by_zarr(address, order, 32),
        }
        try:
            from loader_peers import LitData

            LitData(Path(name) / "lit", Path(name)).write(corpus.read(np.arange(len(corpus))))
            _upload(address, Path(name) / "lit", "lit")
            readers["litdata"] = lambda order: by_litdata(address, order)
        except ImportError:
            print("left out: litdata (install litdata)")
        rng = np.random.default_rng(0)
        rows: dict[str, list[tuple[float, float, float]]] = {reader: [] for reader in readers}
        for _ in range(options.rounds):
            order = rng.permutation(len(corpus))
            for reader, read in readers.items():
                counts[0], counts[1] = 0, 0
                began = time.perf_counter()
                assert read(order) == len(order), reader
                seconds = time.perf_counter() - began
                rows[reader].append((len(order) / seconds, counts[0] / len(order), counts[1] / len(order)))
        print(
            f"\n{len(corpus)} windows once, batches of {BATCH}, {options.latency * 1e3:.0f} ms a request: windows/s, requests a window, kB a window, ours over it"
        )
        for reader, values in rows.items():
            ratio = np.median([a[0] / b[0] for a, b in zip(rows["eegprep"], values, strict=True)])
            speed, requests, received = np.median(values, axis=0)
            print(f"  {reader:32s} {speed:8,.0f} {requests:7.2f} {received / 1e3:8.0f} {ratio:7.2f}x")


if __name__ == "__main__":
    main()
