"""Connections that a client cannot hold for ever: a deadline for the head of a request, a least rate for its body.

Uvicorn waits for either as long as it takes, and for a reader too. Whoever sends a byte now and then would keep a
connection, its file descriptor and what has arrived so far; a thousand such clients would keep everybody else out.

A body is waited for while the app asks for more of it, and once the answer is out. The rest of the time the server is
at work, however slowly, and no client is blamed for that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from server.errors import envelope

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

_Awaited: TypeAlias = Literal["head", "body"]
# What the process needs besides its connections, and for each of them: the socket, an upload, a file on its way out.
_OWN_FILES, _FILES_PER_CONNECTION = 300, 3


@dataclass(frozen=True)
class Patience:
    """How long a client may take.

    Attributes:
        head_s: From the first byte of a request (or from connecting) to the end of its head.
        idle_s: Between two pieces of a body that is waited for.
        grace_s: For a body of any size, however slow.
        bytes_per_s: How fast a body must be on average once the grace is used up. Only time in which it is waited for
            is counted.
        reader_s: For taking the next 48 kB of an answer.
        connections: How many there may be at a time; the next one is answered 503.
    """

    head_s: float = 15.0
    idle_s: float = 30.0
    grace_s: float = 30.0
    bytes_per_s: float = 4_000.0
    reader_s: float = 60.0
    connections: int = 1_000


class PatientProtocol(H11Protocol):
    """Uvicorn's HTTP/1.1, with an end to every wait and its own refusals in the envelope of all others."""

    patience = Patience()

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._awaited: _Awaited | None = None
        self._request: RequestResponseCycle | None = None
        self._received = 0
        # Seconds spent on waiting for the body, and since when this wait goes on.
        self._waited_s = 0.0
        self._since: float | None = None
        # The request whose app asks for more of the body.
        self._asking: RequestResponseCycle | None = None
        self._app, self.app = self.app, self._serve

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a new connection, if there is room for one more."""
        super().connection_made(transport)
        if len(self.connections) > self.patience.connections:
            message = f"The server has {self.patience.connections} connections open, which is its limit. Try again."
            self._refuse(503, message, "too_many_connections")
            return
        self._await()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop(self._timer)
        self._stop(self._reader_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, and see how long it took."""
        now = self.loop.time()
        if self._since is not None:
            self._waited_s += now - self._since
            self._since = now
        super().data_received(data)
        if self.cycle is not self._request:
            self._request, self._received, self._waited_s = self.cycle, 0, 0.0
        self._received += len(data)
        allowed_s = self.patience.grace_s + self._received / self.patience.bytes_per_s
        if self.conn.their_state is h11.SEND_BODY and self._waited_s > allowed_s:
            self._time_out("body")
        else:
            self._await()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of a body that nobody wanted."""
        super().on_response_complete()
        self._await()

    def pause_writing(self) -> None:
        """Note that the reader does not keep up."""
        super().pause_writing()
        self._reader_timer = self.loop.call_later(self.patience.reader_s, self._give_up_on_reader)

    def resume_writing(self) -> None:
        """Note that the reader has caught up."""
        self._stop(self._reader_timer)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        del msg
        self._refuse(400, "This is no HTTP request that can be read.", "invalid_http")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer a request. While it waits in ``receive``, the client's time runs."""
        request = self.cycle

        async def receive_in_time() -> Message:
            self._asking = request
            self._await()
            try:
                return await receive()
            finally:
                # Who listened for the end of one request may give up when the next has begun to ask.
                if self._asking is request:
                    self._asking = None
                    self._await()

        await self._app(scope, receive_in_time, send)

    def _missing(self) -> _Awaited | None:
        """Return what the client has to send next, if it is the client who is waited for."""
        if self.conn.their_state is h11.SEND_BODY:
            is_wanted = self._asking is self.cycle or self.cycle.response_complete
            return "body" if is_wanted else None
        is_begun = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is None
        return "head" if is_begun else None

    def _await(self) -> None:
        """Set the alarm for what has to come next."""
        awaited = self._missing()
        if awaited != "body":
            self._since = None
        elif self._since is None:
            self._since = self.loop.time()
        if awaited == "head" == self._awaited:
            # The alarm is set, and no byte of the head puts it off.
            return
        self._stop(self._timer)
        self._awaited = awaited
        if awaited is not None and not self.transport.is_closing():
            wait_s = self.patience.head_s if awaited == "head" else self.patience.idle_s
            self._timer = self.loop.call_later(wait_s, self._time_out, awaited)

    def _time_out(self, awaited: _Awaited) -> None:
        _log.info("connection_closed reason=slow_%s received=%d", awaited, self._received)
        if awaited == "head" and not self._received:
            # Browsers open connections in advance. They would take an answer for that to their next request.
            self.transport.close()
        else:
            self._refuse(408, f"The {awaited} of the request took too long to arrive.", "request_timeout")

    def _give_up_on_reader(self) -> None:
        _log.info("connection_closed reason=slow_reader")
        self.transport.abort()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer, if nothing has been answered yet, and close the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is not None:  # pyright: ignore[reportUnnecessaryComparison] - None before the first request
            # Whoever reads the body is told that the client has gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = json.dumps(envelope(status, message, code)).encode()
            headers = [("content-type", "application/json"), ("connection", "close"), ("retry-after", "1")]
            for event in (
                h11.Response(status_code=status, headers=[*headers, ("content-length", str(len(body)))]),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                # None once the protocol is broken beyond an answer.
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop(self, timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def allow_connections(connections: int) -> None:
    """Raise the process's own limit of open files so that so many connections fit, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OWN_FILES + _FILES_PER_CONNECTION * connections
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
