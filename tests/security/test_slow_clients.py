"""Clients that hold a connection as long as they can, or that send what is no HTTP. Real sockets, little patience."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest
from starlette.requests import Request
from starlette.types import Message

from server.errors import ServerBusy
from server.files import FileStore, new_file
from server.forms import Landing, open_body
from server.jobs import NOBODY
from server.keys import ApiKey, KeyStore
from server.patience import Patience, allow_connections
from server.store import JobStore
from tests.security.sockets import LONG_S, PATIENCE_S, SHORT_S, Site, Wire, listening, until

HOST = b"Host: 127.0.0.1\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
LONG = Patience(head_s=LONG_S, idle_s=LONG_S, grace_s=LONG_S, reader_s=LONG_S)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that waits as long as it takes."""
    with listening(tmp_path_factory.mktemp("site"), LONG, max_upload_mb=1) as site:
        yield site


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that waits a moment for a head, and for a body that does not move on."""
    patience = Patience(head_s=SHORT_S, idle_s=SHORT_S, grace_s=LONG_S, reader_s=LONG_S)
    with listening(tmp_path_factory.mktemp("hasty"), patience) as site:
        yield site


def begun(site: Site, sent: bytes) -> Wire:
    """Return a connection of which the server hears when all this has been sent, however slow the client."""
    with site.stalled():
        return Wire(site).send(sent)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 100_000,
        b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Content-Length: -1\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: gzip\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:40]),
)
def test_what_is_no_http_is_refused_in_the_envelope_and_cut_off(site: Site, sent: bytes) -> None:
    with Wire(site) as wire:
        answer = wire.send(sent).answer()
    assert (answer.status, answer.code) in {(400, "invalid_http"), (501, "invalid_http")}
    assert answer.headers["connection"] == "close"


def test_two_lengths_of_a_body_smuggle_no_second_request(site: Site) -> None:
    smuggled = b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
    head = b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Wire(site) as wire:
        received = wire.send(head + b"0\r\n\r\n" + smuggled).rest()
    # Chunked counts, as the standard says: what follows is the client's own next request, and nothing hides in a body.
    assert received.count(b"HTTP/1.1 ") in {1, 2}
    assert received.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\n",
        b"P",
        b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Content-Length: 99\r\n\r\n{",
        b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
    ids=["head", "one byte", "body", "chunk"],
)
def test_whoever_stops_in_the_middle_is_told_and_cut_off(hasty: Site, sent: bytes) -> None:
    with begun(hasty, sent) as wire:
        answer = wire.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")


def test_a_connection_without_a_word_is_closed_without_a_word(hasty: Site) -> None:
    with Wire(hasty) as wire:
        assert wire.answer().status == 0


def test_a_head_that_trickles_is_cut_off(hasty: Site) -> None:
    with begun(hasty, b"GET /health HTTP/1.1\r\nX: ") as wire:
        answer = wire.trickle(b"a").answer()
    assert (answer.status, answer.code) == (408, "request_timeout")


def test_a_second_head_that_trickles_is_cut_off_too(hasty: Site) -> None:
    with begun(hasty, b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n") as wire:
        wire.read_until(b"}")
        answer = wire.send(b"GET ").trickle(b"a").answer()
    assert (answer.status, answer.code) == (408, "request_timeout")


@pytest.mark.parametrize("coding", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_trickles_is_cut_off(tmp_path: Path, coding: bytes) -> None:
    piece = b"1\r\na\r\n" if b"chunked" in coding else b"a"
    patience = Patience(head_s=LONG_S, idle_s=LONG_S, grace_s=SHORT_S, bytes_per_s=1e9)
    with listening(tmp_path, patience) as site, Wire(site) as wire:
        wire.send(b"POST /v1/videos HTTP/1.1\r\n" + JSON + coding + b"\r\n\r\n")
        answer = wire.trickle(piece).answer()
    assert (answer.status, answer.code) == (408, "request_timeout")


def test_a_body_that_is_slow_and_steady_is_taken(tmp_path: Path) -> None:
    patience = Patience(head_s=LONG_S, idle_s=LONG_S, grace_s=0.0, bytes_per_s=1.0)
    with listening(tmp_path, patience) as site, Wire(site) as wire:
        wire.send(b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Connection: close\r\nContent-Length: 31\r\n\r\n")
        for piece in (b'{"prompt": ', b'"a red ball",', b'"n": 1}'):
            wire.send(piece)
        answer = wire.answer()
    assert (answer.status, answer.code) == (400, "unknown_parameter")


class SlowKeys:
    """Keys that are looked up for longer than a client may hesitate, and not before ``may_end``."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        look = KeyStore.usable

        def look_slowly(store: KeyStore) -> Mapping[str, ApiKey]:
            self.has_begun.set()
            self.may_end.wait()
            site.let_alarms_go_off()
            return look(store)

        monkeypatch.setattr(KeyStore, "usable", look_slowly)


