"""What happened is written down with what happened: once, in order, for whom it concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from server import database
from server.intake import QueueFull
from server.jobs import Job, JobError, JobId, JobResult, Owner, WorkerId
from server.outbox import EventType, Outbox, emit
from server.store import JobStore

if TYPE_CHECKING:
    from tests.conftest import Clock

ANN, BOB = WorkerId("cpu-ann"), WorkerId("cpu-bob")
RESULT = JobResult({"denoise": 1.5}, 1_000_000)
BROKEN = JobError("bad_output", "flat frames")
ALICE = Owner("key_alice")

AddJob = Callable[..., JobId]


@pytest.fixture
def outbox(store: JobStore, clock: Clock) -> Outbox:
    return Outbox(store.engine, clock)


def told(outbox: Outbox, job_id: JobId) -> list[str]:
    """What there is to tell of a job, without the common first word."""
    return [event.type.removeprefix("video.") for event in outbox.since(0, subject=job_id)]


def test_a_life_is_told_in_order(store: JobStore, outbox: Outbox, add_job: AddJob, clock: Clock) -> None:
    job_id = add_job(owner=ALICE)
    clock.advance(1)
    store.claim(job_id, ANN, 30)
    clock.advance(1)
    store.finish(job_id, ANN, RESULT)
    events = outbox.since(0)
    assert [event.type for event in events] == [
        "video.created",
        "video.started",
        "video.completed",
    ]
    assert {event.owner for event in events} == {ALICE}
    assert {event.subject for event in events} == {job_id}
    assert [event.created_at - events[0].created_at for event in events] == [0, 1, 2]
    assert len({event.id for event in events}) == 3
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    assert outbox.last() == events[-1].seq


def _fails(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    store.fail(job_id, ANN, BROKEN)


def _cancelled_while_it_waits(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.request_cancel(job_id)
    store.request_cancel(job_id)


def _cancelled_while_it_runs(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    store.request_cancel(job_id)
    store.fail(job_id, ANN, BROKEN)


def _given_back(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    store.release(job_id, ANN)


def _lost_once(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    clock.advance(31)
    store.requeue_lost(max_attempts=2)
    store.requeue_lost(max_attempts=2)


def _lost_for_good(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    store.abandon(ANN, max_attempts=1)


def _lost_when_nobody_wants_it(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    store.request_cancel(job_id)
    store.abandon(ANN, max_attempts=3)


def _finished_by_one_who_lost_it(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    clock.advance(31)
    store.requeue_lost(max_attempts=3)
    store.claim(job_id, BOB, 30)
    store.finish(job_id, ANN, RESULT)
    store.finish(job_id, BOB, RESULT)
    store.finish(job_id, BOB, RESULT)


def _deleted_while_it_waits(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.delete(job_id)


def _deleted_while_it_runs(store: JobStore, job_id: JobId, clock: Clock) -> None:
    store.claim(job_id, ANN, 30)
    store.delete(job_id)
    store.finish(job_id, ANN, RESULT)
    store.forget(job_id)


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        (_fails, "created started failed"),
        (_cancelled_while_it_waits, "created failed"),
        (_cancelled_while_it_runs, "created started failed"),
        (_given_back, "created started requeued"),
        (_lost_once, "created started requeued"),
        (_lost_for_good, "created started failed"),
        (_lost_when_nobody_wants_it, "created started failed"),
        (_finished_by_one_who_lost_it, "created started requeued started completed"),
        (_deleted_while_it_waits, "created deleted"),
        (_deleted_while_it_runs, "created started deleted"),
    ],
)
def test_every_transition_is_told_once(
    store: JobStore,
    outbox: Outbox,
    add_job: AddJob,
    clock: Clock,
    life: Callable[[JobStore, JobId, Clock], None],
    expected: str,
) -> None:
    job_id = add_job()
    life(store, job_id, clock)
    assert told(outbox, job_id) == expected.split()


def test_what_is_undone_is_not_told(store: JobStore, outbox: Outbox, make_job: Callable[..., Job]) -> None:
    with pytest.raises(QueueFull):
        store.add(make_job(), make_job(), max_queued=1)
    with database.durable(store.engine).connect() as db:
        transaction = db.begin()
        emit(db, EventType.BATCH_COMPLETED, "batch_1", owner=ALICE, now=0)
        transaction.rollback()
    assert outbox.since(0) == ()
    assert outbox.last() == 0


def test_events_are_found_by_what_is_asked_for(store: JobStore, outbox: Outbox, add_job: AddJob) -> None:
    hers, his = add_job(owner=ALICE), add_job(owner=Owner("key_bob"))
    store.claim(hers, ANN, 30)
    created, other, started = outbox.since(0)
    assert outbox.since(0, owner=ALICE) == (created, started)
    assert outbox.since(0, subject=his) == (other,)
    assert outbox.since(0, owner=ALICE, subject=his) == ()
    assert outbox.since(created.seq, owner=ALICE) == (started,)
    assert outbox.since(0, limit=1) == (created,)


def test_old_events_are_forgotten(store: JobStore, outbox: Outbox, add_job: AddJob, clock: Clock) -> None:
    add_job()
    clock.advance(100)
    recent = add_job()
    assert outbox.prune(keep_s=50) == 1
    assert [event.subject for event in outbox.since(0)] == [recent]
    last = outbox.last()
    clock.advance(100)
    outbox.prune(keep_s=50)
    # Numbers are not used again: a stream may be resumed from one that is gone.
    add_job()
    assert outbox.last() > last
