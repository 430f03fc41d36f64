"""Small real web servers for tests of what the server asks others."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class WebServer:
    """A server that answers by path, and remembers what it was asked.

    Attributes:
        port: Where it listens.
        answers: What it does, by path; what is not in here is not found.
        asked: The headers of every request, in order, with the path as ``:path``.
    """

    port: int
    answers: dict[str, Answer]
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])


def sends(content: bytes, status: int = 200, **headers: str) -> Answer:
    """Return an answer that is always the same; underscores in the names of headers become dashes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


@contextmanager
def web_server(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Generator[WebServer]:
    """Serve at a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append({":path": self.path, **{name.lower(): value for name, value in self.headers.items()}})
            told.answers.get(self.path, sends(b"", 404))(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients hang up in these tests."""

    with Server((host, 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        told = WebServer(server.server_port, {})
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
