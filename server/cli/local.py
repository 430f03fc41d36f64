"""The server that a command talks to: the one that runs, or one of its own for as long as it needs it."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from server.cli.client import Client
from server.cli.outcome import Failure
from server.settings import ClientSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

START_S = 60.0
# A server takes so much longer to stop than it lets a running video go on.
STOP_S = 35.0


@contextmanager
def connected() -> Generator[Client]:
    """Yield a client of the running server.

    Raises:
        Failure: None runs.
    """
    settings = ClientSettings()
    url = settings.url or f"http://127.0.0.1:{Settings().port}"
    with Client(url, settings.api_key) as client:
        if not client.alive():
            raise Failure(f"no Homereel server answers at {client.url}; start one with: homereel serve")
        yield client


@contextmanager
def connected_or_own() -> Generator[Client]:
    """Yield a client of the running server; if none runs and no address was given, of one started for this.

    Raises:
        Failure: A server was named and does not answer, or none could be started.
    """
    settings = ClientSettings()
    with Client(settings.url or f"http://127.0.0.1:{Settings().port}", settings.api_key) as client:
        if client.alive():
            yield client
            return
        if settings.url:
            raise Failure(f"no Homereel server answers at {client.url}")
    with own_server() as url, Client(url, settings.api_key) as client:
        yield client


@contextmanager
def own_server(data_dir: Path | None = None) -> Generator[str]:
    """Run a server on a free port and yield its URL; it stops with the block, or with this process.

    Jobs are stored where ``homereel serve`` stores them, so one that is cut short is taken up by the next server.
    """
    command = [sys.executable, "-P", "-m", "server.cli", "serve", "--stop-with-stdin", "--log-level", "WARNING"]
    if data_dir is not None:
        command += ["--data-dir", str(data_dir)]
    with tempfile.TemporaryFile() as log:
        # Only the child keeps the socket: if it dies, whoever waits for an answer is told at once.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            process = subprocess.Popen(  # noqa: S603 - our own program, and no word of it comes from outside
                [*command, "--listen-fd", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=[listener.fileno()],
                # Ctrl-C in the terminal is for the command, which cancels its videos while the server still answers.
                start_new_session=True,
            )
        try:
            _wait_until_alive(url, process, log)
            yield url
        finally:
            _stop(process)


def _wait_until_alive(url: str, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    # The socket listens already: the first request waits in it until the server accepts.
    deadline = time.monotonic() + START_S
    with Client(url) as client:
        while not client.alive():
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines()
                raise Failure(f"the server did not start: {lines[-1] if lines else 'it said nothing'}")
            time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(Settings().drain_s + STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
