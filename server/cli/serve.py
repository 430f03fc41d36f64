"""``homereel serve``: the HTTP server and its workers, in the foreground. Every setting is also an option."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import sys
import tempfile
import threading
from argparse import SUPPRESS, ArgumentParser, Namespace
from typing import TYPE_CHECKING

import uvicorn
from pydantic import ValidationError

from server.app import create_app
from server.cli.outcome import Failure, Outcome
from server.devices import find_devices
from server.logs import configure_logging
from server.settings import Settings

if TYPE_CHECKING:
    from types import FrameType

# What people look for under another name.
_ALSO_CALLED = {"preload": "--model"}


def configure(parser: ArgumentParser) -> None:
    """Declare one option per setting, described by the setting itself."""
    for name, field in Settings.model_fields.items():
        flags = [f"--{name.replace('_', '-')}", *filter(None, [_ALSO_CALLED.get(name)])]
        help_text = (field.description or "").replace("%", "%%")
        parser.add_argument(*flags, dest=name, default=SUPPRESS, metavar="VALUE", help=help_text)
    parser.add_argument(
        "--allow-remote", action="store_true", help="listen on an address that other machines can reach, without keys"
    )
    parser.add_argument("--listen-fd", type=int, help=SUPPRESS)
    parser.add_argument("--stop-with-stdin", action="store_true", help=SUPPRESS)


def run(options: Namespace) -> int:
    """Serve until a signal comes."""
    settings = _settings(options)
    if not _is_loopback(settings.host) and not options.allow_remote:
        raise Failure(
            f"{settings.host} can be reached by other machines and this server has no keys; "
            "listen on 127.0.0.1 behind a proxy that checks them, or add --allow-remote",
            Outcome.MISUSED,
        )
    _check_folder(settings)
    listener = listening(settings, options.listen_fd)
    configure_logging(settings)
    app = create_app(settings)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = _Server(config)
    if options.stop_with_stdin:
        threading.Thread(target=_stop_at_end_of_stdin, args=[server], daemon=True).start()
    _announce(settings, listener)
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


def _settings(options: Namespace) -> Settings:
    given = {name: getattr(options, name) for name in Settings.model_fields if hasattr(options, name)}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        raise Failure(f"--{name.replace('_', '-')}: {first['msg']}", Outcome.MISUSED) from error


def _check_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.data_dir):
            pass
    except OSError as error:
        raise Failure(f"cannot write to the data folder {settings.data_dir}: {error.strerror}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"Homereel  http://{shown}:{port}/v1", flush=True)
    print(f"  model   {settings.preload or 'loaded with the first video'}")
    print(f"  device  {', '.join(settings.devices or find_devices())}")
    print(f"  data    {settings.data_dir}", flush=True)


def _stop_at_end_of_stdin(server: uvicorn.Server) -> None:
    # The pipe closes when the parent ends, however it ends: no server is left behind.
    sys.stdin.buffer.read()
    server.should_exit = True
