"""``homereel serve``: the HTTP server and its workers, in the foreground. Every setting is also an option."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import tempfile
import threading
from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import TYPE_CHECKING, cast

import uvicorn

from server.app import create_app
from server.auth import is_loopback
from server.cli.configuration import add_settings, opened, settings_from
from server.cli.outcome import Failure, Outcome
from server.devices import find_devices
from server.keys import KeyStore
from server.logs import configure_logging
from server.patience import PatientProtocol, allow_connections
from server.policy import BadPolicy
from server.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI


def configure(parser: ArgumentParser) -> None:
    """Declare one option per setting, described by the setting itself."""
    add_settings(parser, Settings.model_fields)
    parser.add_argument("--listen-fd", type=int, help=SUPPRESS)
    parser.add_argument("--stop-with-stdin", action="store_true", help=SUPPRESS)


def run(options: Namespace) -> int:
    """Serve until a signal comes."""
    settings = settings_from(options)
    _check_folder(settings)
    listener = listening(settings, options.listen_fd)
    # From here on the address that it became: a name may stand for any.
    settings = settings.model_copy(update={"host": listener.getsockname()[0]})
    keys = _count_keys(settings)
    if not (keys or is_loopback(settings.host) or settings.insecure_no_auth):
        listener.close()
        raise _refusal(settings.host)
    configure_logging(settings)
    try:
        app = create_app(settings)
    except BadPolicy as error:
        listener.close()
        raise Failure(f"the policy cannot be used: {error}", Outcome.MISUSED) from error
    allow_connections(PatientProtocol.patience.connections)
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    if options.stop_with_stdin:
        threading.Thread(target=_stop_at_end_of_stdin, args=[server], daemon=True).start()
    _announce(settings, listener, keys)
    server.run(sockets=[listener])
    return Outcome.DONE if server.started else Outcome.FAILED


class _Server(uvicorn.Server):
    """Uvicorn re-raises the signal that ended it, as if the process had died of it; a clean stop is a success."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop; a second interrupt does not wait for open connections."""
        del frame
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop as uvicorn does, but tell the streams of events to end, which it would only wait for."""
        cast("FastAPI", self.config.app).state.services.events.close()
        await super().shutdown(sockets)


def _check_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data_dir):
            pass
    except OSError as error:
        raise Failure(f"cannot write to the data folder {settings.data_dir}: {error.strerror}") from error


def _count_keys(settings: Settings) -> int:
    with opened(settings) as engine:
        return len(KeyStore(engine).usable())


def _refusal(host: str) -> Failure:
    return Failure(
        f"{host} can be reached by other machines and there are no keys. Make one with `homereel keys create`"
        " (in the same data folder), or add --insecure-no-auth (HOMEREEL_INSECURE_NO_AUTH=true) if whoever reaches"
        " this server may use it",
        Outcome.MISUSED,
    )


def listening(settings: Settings, inherited: int | None = None) -> socket.socket:
    """Return a listening socket, so that a busy port is known before anything else starts.

    Raises:
        Failure: The address cannot be had.
    """
    listener = _bound(settings, inherited)
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which these do not; without
    # it, the second half of every answer waits 40 ms for an acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _bound(settings: Settings, inherited: int | None) -> socket.socket:
    if inherited is not None:
        listener = socket.socket(fileno=inherited)
        listener.set_inheritable(False)
        return listener
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sentence = f"port {settings.port} is taken by another program; choose one with --port, 0 for any free one"
        else:
            sentence = f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise Failure(sentence) from error


def _announce(settings: Settings, listener: socket.socket, keys: int) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Homereel  http://{shown}:{port}/v1", flush=True)
    print(f"  studio  http://{shown}:{port}/")
    print(f"  model   {settings.preload or 'loaded with the first video'}")
    print(f"  device  {', '.join(settings.devices or find_devices())}")
    print(f"  keys    {keys or 'none: open to whoever reaches this address'}")
    print(f"  data    {settings.data_dir}", flush=True)


def _stop_at_end_of_stdin(server: uvicorn.Server) -> None:
    # The pipe closes when the parent ends, however it ends: no server is left behind.
    sys.stdin.buffer.read()
    server.should_exit = True
