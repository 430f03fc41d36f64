"""A lease is kept up, progress is written sparingly, and the end of the work is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import OperationalError

from pipelines.errors import Cancelled
from pipelines.types import Stage
from server.jobs import JobId, JobProgress, WorkerId
from server.lease import Ending, Lease
from server.store import JobStore, Renewal

if TYPE_CHECKING:
    from tests.conftest import Clock

ANN = WorkerId("cpu-ann")


def at(step: int, stage: Stage = Stage.DENOISE) -> JobProgress:
    return JobProgress(stage, step, 20, step)


@pytest.fixture
def job_id(store: JobStore, add_job: Callable[..., JobId]) -> JobId:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    return job_id


@pytest.fixture
def lease(store: JobStore, job_id: JobId, clock: Clock) -> Lease:
    return Lease(store, job_id, ANN, lease_s=30, now=clock)


def test_progress_is_written_at_most_once_a_second_within_a_stage(
    lease: Lease, store: JobStore, job_id: JobId, clock: Clock
) -> None:
    written: list[JobProgress | None] = []
    for step in range(1, 9):
        lease.note(at(step))
        lease.beat()
        written.append(store.get(job_id).progress)
        clock.advance(0.4)
    assert written == [at(1), at(1), at(1), at(4), at(4), at(4), at(7), at(7)]


def test_a_new_stage_is_written_at_once(lease: Lease, store: JobStore, job_id: JobId) -> None:
    for progress in (at(1), at(2), at(0, Stage.DECODE)):
        lease.note(progress)
        lease.beat()
    assert store.get(job_id).progress == at(0, Stage.DECODE)


def test_a_stage_that_says_nothing_keeps_its_lease(lease: Lease, store: JobStore, job_id: JobId, clock: Clock) -> None:
    for _ in range(100):
        clock.advance(1)
        lease.beat()
        assert store.requeue_lost(max_attempts=3) == 0
    assert store.get(job_id).attempts == 1


def test_a_cancellation_stops_the_next_step(lease: Lease, store: JobStore, job_id: JobId) -> None:
    lease.note(at(1))
    store.request_cancel(job_id)
    lease.beat()
    assert lease.ending is Ending.CANCELLED
    with pytest.raises(Cancelled):
        lease.note(at(2))


def test_a_job_given_away_is_lost(lease: Lease, store: JobStore, job_id: JobId) -> None:
    store.abandon(ANN, max_attempts=3)
    lease.beat()
    assert lease.ending is Ending.LOST


def test_a_confirmed_lease_is_whole(lease: Lease, store: JobStore, job_id: JobId, clock: Clock) -> None:
    clock.advance(29)
    lease.confirm()
    clock.advance(29)
    assert store.requeue_lost(max_attempts=3) == 0


def test_a_lost_lease_is_not_confirmed(lease: Lease, store: JobStore, clock: Clock) -> None:
    clock.advance(31)
    store.requeue_lost(max_attempts=3)
    with pytest.raises(Cancelled):
        lease.confirm()


def test_a_database_that_fails_is_forgiven_for_one_lease(
    lease: Lease, store: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Renewal:
        raise OperationalError("UPDATE", {}, Exception("disk I/O error"))

    monkeypatch.setattr(store, "renew", fail)
    monkeypatch.setattr(store, "watch", fail)
    clock.advance(29)
    lease.beat()
    assert lease.ending is None
    clock.advance(2)
    lease.beat()
    assert lease.ending is Ending.LOST


def test_the_thread_writes_progress_by_itself(store: JobStore, job_id: JobId) -> None:
    with Lease(store, job_id, ANN, lease_s=30) as lease:
        lease.note(at(3))
        while store.get(job_id).progress is None:
            pass
    assert store.get(job_id).progress == at(3)