def test_a_body_that_nobody_wants_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore.open(f"sqlite:///{tmp_path / 'homereel.sqlite3'}")
    KeyStore(store.engine).create("ann")
    store.close()
    with listening(tmp_path, Patience(head_s=LONG_S, idle_s=SHORT_S, grace_s=LONG_S)) as site, Wire(site) as wire:
        SlowKeys(site, monkeypatch).may_end.set()
        # Answered at the head, however long that takes; the rest never comes, and then the connection goes.
        answer = wire.send(b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Content-Length: 99\r\n\r\n{").answer()
    assert (answer.status, answer.code) == (401, "invalid_api_key")


def test_the_time_of_the_server_is_not_the_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A body that is waited for at all is late.
    patience = Patience(head_s=LONG_S, idle_s=SHORT_S, grace_s=0.0, bytes_per_s=1e9)
    with listening(tmp_path, patience) as site, Wire(site) as wire:
        keys = SlowKeys(site, monkeypatch)
        wire.send(b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Connection: close\r\nContent-Length: 31\r\n\r\n")
        assert keys.has_begun.wait(PATIENCE_S)
        wire.send(b'{"prompt": "a red ball",')
        site.let_alarms_go_off()
        wire.send(b'"n": 1}')
        keys.may_end.set()
        answer = wire.answer()
    assert (answer.status, answer.code) == (400, "unknown_parameter")


def test_an_endless_body_is_cut_off_at_the_limit(site: Site) -> None:
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    with Wire(site) as wire:
        wire.send(b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\n")
        answer = wire.trickle(chunk, every_s=0).answer()
    assert (answer.status, answer.code) == (413, "payload_too_large")
    assert answer.headers["connection"] == "close"


def test_whoever_takes_no_answer_is_cut_off(tmp_path: Path) -> None:
    store = JobStore.open(f"sqlite:///{tmp_path / 'homereel.sqlite3'}")
    large = new_file(NOBODY, "user_data", "x", 1.8e9)
    folder = tmp_path / "files"
    folder.mkdir()
    # More than the buffers of both sides hold.
    content = bytes(32_000_000)
    FileStore(store.engine, folder, lambda: 1.8e9).add(large, [content], max_total_bytes=10**9)
    store.close()
    with listening(tmp_path, Patience(head_s=LONG_S, reader_s=SHORT_S)) as site, Wire(site) as wire:
        until(lambda: site.connections() == 1)
        wire.send(b"GET /v1/files/" + large.id.encode() + b"/content HTTP/1.1\r\n" + HOST + b"\r\n")
        until(lambda: site.connections() == 0)
        assert len(wire.rest()) < len(content)


def test_many_slow_clients_keep_nobody_out(tmp_path: Path) -> None:
    with listening(tmp_path, LONG) as site, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Wire(site)).send(b"POST /v1/videos HTTP/1.1\r\n" + JSON + b"Content-Length: 9\r\n\r\n")
        until(lambda: site.connections() == 100)
        with Wire(site) as wire:
            wire.send(b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
            assert wire.answer().status == 200


def test_one_connection_too_many_is_told_so(tmp_path: Path) -> None:
    with listening(tmp_path, Patience(head_s=LONG_S, connections=3)) as site, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(Wire(site))
        until(lambda: site.connections() == 3)
        with Wire(site) as wire:
            answer = wire.answer()
        assert (answer.status, answer.code) == (503, "too_many_connections")
        assert answer.headers["retry-after"]
        stack.close()
        until(lambda: site.connections() == 0)
        with Wire(site) as wire:
            assert wire.send(b"GET /health HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n").answer().status == 200


def test_as_many_files_may_be_open_as_connections_need() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        allow_connections(before[0])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert hard == before[1]
        assert soft == before[1] or soft > 3 * before[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_uploads_that_arrive_at_the_same_time_share_the_room() -> None:
    landing = Landing(max_bytes=1000)

    def request(size: int, goes_on: anyio.Event) -> Request:
        pieces = [b"x" * size, b""]

        async def receive() -> Message:
            if len(pieces) == 1:
                await goes_on.wait()
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        return Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)

    async def read(size: int, goes_on: anyio.Event) -> None:
        async with open_body(request(size, goes_on), 10_000, landing):
            pass

    async def scenario() -> None:
        goes_on, at_once = anyio.Event(), anyio.Event()
        at_once.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, 900, goes_on)
            await anyio.wait_all_tasks_blocked()
            await read(100, at_once)
            with pytest.raises(ServerBusy) as busy:
                await read(101, at_once)
            assert (busy.value.status, busy.value.headers["connection"]) == (503, "close")
            goes_on.set()
        # Alone, one may be as large as its own limit.
        await read(5000, at_once)

    anyio.run(scenario)
