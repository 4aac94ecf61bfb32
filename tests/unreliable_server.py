"""An HTTP server on this machine that misbehaves in the ways that hosts of EEG data do."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Resource:
    """What one path serves, and how badly.

    drops: after how many bytes of a body the connection is cut, one entry for each request, then never again.
    announce: the Content-Length to claim instead of the true one. ranges: whether partial requests are understood.
    statuses: (code, headers) to answer before anything else works. page: serve this HTML with status 200 instead.
    """

    content: bytes
    etag: str = '"v1"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    always_drop: int | None = None
    announce: int | None = None
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    page: str = ""
    content_type: str = "application/octet-stream"
    redirect: str = ""
    shift: int = 0  # a partial answer begins so many bytes late
    claim: int | None = None  # the total that Content-Range claims
    compress: bool = False
    requests: list[str] = field(default_factory=list)


class Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.resources: dict[str, Resource] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, path: str, content: bytes, **behaviour: Any) -> str:
        """Serve `content` under `path` and return its URL."""
        self.resources[path] = Resource(content, **behaviour)
        return self.url + path


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine, in a thread."""
    holder: list[Server] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            resource = holder[0].resources.get(self.path.split("?")[0])
            if resource is None:
                self.answer(404, b"nothing here", {})
                return
            asked = self.headers.get("Range", "")
            resource.requests.append(asked)
            if resource.redirect:
                self.answer(302, b"", {"Location": resource.redirect})
                return
            if resource.statuses:
                code, headers = resource.statuses.pop(0)
                self.answer(code, b"not now", headers)
                return
            if resource.page:
                self.answer(200, resource.page.encode(), {"Content-Type": "text/html; charset=utf-8"})
                return
            self.serve(resource, asked)

        def serve(self, resource: Resource, asked: str) -> None:
            content, headers = resource.content, {"Content-Type": resource.content_type}
            if resource.etag:
                headers["ETag"] = resource.etag
            code, body = 200, content
            fits = self.headers.get("If-Range", resource.etag) == resource.etag
            if asked and resource.ranges and fits:
                first_text, _, last_text = asked.removeprefix("bytes=").partition("-")
                first = int(first_text)
                first += resource.shift
                total = len(content) if resource.claim is None else resource.claim
                if first >= len(content):
                    self.answer(416, b"", {"Content-Range": f"bytes */{total}"})
                    return
                body = content[first : int(last_text) + 1 if last_text else None]
                code = 206
                headers["Content-Range"] = f"bytes {first}-{first + len(body) - 1}/{total}"
            elif resource.compress:
                body = gzip.compress(content)
                headers["Content-Encoding"] = "gzip"
            cut = resource.drops.pop(0) if resource.drops else resource.always_drop
            length = len(body) if resource.announce is None or code == 206 else resource.announce
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body[:length] if cut is None else body[:cut])
            self.wfile.flush()
            if cut is not None or length != len(body):
                self.close_connection = True

        def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    holder.append(Server(httpd.server_address[1]))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield holder[0]
    finally:
        httpd.shutdown()
        httpd.server_close()
