"""What stands between the database and a stream: who is told what, and how much waits for a slow reader."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import anyio
from sqlalchemy.exc import OperationalError

from server import event_schemas as wire
from server.events import HEARTBEAT, MAX_PENDING, Broker, Mailbox, Topic
from server.jobs import JobError, JobId, JobResult, Owner, WorkerId
from server.outbox import PAGE, Event, EventType, Outbox
from server.store import JobStore
from tests.server.streaming import at_step, parsed

ANN = WorkerId("ann")
ALICE, BOB = Owner("key_alice"), Owner("key_bob")
RESULT = JobResult({"denoise": 1.5}, 1_000_000)
BROKEN = JobError("bad_output", "flat frames")
PATIENCE_S = 60

AddJob = Callable[..., JobId]


def happening(seq: int, kind: EventType = EventType.VIDEO_STARTED, owner: Owner = ALICE) -> Event:
    return Event(seq, f"evt_{seq}", kind, owner, f"video_{seq}", 0.0)


def taken(mailbox: Mailbox) -> bytes | None:
    return anyio.run(mailbox.take, 0.0)


def test_a_slow_reader_gets_every_event_but_only_the_latest_state(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job(owner=ALICE)
    store.claim(job_id, ANN, 30)
    outbox = Outbox(store.engine, lambda: 0.0)
    mailbox = Mailbox(Topic(ALICE), last=0)
    for seq in (1, 2):
        mailbox.put_event(happening(seq), None)
        for step in (1, 2, 3):
            store.renew(job_id, ANN, 30, at_step(step))
            (state,) = outbox.read_running(0).states
            mailbox.put_state(wire.PROGRESS, state, wire.of_state(state, seq, 0.0))
    blocks = list(parsed((taken(mailbox) or b"").decode().split("\n")[:-1]))
    assert [(block["event"], block["id"]) for block in blocks] == [
        ("video.started", "1"),
        ("video.started", "2"),
        ("video.progress", "2"),
    ]
    assert blocks[-1]["data"]["data"]["step"] == 3
    assert taken(mailbox) == HEARTBEAT


def test_a_reader_that_is_too_slow_has_to_come_back(store: JobStore) -> None:
    mailbox = Mailbox(Topic(ALICE), last=0)
    for seq in range(1, 2 * MAX_PENDING):
        mailbox.put_event(happening(seq), None)
    blocks = list(parsed((taken(mailbox) or b"").decode().split("\n")[:-1]))
    assert [int(block["id"]) for block in blocks] == list(range(1, MAX_PENDING + 2))
    assert taken(mailbox) is None


def test_a_mailbox_takes_what_is_new_and_its_owners() -> None:
    mailbox = Mailbox(Topic(ALICE), last=5)
    for event in (happening(5), happening(6, owner=BOB), happening(7), happening(7), happening(6)):
        mailbox.put_event(event, None)
    assert (taken(mailbox) or b"").count(b"event: ") == 1
    mailbox.close()
    mailbox.put_event(happening(8), None)
    assert taken(mailbox) is None


def test_nothing_is_read_while_nobody_listens(store: JobStore, add_job: AddJob) -> None:
    add_job(owner=ALICE)
    looks: list[int] = []

    class Counted(Outbox):
        def read_running(self, seq: int, limit: int = 500) -> Any:
            looks.append(seq)
            return super().read_running(seq, limit)

    async def listen_for_a_while() -> None:
        broker = Broker(Counted(store.engine, lambda: 0.0), store, poll_s=0, heartbeat_s=0, now=lambda: 0.0)
        async with broker.serving():
            await anyio.wait_all_tasks_blocked()
            assert looks == []
            stream = broker.stream(Topic(ALICE))
            assert b"video.progress" in await anext(stream)
            while len(looks) < 3:
                assert await anext(stream)
            await stream.aclose()
            assert broker.listeners == 0
            await anyio.wait_all_tasks_blocked()
            seen = len(looks)
            for _ in range(100):
                await anyio.lowlevel.checkpoint()
            assert len(looks) == seen

    anyio.run(listen_for_a_while)


def test_a_look_that_fails_is_taken_again(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job(owner=ALICE)
    failures = iter([True, True])

    class Locked(Outbox):
        def read_running(self, seq: int, limit: int = PAGE) -> Any:
            if next(failures, False):
                raise OperationalError("SELECT", {}, Exception("database is locked"))
            return super().read_running(seq, limit)

    async def listen() -> bytes:
        broker = Broker(Locked(store.engine, lambda: 0.0), store, poll_s=0, now=lambda: 0.0)
        async with broker.serving(), aclosing(broker.stream(Topic(ALICE))) as stream:
            await anext(stream)
            store.claim(job_id, ANN, 30)
            return await anext(stream)

    assert b"video.started" in anyio.run(listen)


def test_nobody_hears_of_what_is_somebody_elses(store: JobStore, add_job: AddJob) -> None:
    mine, other = add_job(owner=ALICE), add_job(owner=BOB)

    async def listen() -> bytes:
        broker = Broker(Outbox(store.engine, lambda: 0.0), store, poll_s=0, now=lambda: 0.0)
        heard = b""
        async with broker.serving(), aclosing(broker.stream(Topic(ALICE), after=0)) as stream:
            heard += await anext(stream) + await anext(stream)
            for job_id in (other, mine):
                store.claim(job_id, ANN, 30)
                store.renew(job_id, ANN, 30, at_step(3, preview=1))
            while b"video.preview" not in heard:
                heard += await anext(stream)
        return heard

    heard = anyio.run(listen)
    assert mine.encode() in heard
    assert other.encode() not in heard
