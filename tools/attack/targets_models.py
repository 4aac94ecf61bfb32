"""Weights, checkpoints and pictures: flipped, and sent by strangers."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from campaign import Hostile, Stored
from harness import Ended

from dreamdiff.encoders.encoder import EEGEncoder
from dreamdiff.encoders.mae import MaskedSignalModel, masked_signal_preset
from dreamdiff.pairs.decoding import decode_image
from dreamdiff.programs.convert import convert_pretrained, export_pretrained
from dreamdiff.untrusted import arrays, checkpoints


def _model(folder: Path) -> Path:
    torch.manual_seed(0)
    MaskedSignalModel(masked_signal_preset("tiny")).save_pretrained(folder / "model")
    return folder / "model"


def _state(module: torch.nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())


def _read_model(path: Path) -> Any:
    return _state(MaskedSignalModel.from_pretrained(path)), _state(EEGEncoder.from_pretrained(path))


def _checkpoint(folder: Path) -> Path:
    export_pretrained(_model(folder), folder / "theirs.pth")
    return folder / "theirs.pth"


def _read_checkpoint(path: Path) -> Any:
    convert_pretrained(path, path.parent / f"out-{os.getpid()}")
    return _state(MaskedSignalModel.from_pretrained(path.parent / f"out-{os.getpid()}"))


STORES = [
    Stored("model folder", _model, _read_model),
    Stored("checkpoint .pth", _checkpoint, _read_checkpoint, lambda path: [path]),
]


class Runs:
    """Unpickling this starts a program that leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def _zip(pickled: Callable[[Path], bytes], method: int = zipfile.ZIP_STORED) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with zipfile.ZipFile(folder / "x.pth", "w") as archive:
            archive.writestr(zipfile.ZipInfo("archive/data.pkl"), pickled(folder), compress_type=method)
            archive.writestr("archive/byteorder", "little")

    return make


def _bare(pickled: Callable[[Path], bytes]) -> Callable[[Path], Any]:
    return lambda folder: (folder / "x.pth").write_bytes(pickled(folder))


def _load(folder: Path) -> None:
    for read in (checkpoints.load, arrays.load):
        try:
            read(folder / "x.pth")
        finally:
            assert not (folder / "mark").exists(), "it ran"


def _decode(folder: Path) -> Any:
    return decode_image((folder / "x.png").read_bytes(), "x.png").shape


def _refused(ended: Ended) -> bool:
    return ended.kind == "refused"


def _png(width: int, height: int) -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + part(b"IDAT", zlib.compress(bytes(64))) + part(b"IEND", b"")


def _picture(content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "x.png").write_bytes(content)


def _expanded(_: Path) -> bytes:
    """A torch file whose one number stands for terabytes."""
    stream = io.BytesIO()
    torch.save(torch.zeros(1).expand(1 << 20, 1 << 20), stream)
    return stream.getvalue()


GIGABYTE = 1 << 30
_PICKLES: dict[str, Callable[[Path], bytes]] = {
    **{f"a program, protocol {n}": lambda folder, n=n: pickle.dumps({"model": Runs(folder / "mark")}, n) for n in (0, 2, 4)},  # type: ignore[misc]
    "6 million instructions": lambda _: b"\x80\x02" + b"N0" * 3_000_000 + b"N.",
    "an integer of 24 million bits": lambda _: b"\x80\x02\x8b" + struct.pack("<i", 3_000_000) + b"\x7f" * 3_000_000 + b".",
    "200,000 lists in each other": lambda _: b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "a list 2 million times": lambda _: pickle.dumps([[list(range(1400))] * 1400] * 1400, 2),
    "a dotted name": lambda _: b"\x80\x04\x8c\x0ctorch._utils\x8c\x15_rebuild_tensor.__globals__\x93.",
}
HOSTILE = [
    *(Hostile(f".pth: {name}", _zip(make), _load, _refused, GIGABYTE) for name, make in _PICKLES.items()),
    *(Hostile(f"bare pickle: {name}", _bare(make), _load, _refused, GIGABYTE) for name, make in _PICKLES.items()),
    Hostile(".pth: a deflated structure", _zip(lambda _: b"\x80\x02" + b"N0" * 50_000_000 + b"N.", zipfile.ZIP_DEFLATED), _load, _refused, GIGABYTE),
    Hostile(".pth: one number for terabytes", _bare(_expanded), _load, _refused, GIGABYTE),
    *(
        Hostile(f"not weights: {name}", _bare(lambda _, content=content: content), _load, _refused)  # type: ignore[misc]
        for name, content in {
            "empty": b"", "Git LFS": b"version https://git-lfs.github.com/spec/v1\nsize 3438167534\n", "HTML": b"<!doctype html>", "JSON": b'{"error":1}',
            "zeros": bytes(4096), "gzip": b"\x1f\x8b\x08" + bytes(99), "tar": bytes(257) + b"ustar" + bytes(250),
        }.items()
    ),
    *(
        Hostile(f"picture: {name}", _picture(content), _decode, _refused, 900 << 20)
        for name, content in {
            "EPS named .png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n", "13,000 x 13,000": _png(13000, 13000),
            "60,000 x 60,000": _png(60000, 60000), "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "PDF": b"%PDF-1.4\n%%EOF", "empty": b"",
            "ICNS": b"icns" + struct.pack(">I", 1 << 30) + b"ic07" + struct.pack(">I", 1 << 30), "cut short": _png(400, 400)[:60],
        }.items()
    ),
]  # fmt: skip
