"""Archives of recordings on this machine: a public S3 bucket with its listing, NEMAR's manifest and its zarr copies; and their writer.

`serving_store` writes a zarr copy in the layout that NEMAR documents (biosigio, format version 2).
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import numpy as np
import zarr
from eeg_files import eeg, names, write_edf
from zarr.codecs import BloscCodec

RATE, CHANNELS = 250, 4


class Archive:
    """Files by path, such as /openneuro/ds000001/README. requests: "path range" of every file that was asked for."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.sent = 0  # bytes of all answers
        self.page = 3  # entries of a page of a listing
        self.cut: dict[str, int] = {}  # path -> bytes after which its connection breaks, once

    @property
    def mirrors(self) -> str:
        """For EEGPREP_MIRRORS."""
        names = {
            "https://s3.amazonaws.com/openneuro.org/": "openneuro", "https://data.nemar.org/": "nemar", "https://zarr.nemar.org/": "zarr",
            "https://nemar.s3.us-east-2.amazonaws.com/": "zarr",
        }  # fmt: skip
        return ";".join(f"{address}={self.url}/{name}/" for address, name in names.items())

    def put_tree(self, folder: Path, at: str) -> None:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.files[f"{at}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()

    def nemar_manifest(self, target: str, folder: Path) -> None:
        """The manifest of a data set and its files."""
        entries = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, content = path.relative_to(folder).as_posix(), path.read_bytes()
            text = name.endswith((".json", ".tsv"))
            digest = hashlib.sha1(b"blob %d\0" % len(content) + content) if text else hashlib.sha256(content)
            self.files[f"/objects/{target}/{name}"] = content
            entries.append(
                {
                    "path": name, "size": len(content), "checksum_algorithm": "git" if text else "sha256", "checksum": digest.hexdigest(),
                    "url": f"{self.url}/objects/{target}/{name}",
                }
            )  # fmt: skip
        self.files[f"/nemar/{target}/latest/manifest.json"] = json.dumps(entries).encode()

    def nemar_index(
        self, target: str, stores: Sequence[str] | Mapping[str, Mapping[str, Any]], commit: str = "c" * 40, **changes: Any
    ) -> None:
        """The index of zarr copies. stores: paths of the recordings, or of each what differs in its entry."""
        listed = [
            {
                "path": path, "zarr": re.sub(r"\.\w+$", ".zarr", path), "updated_utc": "2026-09-08T00:00:00Z", "source_tree": "raw", "derived": False,
                "groups": [{"name": "eeg_250hz", "modality": "EEG", "rate": 250.0, "n_channels": 4, "source_rate_hz": 250.0}], **entry,
            }
            for path, entry in (stores.items() if isinstance(stores, Mapping) else ((path, {}) for path in stores))
        ]  # fmt: skip
        content = {
            "format": "nemar-zarr-index", "format_version": 3, "dataset_id": target, "data_base": f"{self.url}/zarr/{target}/zarr/",
            "source_commit": commit, "stores": listed, "license": "CC0", "doi": "10.0/x", "citation": "Somebody (2026)", **changes,
        }  # fmt: skip
        self.files[f"/zarr/{target}/zarr/index.json"] = json.dumps(content).encode()

    def listing(self, prefix: str, after: str) -> bytes:
        keys = sorted(path.removeprefix("/openneuro/") for path in self.files if path.startswith(f"/openneuro/{prefix}"))
        rest = [key for key in keys if key > after]
        rows = [
            f"<Contents><Key>{escape(key)}</Key><ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag><Size>{len(content)}</Size></Contents>"
            for key in rest[: self.page] for content in [self.files[f"/openneuro/{key}"]]
        ]  # fmt: skip
        more = len(rest) > self.page
        token = f"<NextContinuationToken>{escape(rest[self.page - 1])}</NextContinuationToken>" if more else ""
        return (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{''.join(rows)}{token}</ListBucketResult>"
        ).encode()


@contextmanager
def serving() -> Iterator[Archive]:
    """Archives on a free port of this machine."""
    holder: list[Archive] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            archive, parts = holder[0], urlsplit(self.path)
            path, query = unquote(parts.path), parse_qs(parts.query)
            if path == "/openneuro/" and query.get("list-type") == ["2"]:
                self.reply(200, archive.listing(query["prefix"][0], query.get("continuation-token", [""])[0]), {})
                return
            asked = self.headers.get("Range", "")
            if self.command == "GET":
                archive.requests.append(f"{path} {asked}".strip())
            content = archive.files.get(path)
            if content is None:
                self.reply(404, b"", {})
                return
            headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Accept-Ranges": "bytes"}
            if match := re.fullmatch(r"bytes=-(\d+)", asked):  # the last bytes
                asked = f"bytes={max(0, len(content) - int(match[1]))}-"
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked):
                first = int(match[1])
                if first >= len(content):
                    self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                    return
                part = content[first : int(match[2]) + 1 if match[2] else None]
                self.reply(206, part, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"})
                return
            self.reply(200, content, headers, archive.cut.pop(path, None))

        do_HEAD = do_GET

        def reply(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(body if cut is None else body[:cut])
            holder[0].sent += len(body)
            if cut is not None:
                self.wfile.flush()
                # not `close`: files over the socket would keep it open, and the client would wait for its timeout
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    holder.append(Archive(server.server_port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield holder[0]
    finally:
        server.shutdown()
        server.server_close()


def serving_store(
    folder: Path, signal_uv_CT: np.ndarray, names: Sequence[str], *, rate: float = 250.0, own_rate: float | None = None,
    events: Sequence[tuple[float, float, str]] = (), unusable: Mapping[str, str] | None = None, unit: str = "uV", chunk_s: float = 4.0,
    shard_s: float = 20.0,
) -> Path:  # fmt: skip
    """A zarr copy of a recording.

    Args:
        signal_uv_CT: in `unit`. unusable: channel -> its type, for what must not be read as EEG.
    """
    root = zarr.create_group(folder, overwrite=True)
    name = f"eeg_{rate:g}hz"
    group = root.create_group(name)
    low_C, high_C = signal_uv_CT.min(axis=1), signal_uv_CT.max(axis=1)
    scale_C = np.where(high_C > low_C, (high_C - low_C) / 65535, 1.0)
    offset_C = np.where(high_C > low_C, low_C + 32768 * scale_C, low_C)
    stored_CT = np.clip(np.round((signal_uv_CT - offset_C[:, None]) / scale_C[:, None]), -32768, 32767).astype("i2")
    channels = [
        {
            "label": channel, "channel_type": (unusable or {}).get(channel, "EEG"), "modality": "EEG", "unit": unit, "row_index": row,
            "usable_for_inference": channel not in (unusable or {}), "original_rate": own_rate or rate, "target_rate": rate,
        }
        for row, channel in enumerate(names)
    ]  # fmt: skip
    group.attrs.update({"modality": "EEG", "rate": rate, "original_rate": own_rate or rate, "channels": channels})
    chunk = max(1, round(chunk_s * rate))
    shard = chunk * max(1, min(round(shard_s / chunk_s), -(-stored_CT.shape[1] // chunk)))
    array = group.create_array(
        "0", shape=stored_CT.shape, chunks=(len(names), chunk), shards=(len(names), shard), dtype="int16",
        compressors=[BloscCodec(cname="zstd", clevel=5)],
    )  # fmt: skip
    array[:] = stored_CT
    array.attrs.update(
        {"level": 0, "kind": "signal", "scale": scale_C.tolist(), "offset": offset_C.tolist(), "usable_for_inference": True}
    )
    view = group.create_group("view").create_array("1", shape=(2, *stored_CT.shape), chunks=(2, *stored_CT.shape), dtype="int16")
    view[:] = np.stack([stored_CT, stored_CT])
    view.attrs.update({"kind": "minmax_envelope", "usable_for_inference": False})
    told = root.create_group("events")
    labels = list(dict.fromkeys(label for _, _, label in events))
    columns = {
        "onset": np.array([onset for onset, _, _ in events], "f8"), "duration": np.array([length for _, length, _ in events], "f8"),
        "code": np.array([labels.index(label) for _, _, label in events], "i4"),
    }  # fmt: skip
    if events:
        for column, values in columns.items():
            told.create_array(column, shape=values.shape, chunks=values.shape, dtype=values.dtype)[:] = values
    told.attrs.update({"label_map": {str(code): label for code, label in enumerate(labels)}, "n_events": len(events)})
    root.attrs.update({"format": "biosigio-zarr", "format_version": 2, "created_utc": "2026-09-08T00:00:00Z", "dtype": "int16"})
    return folder


def dataset(
    folder: Path, people: int = 2, licence: str = "CC0", seconds: int = 30, rate: int = RATE, labels: Sequence[str] | None = None
) -> Path:
    """A BIDS data set with what an archive has beside EEG: derivatives, anatomy, other people's files."""
    folder.mkdir(parents=True)
    about = {"Name": "Faces", "License": licence, "DatasetDOI": "doi:10.18112/x", "Authors": ["A. One"], "BIDSVersion": "1.9.0"}
    (folder / "dataset_description.json").write_text(json.dumps(about))
    (folder / "participants.tsv").write_text("participant_id\n" + "".join(f"sub-{n:02d}\n" for n in range(1, people + 1)))
    (folder / "task-rest_eeg.json").write_text(
        json.dumps({"PowerLineFrequency": 50, "EEGReference": "Cz", "SamplingFrequency": rate})
    )
    for number in range(1, people + 1):
        place = folder / f"sub-{number:02d}" / "eeg"
        place.mkdir(parents=True)
        write_edf(
            place / f"sub-{number:02d}_task-rest_eeg.edf",
            eeg(CHANNELS, seconds * rate, rate, seed=number),
            rate,
            list(labels or names(CHANNELS)),
        )
        (place / f"sub-{number:02d}_task-rest_events.tsv").write_text(
            "onset\tduration\ttrial_type\n1.0\t0.5\tface\n3.0\t0.5\thouse\n"
        )
        (place.parent / "anat").mkdir()
        (place.parent / "anat" / "T1w.nii.gz").write_bytes(b"\0" * 5000)
    copied = folder / "derivatives" / "clean" / "sub-01" / "eeg"
    copied.mkdir(parents=True)
    (copied / "sub-01_task-rest_eeg.edf").write_bytes(b"not raw")
    return folder
