"""A small model hub on the loopback address: as much of its API as huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40
LARGE = (".safetensors", ".bin")
NONE: Mapping[str, str] = {}


@dataclass
class Hub:
    """A hub with one repository, and others beside it.

    Attributes:
        repo: Its name.
        files: Its content.
        beside: Content of the others, by their names; elsewhere here, their files are called NAME/FILE.
        gated: Whether its files are shown to those only who have accepted a licence.
        token: The token of somebody who has; None lets nobody in.
        cut: Files whose transfer breaks off after so many bytes, once.
        corrupt: How many more times a file arrives with a wrong byte.
        commit: Of all its repositories.
        ranges: The bytes from which files were asked for, in order.
    """

    repo: str
    files: dict[str, bytes]
    beside: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    gated: bool = False
    token: str | None = None
    cut: dict[str, int] = field(default_factory=dict[str, int])
    corrupt: dict[str, int] = field(default_factory=dict[str, int])
    ranges: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    endpoint: str = ""
    commit: str = COMMIT

    def environment(self, home: Path) -> dict[str, str]:
        """Return what makes huggingface_hub ask this hub, as nobody in particular, and keep files in ``home``."""
        return {
            "HF_HOME": str(home),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        }

    def info(self, repo: str = "") -> dict[str, object]:
        """Describe the repository, or another one, as ``GET /api/models/REPO/revision/REVISION?blobs=true`` does."""
        siblings: list[dict[str, object]] = []
        for name, content in self.beside.get(repo, self.files).items():
            described: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": "b" * 40}
            if name.endswith(LARGE):
                sha = hashlib.sha256(content).hexdigest()
                described["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 134}
            siblings.append(described)
        return {
            "id": repo or self.repo,
            "modelId": repo or self.repo,
            "sha": self.commit,
            "siblings": siblings,
            "private": False,
            "tags": [],
        }


class _Handler(BaseHTTPRequestHandler):
    """Answers for the hub of its server."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        del format, args

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        repo = next((name for name in self.hub.beside if name in path), self.hub.repo)
        inside = re.escape(repo)
        if re.fullmatch(rf"/api/models/{inside}(/revision/[^/]+)?", path):
            described = self.hub.info() if repo == self.hub.repo else self.hub.info(repo)
            self._send(200, json.dumps(described).encode(), with_body=with_body)
            return
        found = re.fullmatch(rf"/{inside}/resolve/([^/]+)/(.+)", path)
        if found is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)
        elif self.hub.gated and self.headers.get("authorization") != f"Bearer {self.hub.token}":
            self._send(401, b"{}", {"X-Error-Code": "GatedRepo"}, with_body=with_body)
        elif found[2] not in (files := self.hub.beside.get(repo, self.hub.files)):
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
        else:
            label = found[2] if repo == self.hub.repo else f"{repo}/{found[2]}"
            self._file(label, files[found[2]], with_body=with_body)

    def _file(self, name: str, content: bytes, *, with_body: bool) -> None:
        sha = hashlib.sha256(content).hexdigest()
        asked = re.match(r"bytes=(\d+)-", self.headers.get("range", ""))
        start = int(asked[1]) if asked else 0
        headers = {"ETag": f'"{sha}"', "X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if name.endswith(LARGE):
            headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        limit = None
        if with_body:
            self.hub.ranges.append((name, start))
            limit = self.hub.cut.pop(name, None)
            if self.hub.corrupt.get(name, 0) > 0:
                self.hub.corrupt[name] -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
        self._send(206 if start else 200, content[start:], headers, with_body=with_body, limit=limit)

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] = NONE, *, with_body: bool, limit: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body if limit is None else body[:limit])
        if limit is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True


@contextmanager
def serving(hub: Hub) -> Generator[Hub]:
    """Serve the hub; its ``endpoint`` is then what HF_ENDPOINT has to be."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
