"""A server on a real socket with little patience, and a client that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, Self

import pytest
import uvicorn

from server.app import create_app
from server.patience import Patience, PatientProtocol
from server.settings import Settings

# That something never happens is the only failure.
PATIENCE_S = 60.0
# What must happen, and what must not, however slow the machine.
SHORT_S, LONG_S = 0.15, 3600


class Site(NamedTuple):
    """A running server."""

    address: tuple[str, int]
    connections: Callable[[], int]
    loop: asyncio.AbstractEventLoop

    @contextmanager
    def stalled(self) -> Generator[None]:
        """Let the server do nothing, as on a machine that has too much to do; what comes meanwhile waits for it."""
        has_stalled, goes_on = threading.Event(), threading.Event()

        def stall() -> None:
            has_stalled.set()
            goes_on.wait()

        self.loop.call_soon_threadsafe(stall)
        has_stalled.wait()
        try:
            yield
        finally:
            goes_on.set()

    def let_alarms_go_off(self) -> None:
        """Return when every alarm has gone off that the server had set to ``SHORT_S`` or less."""
        have_gone_off = threading.Event()
        self.loop.call_soon_threadsafe(self.loop.call_later, 2 * SHORT_S, have_gone_off.set)
        have_gone_off.wait()


@contextmanager
def listening(data_dir: Path, patience: Patience, **changes: Any) -> Generator[Site]:
    """Serve in a thread, with no workers."""

    class Protocol(PatientProtocol):
        pass

    Protocol.patience = patience
    settings = Settings(data_dir=data_dir, devices=("cpu",), **changes)
    config = uvicorn.Config(
        create_app(settings, supervise=False),
        http=Protocol,
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=1,
        # Whatever ends a connection is what the test is about.
        timeout_keep_alive=LONG_S,
    )
    server = uvicorn.Server(config)
    loops: SimpleQueue[asyncio.AbstractEventLoop] = SimpleQueue()

    async def serve() -> None:
        loops.put(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        patch.setattr("pipelines.holdings.installed", lambda card: True)
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        try:
            # Connections wait in the socket until it accepts.
            yield Site(listener.getsockname()[:2], lambda: len(server.server_state.connections), loops.get())
        finally:
            server.should_exit = True
            thread.join()


class Answer(NamedTuple):
    """What came back: ``status`` 0 if nothing did."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return json.loads(self.body)["error"]["code"]


class Wire:
    """One connection."""

    def __init__(self, site: Site) -> None:
        self._socket = socket.create_connection(site.address, PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> Self:
        # Where nothing is read any more, what was answered is perhaps still to be had.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)
        return self

    def read_until(self, end: bytes) -> None:
        """Read what comes up to its first piece that ends so."""
        while not self._socket.recv(65_536).endswith(end):
            pass

    def trickle(self, piece: bytes, every_s: float = 0.02) -> Self:
        """Send a piece now and then until something comes back."""
        deadline = time.monotonic() + PATIENCE_S
        while not select.select([self._socket], [], [], every_s)[0]:
            assert time.monotonic() < deadline, "nobody minded"
            self.send(piece)
        return self

    def rest(self) -> bytes:
        """Return all that comes until the other side closes the connection."""
        received = bytearray()
        with suppress(ConnectionResetError):
            while chunk := self._socket.recv(65_536):
                received += chunk
        return bytes(received)

    def answer(self) -> Answer:
        """Return the only answer of a connection that is closed after it."""
        head, _, body = self.rest().partition(b"\r\n\r\n")
        if not head:
            return Answer(0, {}, b"")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(first.split()[1]), headers, body)


def until(reached: Callable[[], bool]) -> None:
    """Wait for another thread to bring something about."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
