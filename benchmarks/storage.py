"""How windows are best kept: codec, chunk, shard and writer, on genuine recordings.

    python benchmarks/storage.py

The sample recordings that come with the package (64 channels, 160 Hz) are cut and padded as `eegprep build` does; windows
of 32 and 128 channels are made from them. Times are processor time of one thread, the least of several, so that they hold
on a busy machine. The figures in docs/design-storage.md come from here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import zarr

import eegprep
from eegprep.store.root import create_corpus
from eegprep.store.writer import SubjectWriter

ROOT = Path(__file__).parents[1]


def genuine_windows(n: int, folder: Path) -> np.ndarray:
    """(n, 64, 512) float32 uV of the sample recordings, band-passed; scaled at random so that no two are equal."""
    eegprep.build(str(ROOT / "data_manifests/sample.toml"), folder / "sample.zarr")
    corpus = eegprep.Corpus.open(folder / "sample.zarr")
    rng = np.random.default_rng(0)
    windows_NCT = corpus.read(rng.integers(len(corpus), size=n))[:, :64]
    return windows_NCT * rng.uniform(0.5, 2.0, (n, 1, 1)).astype(np.float32)


def of_channels(windows_NCT: np.ndarray, channels: int) -> np.ndarray:
    """Windows of that many different channels, padded to 128 by repetition."""
    wide = np.concatenate([windows_NCT, windows_NCT[::-1]], axis=1)[:, :channels]
    return np.ascontiguousarray(wide[:, np.arange(128) % channels])


def least(action: Callable[[], object], times: int = 7) -> float:
    values = []
    for _ in range(times):
        start = time.thread_time()
        action()
        values.append(time.thread_time() - start)
    return min(values)


def codecs(windows_NCT: np.ndarray) -> None:
    print("\ncodec, one window a chunk: size of raw, encode us, decode us")
    choices = {
        "zstd -5": [numcodecs.Zstd(-5)],
        "zstd -1": [numcodecs.Zstd(-1)],
        "zstd 1": [numcodecs.Zstd(1)],
        "zstd 3": [numcodecs.Zstd(3)],
        "zstd -1, byte shuffle": [numcodecs.Shuffle(4), numcodecs.Zstd(-1)],
        "zstd 1, byte shuffle": [numcodecs.Shuffle(4), numcodecs.Zstd(1)],
        "lz4": [numcodecs.LZ4()],
        "blosc lz4, bit shuffle": [numcodecs.Blosc("lz4", 5, numcodecs.Blosc.BITSHUFFLE)],
    }
    for channels in (32, 64, 128):
        data = of_channels(windows_NCT[:64], channels)
        out = np.empty_like(data[0])
        for name, chain in choices.items():

            def encode(window: np.ndarray, chain: list = chain) -> object:
                for codec in chain:
                    window = codec.encode(window)
                return window

            def decode(content: object, chain: list = chain, out: np.ndarray = out) -> None:
                for codec in chain[:0:-1]:
                    content = codec.decode(content)
                chain[0].decode(content, out)

            encoded = [encode(window) for window in data]
            size = sum(memoryview(content).nbytes for content in encoded) / data.nbytes
            encode_us = least(lambda d=data, e=encode: [e(w) for w in d], 3) / 64 * 1e6
            decode_us = least(lambda c=encoded, d=decode: [d(w) for w in c]) / 64 * 1e6
            print(f"  {channels:3d} channels  {name:24s} {size:6.3f} {encode_us:8.0f} {decode_us:8.0f}")


def shards(windows_NCT: np.ndarray, folder: Path) -> None:
    print("\nshard: windows a file, MB a file, random read us a window, bytes of index a window")
    data = of_channels(windows_NCT, 64)
    for size in (16, 64, 256, 1024):
        corpus = eegprep.from_arrays(folder / f"shard{size}", [{"windows": data}], sfreq=160.0, shard=size)
        rng, out = np.random.default_rng(0), np.empty((64, 128, 512), np.float32)
        corpus.read(np.arange(len(corpus)), threads=1)
        spent = least(lambda c=corpus, r=rng, o=out: c.read(r.integers(len(c), size=64), out=o, threads=1), 30) / 64 * 1e6
        first = next((folder / f"shard{size}").rglob("c/0/0/0")).stat().st_size / 1e6
        print(f"  {size:5d} {first:8.1f} {spent:8.0f} {16 * size * -(-len(data) // size) / len(data):8.1f}")


def chunks(windows_NCT: np.ndarray) -> None:
    print("\ninner chunk: windows, size of raw, decode us for one window at random")
    data, codec = of_channels(windows_NCT, 64), numcodecs.Zstd(-1)
    for size in (1, 4, 16):
        blocks = [np.ascontiguousarray(data[i : i + size]) for i in range(0, 64, size)]
        encoded, out = [codec.encode(block) for block in blocks], np.empty_like(blocks[0])
        spent = least(lambda e=encoded, o=out: [codec.decode(content, o) for content in e]) / len(blocks) * 1e6
        print(f"  {size:3d} {sum(map(len, encoded)) / (64 * data[0].nbytes):8.3f} {spent:8.0f}")


def writers(windows_NCT: np.ndarray, folder: Path) -> None:
    print("\nwriter: processor time, MB of windows a second")
    data = of_channels(windows_NCT[:512], 64)

    def ours(path: Path) -> None:
        create_corpus(path, {}, "f")
        with SubjectWriter(path, "A", "1") as writer:
            writer.add(data, writer.add_recording({}), np.zeros(len(data), int))
            writer.commit("k")

    def plain(path: Path) -> None:
        array = zarr.create_array(
            str(path),
            shape=data.shape,
            chunks=(1, 128, 512),
            shards=(256, 128, 512),
            dtype="f4",
            compressors=zarr.codecs.ZstdCodec(level=-1),
        )
        for first in range(0, len(data), 256):
            array[first : first + 256] = data[first : first + 256]

    def zarrs(path: Path) -> None:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            plain(path)

    for name, write in {"SubjectWriter, with SHA-256 and crc32c": ours, "zarr-python": plain, "zarrs": zarrs}.items():
        seconds = []
        for attempt in range(3):
            start = time.process_time()
            try:
                write(folder / f"{write.__name__}{attempt}")
            except ImportError:
                print(f"  {name}: not installed")
                break
            seconds.append(time.process_time() - start)
        if seconds:
            print(f"  {name:40s} {data.nbytes / 1e6 / min(seconds):8.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1024)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        windows_NCT = genuine_windows(args.windows, folder)
        codecs(windows_NCT)
        chunks(windows_NCT)
        shards(windows_NCT, folder)
        writers(windows_NCT, folder)


if __name__ == "__main__":
    main()
