"""A stand-in of the Hugging Face Hub on this machine: the part of its protocol that its client uses for creating, committing and reading.

Large files go through Git LFS and are read by a redirect to another address, as on the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_test"
LICENCES = {
    "other",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "odc-by",
    "mit",
    "apache-2.0",
    "creativeml-openrail-m",
}
LFS = (".safetensors", ".npz")  # and everything that is no text


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.refs.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None

    def commit(self, files: dict[str, bytes]) -> str:
        name = hashlib.sha1(
            json.dumps([[k, hashlib.sha256(v).hexdigest()] for k, v in sorted(files.items())]).encode()
        ).hexdigest()
        self.commits[name] = files
        self.refs["main"] = name
        return name


class Hub:
    """Repositories by ("model" or "dataset", owner/name). requests: "METHOD path" of each request, and the ranges asked for."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.cdn = f"http://localhost:{port}"  # another host, as large files have on the Hub
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.ranges: list[str] = []

    def add(self, kind: str, name: str, files: dict[str, bytes], private: bool = False) -> str:
        """A repository with these files; returns the commit."""
        repository = self.repositories.setdefault((kind, name), Repository(private))
        return repository.commit(dict(files))


def is_lfs(name: str, content: bytes) -> bool:
    return name.endswith(LFS) or b"\0" in content[:512]


def oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on a free port of this machine, in a thread."""
    holder: list[Hub] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, content: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def error(self, status: int, code: str) -> None:
            self.answer(
                status,
                json.dumps({"error": code}).encode(),
                {"X-Error-Code": code, "X-Error-Message": code, "Content-Type": "application/json"},
            )

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def knows(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {TOKEN}"

        def find(self, kind: str, name: str) -> Repository | None:
            repository = holder[0].repositories.get((kind, name))
            if repository is None or (repository.private and not self.knows()):
                self.error(404, "RepoNotFound")
                return None
            return repository

        def handle_all(self) -> None:
            hub, path = holder[0], unquote(urlsplit(self.path).path)
            body = self.body() if self.command in ("POST", "PUT") else b""
            hub.requests.append(f"{self.command} {path}")
            if path.startswith("/lfs/"):
                hub.lfs[path.removeprefix("/lfs/")] = body
                self.answer(200)
            elif path.startswith("/cdn/"):
                self.content(hub.lfs[path.removeprefix("/cdn/")], {})
            elif path == "/api/validate-yaml":
                self.card(json.loads(body)["content"])
            elif path == "/api/repos/create":
                self.create(json.loads(body))
            elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/revision/(.+))?", path):
                self.info(*match.groups())
            elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/tree/([^/]+)(?:/.*)?", path):
                self.tree(*match.groups())
            elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/preupload/.+", path):
                self.preupload(json.loads(body))
            elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)/commit/(.+)", path):
                self.commit(match[1], match[2], body)
            elif match := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
                self.batch(json.loads(body))
            elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.resolve("dataset" if match[1] else "model", *match.groups()[1:])
            else:
                self.error(404, "NotFound")

        do_GET = do_HEAD = do_POST = do_PUT = handle_all

        def card(self, content: str) -> None:
            lines = dict(line.split(": ", 1) for line in content.split("---")[1].splitlines() if ": " in line and line[0] != "-")
            front = json.loads(lines.get("license", "null"))
            known = front in LICENCES
            self.json({"errors": [] if known else [{"message": f"license {front}"}], "warnings": []}, 200 if known else 400)

        def create(self, asked: dict[str, Any]) -> None:
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            key = (asked.get("type", "model"), name)
            if not self.knows():
                self.error(401, "Unauthorized")
            elif key in holder[0].repositories:
                self.json({"error": "exists", "url": f"{holder[0].url}/{name}"}, 409)
            else:
                private = bool(asked.get("private")) or asked.get("visibility") == "private"
                holder[0].repositories[key] = Repository(private)
                holder[0].repositories[key].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
                self.json({"url": f"{holder[0].url}/{name}", "name": name})

        def info(self, kind: str, name: str, revision: str | None) -> None:
            repository = self.find(kind, name)
            if repository is None:
                return
            there = repository.files(revision or "main")
            if there is None:
                self.error(404, "RevisionNotFound")
                return
            self.json(
                {
                    "id": name,
                    "sha": there[0],
                    "private": repository.private,
                    "siblings": [{"rfilename": file} for file in sorted(there[1])],
                    "tags": [],
                }
            )

        def tree(self, kind: str, name: str, revision: str) -> None:
            repository = self.find(kind, name)
            there = repository.files(revision) if repository else None
            if there is None:
                return
            rows = []
            for file, content in sorted(there[1].items()):
                row: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": oid(content)}
                if is_lfs(file, content):
                    row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
                rows.append(row)
            self.json(rows)

        def preupload(self, asked: dict[str, Any]) -> None:
            self.json(
                {
                    "files": [
                        {
                            "path": file["path"], "shouldIgnore": False,
                            "uploadMode": "lfs" if is_lfs(file["path"], base64.b64decode(file["sample"])) else "regular",
                        }
                        for file in asked["files"]
                    ]
                }
            )  # fmt: skip

        def batch(self, asked: dict[str, Any]) -> None:
            hub, objects = holder[0], []
            for one in asked["objects"]:
                if one["oid"] in hub.lfs:
                    objects.append({"oid": one["oid"], "size": one["size"]})
                else:
                    objects.append({**one, "actions": {"upload": {"href": f"{hub.url}/lfs/{one['oid']}"}}})
            self.json({"transfer": "basic", "objects": objects})

        def commit(self, kind: str, name: str, body: bytes) -> None:
            repository = self.find(kind, name)
            if repository is None:
                return
            if not self.knows():
                self.error(401, "Unauthorized")
                return
            files = dict(repository.commits[repository.refs["main"]])
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = holder[0].lfs[value["oid"]]
                elif entry["key"] == "deletedFile":
                    del files[value["path"]]
            commit = repository.commit(files)
            self.json(
                {"commitOid": commit, "commitUrl": f"{holder[0].url}/{name}/commit/{commit}", "hookOutput": "", "success": True}
            )

        def resolve(self, kind: str, name: str, revision: str, file: str) -> None:
            repository = self.find(kind, name)
            if repository is None:
                return
            there = repository.files(revision)
            if there is None:
                self.error(404, "RevisionNotFound")
                return
            if file not in there[1]:
                self.error(404, "EntryNotFound")
                return
            content = there[1][file]
            headers = {"X-Repo-Commit": there[0], "ETag": f'"{oid(content)}"', "Accept-Ranges": "bytes"}
            if is_lfs(file, content):
                digest = hashlib.sha256(content).hexdigest()
                holder[0].lfs[digest] = content
                linked = {
                    "X-Linked-Etag": f'"{digest}"',
                    "X-Linked-Size": str(len(content)),
                    "Location": f"{holder[0].cdn}/cdn/{digest}",
                }
                self.answer(302, b"", {**headers, **linked})
            else:
                self.content(content, headers)

        def content(self, content: bytes, headers: dict[str, str]) -> None:
            asked = self.headers.get("Range", "")
            if match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked):
                holder[0].ranges.append(asked)
                first, last = int(match[1]), int(match[2]) if match[2] else len(content) - 1
                part = content[first : last + 1]
                self.answer(206, part, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(content)}"})
            elif self.command == "HEAD":
                self.answer(200, b"", {**headers, "Content-Length": str(len(content))})
            else:
                self.answer(200, content, headers)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    holder.append(Hub(server.server_port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield holder[0]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def stand_in(monkeypatch: Any) -> Iterator[Hub]:
    """The Hub of every program in this process, for a while; its client sends whole files, because chunked storage has a server of its own."""
    from huggingface_hub import constants, file_download

    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        # releases before 2 read the endpoint once, at their import
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        for module in (constants, file_download):
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + template, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        yield running
