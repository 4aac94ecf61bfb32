"""The readers that `loader.py` compares: this project's and its peers, each with a store of its own of the same windows.

A module to import; as a script it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

import eegprep
from dreamdiff.pretraining.stream import WindowStream

BATCH = 64
Reader = Callable[[np.ndarray], torch.Tensor]


def synthetic_windows(n: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """EEG-like 1/f noise, (n, channels, 512) float32 uV: what a codec finds in the mantissas is what it finds in EEG."""
    spectrum = rng.standard_normal((n, channels, 257)) + 1j * rng.standard_normal((n, channels, 257))
    spectrum /= np.maximum(np.arange(257), 1.0) ** 0.5
    return (10 * np.fft.irfft(spectrum, 512)).astype(np.float32)


def make_corpus(path: Path, n: int) -> eegprep.Corpus:
    """A corpus of n windows: 32, 62, 64 and 128 channels in equal parts, padded by replication, in eight subjects."""
    rng = np.random.default_rng(0)
    people = [(channels, half) for channels in (32, 62, 64, 128) for half in "ab"]
    entries = [
        {"subject": f"{channels}{half}", "windows": synthetic_windows(n // len(people), channels, rng)}
        for channels, half in people
    ]
    return eegprep.from_arrays(path, entries, sfreq=250.0)


# --- the readers -------------------------------------------------------------------------------------------------


class Peer:
    """One way to keep and read windows: `write` once, `open` before each measurement."""

    needs: tuple[str, ...] = ()

    def __init__(self, folder: Path, corpus: Path) -> None:
        self.folder, self.corpus = folder, corpus

    def write(self, windows_NCT: np.ndarray) -> None:
        self.folder.mkdir(parents=True)

    def open(self) -> Reader:
        raise NotImplementedError

    def close(self) -> None:
        return

    @property
    def files(self) -> Path:
        return self.folder


class Ours(Peer):
    """Corpus.read into a batch, one thread."""

    threads = 1

    def write(self, windows_NCT: np.ndarray) -> None:
        return

    @property
    def files(self) -> Path:
        return self.corpus

    def open(self) -> Reader:
        corpus = eegprep.Corpus.open(self.corpus)
        return lambda indices: torch.from_numpy(corpus.read(indices, threads=self.threads))


class OursStream(Ours):
    """WindowStream as a training loop uses it, with its threads: it brings its own order."""

    def open(self) -> Reader:
        stream = WindowStream(self.corpus, BATCH)
        batches = self._for_ever(stream)
        return lambda indices: next(batches)["eeg"][: len(indices)]

    @staticmethod
    def _for_ever(stream: WindowStream) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from stream


class Zarr(Ours):
    """zarr-python, one window at a time."""

    pipeline: str | None = None

    def open(self) -> Reader:
        import zarr

        zarr.config.reset()
        if self.pipeline:
            zarr.config.set({"codec_pipeline.path": self.pipeline})
        corpus = eegprep.Corpus.open(self.corpus)
        root = zarr.open_group(self.corpus, mode="r")
        arrays = [root[f"{key}/windows"] for key in corpus.keys]
        ends = np.cumsum([array.shape[0] for array in arrays])
        place = [
            (int(g), int(i - (ends[g] - arrays[g].shape[0])))
            for i in range(ends[-1])
            for g in [np.searchsorted(ends, i, "right")]
        ]
        return lambda indices: torch.from_numpy(np.stack([arrays[place[i][0]][place[i][1]] for i in indices.tolist()]))


class Zarrs(Zarr):
    """The zarrs codec pipeline, one window at a time."""

    needs = ("zarrs",)
    pipeline = "zarrs.ZarrsCodecPipeline"


class H5pyContiguous(Peer):
    """h5py, contiguous and uncompressed."""

    needs = ("h5py",)
    options: ClassVar[dict[str, object]] = {}

    def write(self, windows_NCT: np.ndarray) -> None:
        import h5py

        super().write(windows_NCT)
        with h5py.File(self.folder / "windows.h5", "w") as file:
            file.create_dataset("windows", data=windows_NCT, **self.options)

    def open(self) -> Reader:
        import h5py

        self.file = h5py.File(self.folder / "windows.h5", "r")
        data = self.file["windows"]
        return lambda indices: torch.from_numpy(np.stack([data[i] for i in indices.tolist()]))

    def close(self) -> None:
        self.file.close()


class H5pyChunked(H5pyContiguous):
    """h5py, a chunk a window, uncompressed."""

    options: ClassVar[dict[str, object]] = {"chunks": (1, 128, 512)}


class H5pyLzf(H5pyContiguous):
    """h5py, a chunk a window, its fastest compression (LZF)."""

    options: ClassVar[dict[str, object]] = {"chunks": (1, 128, 512), "compression": "lzf"}


class Lmdb(Peer):
    """LMDB, raw float32 values, `get` as it comes: a copy into bytes."""

    needs = ("lmdb",)
    zero_copy = False

    def write(self, windows_NCT: np.ndarray) -> None:
        import lmdb

        super().write(windows_NCT)
        with lmdb.open(str(self.folder), map_size=2 * windows_NCT.nbytes + 10**8) as environment:
            for first in range(0, len(windows_NCT), 256):
                with environment.begin(write=True) as transaction:
                    for i in range(first, min(first + 256, len(windows_NCT))):
                        transaction.put(b"%09d" % i, windows_NCT[i].tobytes())

    def open(self) -> Reader:
        import lmdb

        self.environment = lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False)

        def read(indices: np.ndarray) -> torch.Tensor:
            with self.environment.begin(buffers=self.zero_copy) as transaction:
                rows = [np.frombuffer(transaction.get(b"%09d" % i), np.float32) for i in indices.tolist()]
                return torch.from_numpy(np.stack(rows).reshape(-1, 128, 512))

        return read

    def close(self) -> None:
        self.environment.close()


class LmdbZeroCopy(Lmdb):
    """LMDB with `buffers=True`: values are views of its memory map, as close to numpy.memmap as a database gets."""

    zero_copy = True


class NpyEach(Peer):
    """One .npy file (float32) a window."""

    def write(self, windows_NCT: np.ndarray) -> None:
        super().write(windows_NCT)
        for i, window_CT in enumerate(windows_NCT):
            np.save(self.folder / f"{i:09d}.npy", window_CT)

    def open(self) -> Reader:
        return lambda indices: torch.from_numpy(np.stack([np.load(self.folder / f"{i:09d}.npy") for i in indices.tolist()]))


class Memmap(Peer):
    """numpy.memmap of the raw array, rows taken into a batch."""

    def write(self, windows_NCT: np.ndarray) -> None:
        super().write(windows_NCT)
        np.save(self.folder / "windows.npy", windows_NCT)

    def open(self) -> Reader:
        data = np.load(self.folder / "windows.npy", mmap_mode="r")
        return lambda indices: torch.from_numpy(data[indices])


class LitData(Peer):
    """litdata's own format and its own shuffle."""

    needs = ("litdata",)

    def write(self, windows_NCT: np.ndarray) -> None:
        import litdata

        self.folder.parent.mkdir(parents=True, exist_ok=True)
        np.save(self.folder.with_suffix(".source.npy"), windows_NCT)
        litdata.optimize(
            _LitSample(self.folder.with_suffix(".source.npy")), list(range(len(windows_NCT))), str(self.folder),
            chunk_bytes="64MB", num_workers=1, verbose=False,
        )  # fmt: skip
        self.folder.with_suffix(".source.npy").unlink()

    def open(self) -> Reader:
        import litdata

        loader = litdata.StreamingDataLoader(
            litdata.StreamingDataset(str(self.folder), shuffle=True), batch_size=BATCH, num_workers=0
        )
        batches = self._for_ever(loader)
        return lambda indices: next(batches)[: len(indices)]

    @staticmethod
    def _for_ever(loader: object) -> Iterator[torch.Tensor]:
        while True:
            yield from loader  # type: ignore[misc]


class _LitSample:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.path, mmap_mode="r")[index].copy())


PEERS: dict[str, type[Peer]] = {
    "ours: WindowStream": OursStream,
    "ours: Corpus.read, 1 thread": Ours,
    "zarr-python, item": Zarr,
    "zarrs, item": Zarrs,
    "h5py, contiguous": H5pyContiguous,
    "h5py, chunk of a window": H5pyChunked,
    "h5py, chunk of a window, lzf": H5pyLzf,
    "LMDB": Lmdb,
    "LMDB, zero copy": LmdbZeroCopy,
    "one .npy a window": NpyEach,
    "numpy.memmap": Memmap,
    "litdata": LitData,
}
# name of the bar, peer, least ratio of ours to it
BARS = [
    ("20x zarr-python", "zarr-python, item", 20.0),
    ("5x zarrs", "zarrs, item", 5.0),
    ("2x h5py contiguous", "h5py, contiguous", 2.0),
    ("2x h5py chunked", "h5py, chunk of a window", 2.0),
    ("2x LMDB", "LMDB", 2.0),
    ("2x one .npy a window", "one .npy a window", 2.0),
    ("0.5x numpy.memmap", "numpy.memmap", 0.5),
]
