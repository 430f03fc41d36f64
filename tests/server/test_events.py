"""Streams of events over a real socket: what they tell, how they resume, and that they leave nothing behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from server.app import create_app
from server.cli.serve import _Server
from server.deps import Services
from server.jobs import NOBODY, JobError, JobId, JobResult, Owner, WorkerId
from server.outbox import PAGE, EventType, emit
from server.settings import Settings
from server.store import JobStore
from tests.server.streaming import at_step, parsed

ANN = WorkerId("ann")
ALICE, BOB = Owner("key_alice"), Owner("key_bob")
RESULT = JobResult({"denoise": 1.5}, 1_000_000)
BROKEN = JobError("bad_output", "flat frames")
PATIENCE_S = 60

AddJob = Callable[..., JobId]


def named(blocks: Iterable[dict[str, Any]], *names: str) -> Iterator[dict[str, Any]]:
    """Leave out what is not an event of these names, or no event at all."""
    return (block for block in blocks if block.get("event", "").removeprefix("video.") in names)


LIFE = ("created", "started", "requeued", "completed", "failed", "deleted")


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(Settings(data_dir=tmp_path / "data"), supervise=False)


@contextmanager
def served(app: FastAPI) -> Generator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=PATIENCE_S))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            assert httpx2.get(f"{url}/health", timeout=PATIENCE_S).is_success
            yield url
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with served(app) as url:
        yield f"{url}/v1"


@pytest.fixture
def store(app: FastAPI, url: str) -> JobStore:
    return services_of(app).store


def services_of(app: FastAPI) -> Services:
    return app.state.services


@contextmanager
def listening(url: str, after: str | None = None) -> Generator[Iterator[dict[str, Any]]]:
    headers = {} if after is None else {"last-event-id": after}
    with httpx2.Client(timeout=PATIENCE_S) as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        yield parsed(answer.iter_lines())


def make(store: JobStore, add_job: AddJob) -> JobId:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    store.finish(job_id, ANN, RESULT)
    return job_id


def test_a_stream_may_be_neither_stored_nor_kept_back(url: str, add_job: AddJob) -> None:
    add_job()
    with httpx2.stream("GET", f"{url}/events", timeout=PATIENCE_S) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-request-id"]
        assert "content-length" not in answer.headers


def test_the_stream_of_a_video_tells_its_life_and_ends(url: str, store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    add_job()
    with listening(f"{url}/videos/{job_id}/events") as blocks:
        created, opening, waits = next(blocks), next(blocks), next(blocks)
        assert created["event"] == "video.created"
        assert opening == {"": "homereel", "id": waits["id"], "retry": "2000"}
        assert waits["event"] == "video.progress"
        assert (waits["data"]["data"]["status"], waits["data"]["data"]["queue_position"]) == ("queued", 1)
        store.claim(job_id, ANN, 30)
        started = next(named(blocks, "started"))
        store.renew(job_id, ANN, 30, at_step(10, preview=1))
        seen = next(block for block in named(blocks, "progress") if block["data"]["data"]["step"])
        preview = next(named(blocks, "preview"))
        store.finish(job_id, ANN, RESULT)
        *_, end = blocks
    assert seen["data"] == {
        "id": None,
        "object": "event",
        "created_at": seen["data"]["created_at"],
        "type": "video.progress",
        "data": {
            "id": job_id,
            "status": "in_progress",
            "progress": 50,
            "stage": "denoise",
            "step": 10,
            "total_steps": 20,
            "eta_s": 10.0,
            "queue_position": None,
            "preview": 1,
            "error": None,
        },
    }
    assert preview["data"]["data"] == seen["data"]["data"]
    assert end["event"] == "video.completed"
    assert (end["data"]["data"]["status"], end["data"]["data"]["progress"]) == ("completed", 100)
    assert end["data"]["id"].startswith("evt_")
    ids = [int(block["id"]) for block in (created, waits, started, seen, preview, end)]
    assert ids == sorted(ids)


def test_the_stream_of_a_finished_video_tells_its_life_again(url: str, store: JobStore, add_job: AddJob) -> None:
    done, broken = make(store, add_job), add_job()
    store.claim(broken, ANN, 30)
    store.fail(broken, ANN, BROKEN)
    with listening(f"{url}/videos/{done}/events") as blocks:
        assert [block["event"] for block in blocks] == ["video.created", "video.started", "video.completed"]
    with listening(f"{url}/videos/{broken}/events") as blocks:
        *_, end = blocks
    assert (end["event"], end["data"]["data"]["status"]) == ("video.failed", "failed")
    assert end["data"]["data"]["error"] == {"code": "bad_output", "message": "flat frames"}


def test_the_end_is_told_although_its_event_is_forgotten(
    url: str, app: FastAPI, store: JobStore, add_job: AddJob
) -> None:
    done = make(store, add_job)
    services_of(app).outbox.prune(keep_s=-1)
    with listening(f"{url}/videos/{done}/events") as blocks:
        (end,) = blocks
    assert (end["event"], end["data"]["id"], end["data"]["data"]["progress"]) == ("video.completed", None, 100)


def test_who_knows_the_end_is_told_not_to_come_back(url: str, store: JobStore, add_job: AddJob) -> None:
    done = make(store, add_job)
    with listening(f"{url}/videos/{done}/events") as blocks:
        *before, end = blocks
    again = {"last-event-id": end["id"]}
    assert httpx2.get(f"{url}/videos/{done}/events", headers=again, timeout=PATIENCE_S).status_code == 204
    with listening(f"{url}/videos/{done}/events", after=before[0]["id"]) as blocks:
        assert [block["event"] for block in blocks] == ["video.started", "video.completed"]


def test_a_stream_is_resumed_without_a_gap(url: str, store: JobStore, add_job: AddJob) -> None:
    first = add_job()
    with listening(f"{url}/events") as blocks:
        opening, state = next(blocks), next(blocks)
        assert (state["event"], state["data"]["data"]["id"]) == ("video.progress", first)
        store.claim(first, ANN, 30)
        last = next(named(blocks, "started"))["id"]
    assert int(last) > int(opening["id"])
    # Nobody listens.
    store.finish(first, ANN, RESULT)
    second = add_job()
    with listening(f"{url}/events", after=last) as blocks:
        told = named(blocks, *LIFE)
        assert [(b["event"], b["data"]["data"]["id"]) for b in (next(told), next(told))] == [
            ("video.completed", first),
            ("video.created", second),
        ]
        store.request_cancel(second)
        assert next(told)["event"] == "video.failed"
        store.delete(second)
        deleted = next(told)
        assert (deleted["event"], deleted["data"]["data"]["status"]) == ("video.deleted", None)


def test_everything_is_told_however_much_it_is(url: str, store: JobStore) -> None:
    count = PAGE + 100
    with store.engine.begin() as db:
        for number in range(count):
            emit(db, EventType.VIDEO_REQUEUED, f"video_{number}", owner=NOBODY, now=0)
    with listening(f"{url}/events", after="0") as blocks:
        told = named(blocks, *LIFE)
        assert [next(told)["data"]["data"]["id"] for _ in range(count)] == [f"video_{n}" for n in range(count)]


def test_the_end_of_a_deleted_video_is_its_deletion(url: str, store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    with listening(f"{url}/videos/{job_id}/events") as blocks:
        next(blocks)
        store.delete(job_id)
        *_, end = blocks
    assert end["event"] == "video.deleted"
    assert httpx2.get(f"{url}/videos/{job_id}/events", timeout=PATIENCE_S).status_code == 404


def test_a_place_in_the_queue_is_followed(url: str, store: JobStore, add_job: AddJob) -> None:
    first, second = add_job(), add_job()
    with listening(f"{url}/videos/{second}/events") as blocks:
        states = named(blocks, "progress")
        assert next(states)["data"]["data"]["queue_position"] == 2
        store.claim(first, ANN, 30)
        while (position := next(states)["data"]["data"]["queue_position"]) == 2:
            pass
        assert position == 1


@pytest.mark.parametrize("wrong", ["x", "-1", "1.5", "9" * 19, "٣"])
def test_what_is_no_id_of_an_event_is_refused(url: str, add_job: AddJob, wrong: str) -> None:
    job_id = add_job()
    for path in ("events", f"videos/{job_id}/events"):
        answer = httpx2.get(f"{url}/{path}", headers={b"last-event-id": wrong.encode()}, timeout=PATIENCE_S)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "Last-Event-ID"


def test_a_video_that_is_not_there_has_no_stream(url: str) -> None:
    for name in ("video_0", "video_" + "0" * 48):
        answer = httpx2.get(f"{url}/videos/{name}/events", timeout=PATIENCE_S)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "video_not_found")


def test_who_leaves_is_forgotten(url: str, app: FastAPI, add_job: AddJob) -> None:
    add_job()
    broker = services_of(app).events
    with listening(f"{url}/events") as first:
        next(first)
        with listening(f"{url}/events") as second:
            next(second)
            assert broker.listeners == 2
        until(lambda: broker.listeners == 1)
    until(lambda: broker.listeners == 0)


def until(reached: Callable[[], bool]) -> None:
    pause = threading.Event()
    while not reached():
        pause.wait(0.01)


def test_many_who_listen_hold_no_threads(url: str, app: FastAPI, store: JobStore, add_job: AddJob) -> None:
    job_id, many = add_job(), 200
    broker = services_of(app).events
    with ExitStack() as stack:
        address = ("127.0.0.1", httpx2.URL(url).port or 0)
        sockets = [stack.enter_context(socket.create_connection(address, PATIENCE_S)) for _ in range(many)]
        for each in sockets:
            each.sendall(b"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        until(lambda: broker.listeners == many)
        # Those of the pool in which requests begin, of which there are at most 40.
        assert threading.active_count() < many / 2
        store.claim(job_id, ANN, 30)
        for each in sockets:
            heard = b""
            while b"video.started" not in heard:
                heard += each.recv(65536)
    until(lambda: broker.listeners == 0)


def test_open_streams_do_not_hold_up_the_end_of_the_server(app: FastAPI, tmp_path: Path) -> None:
    with served(app) as url:
        stream = httpx2.Client(timeout=PATIENCE_S).stream("GET", f"{url}/v1/events")
        answer = stream.__enter__()
        blocks = parsed(answer.iter_lines())
        next(blocks)
    # Reached although uvicorn would wait PATIENCE_S; and the stream has ended as it should, not been cut.
    assert list(blocks) == []
    stream.__exit__(None, None, None)
