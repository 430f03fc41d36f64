"""The job store against a real file: what is accepted stays, and every transition has one owner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pipelines.types import Stage
from server import database
from server.intake import QueueFull
from server.jobs import (
    PRIORITY_STEP_S,
    Job,
    JobError,
    JobId,
    JobProgress,
    JobResult,
    JobStatus,
    Waiting,
    WorkerId,
    new_job_id,
)
from server.loaded import DeviceMemory
from server.scheduler import choose
from server.settings import Settings
from server.store import JobNotFound, JobStore, Renewal
from server.tables import metadata
from server.workers import WorkerInfo

if TYPE_CHECKING:
    from tests.conftest import Clock

ANN, BOB = WorkerId("cpu-ann"), WorkerId("cpu-bob")
RESULT = JobResult({"denoise": 1.5}, 1_000_000, {"torch": "2"})
BROKEN = JobError("bad_output", "flat frames")
HALFWAY = JobProgress(Stage.DENOISE, 10, 20, 45, 3.5)

AddJob = Callable[..., JobId]
MakeJob = Callable[..., Job]


def test_a_job_comes_back_as_it_was_added(store: JobStore, make_job: MakeJob) -> None:
    job = make_job(priority=3)
    store.add(job, max_queued=1)
    assert store.get(job.id) == job


def test_an_accepted_job_is_there_for_another_process(store: JobStore, add_job: AddJob, settings: Settings) -> None:
    job_id = add_job()
    other = JobStore.open(settings.database_url)
    assert other.get(job_id).status is JobStatus.QUEUED
    other.close()


def test_a_full_queue_takes_no_more(store: JobStore, make_job: MakeJob) -> None:
    first, second, third = make_job(), make_job(), make_job()
    store.add(first, max_queued=2)
    store.add(second, max_queued=2)
    with pytest.raises(QueueFull) as refused:
        store.add(third, max_queued=2)
    assert refused.value.limit == 2
    with pytest.raises(JobNotFound):
        store.get(third.id)
    store.claim(first.id, ANN, 30)
    store.add(third, max_queued=2)


def test_an_unknown_job_is_not_found(store: JobStore) -> None:
    nobody = JobId("video_0")
    for call in (store.get, store.delete, store.request_cancel):
        with pytest.raises(JobNotFound):
            call(nobody)
    assert store.position(nobody) is None
    assert store.claim(nobody, ANN, 30) is None


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize("deletes", [False, True])
def test_pages_cover_the_list_once_in_order(
    store: JobStore, add_job: AddJob, clock: Clock, *, newest_first: bool, deletes: bool
) -> None:
    ids: list[JobId] = []
    for seconds in (0, 2e-6, 1, 1e-3, 5):  # several within a second
        clock.advance(seconds)
        ids.append(add_job())
    seen: list[JobId] = []
    more = True
    while more:
        page = store.list(after=seen[-1] if seen else None, limit=2, newest_first=newest_first)
        seen += [job.id for job in page.jobs]
        more = page.has_more
        if deletes:
            for job in page.jobs:
                store.delete(job.id)
                store.forget(job.id)
    assert seen == (ids[::-1] if newest_first else ids)


@pytest.mark.parametrize("newest_first", [True, False])
def test_jobs_of_the_same_moment_are_listed_once_each(store: JobStore, add_job: AddJob, *, newest_first: bool) -> None:
    ids = {add_job() for _ in range(5)}
    seen: list[JobId] = []
    while page := store.list(after=seen[-1] if seen else None, limit=2, newest_first=newest_first).jobs:
        seen += [job.id for job in page]
    assert len(seen) == 5
    assert set(seen) == ids


def test_a_list_goes_on_from_the_moment_of_an_id_that_nobody_has(
    store: JobStore, add_job: AddJob, clock: Clock
) -> None:
    older = add_job()
    clock.advance(1)
    never_added = new_job_id(clock())
    clock.advance(1)
    newer = add_job()
    assert [job.id for job in store.list(after=never_added, limit=9, newest_first=True).jobs] == [older]
    assert [job.id for job in store.list(after=never_added, limit=9, newest_first=False).jobs] == [newer]


def test_the_queue_is_ordered_by_priority_then_age(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    first = add_job()
    urgent = add_job(priority=1)
    clock.advance(1)
    last = add_job()
    assert [job.id for job in store.waiting()] == [urgent, first, last]
    assert [store.position(job_id) for job_id in (first, urgent, last)] == [2, 1, 3]
    assert store.waiting()[0] == Waiting(urgent, "homereel-mini", clock() - 1, 1)


def test_the_line_stands_as_the_scheduler_chooses(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    first = add_job()
    clock.advance(PRIORITY_STEP_S - 1)
    urgent = add_job(priority=1)
    clock.advance(2)
    late = add_job(priority=1)
    line = [job.id for job in store.waiting()]
    assert line == [urgent, first, late]
    assert [store.position(job_id) for job_id in line] == [1, 2, 3]
    chosen = choose(store.waiting(), ())
    assert chosen is not None
    assert chosen.id == urgent


def test_a_claimed_job_is_running(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    job_id = add_job()
    clock.advance(4)
    job = store.claim(job_id, ANN, 30)
    assert job is not None
    assert (job.status, job.worker, job.attempts, job.started_at) == (JobStatus.IN_PROGRESS, ANN, 1, clock())
    assert store.position(job_id) is None
    assert store.waiting() == ()


def test_only_one_of_many_workers_gets_a_job(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    start, winners = threading.Barrier(8), list[WorkerId]()

    def claim(name: str) -> None:
        start.wait()
        if store.claim(job_id, WorkerId(name), 30):
            winners.append(WorkerId(name))

    threads = [threading.Thread(target=claim, args=[f"cpu-{i}"]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert winners == [store.get(job_id).worker]


def test_progress_is_kept_until_the_next_one(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    assert store.renew(job_id, ANN, 30, HALFWAY) == Renewal(owned=True, cancel_requested=False)
    assert store.renew(job_id, ANN, 30, None).owned
    assert store.get(job_id).progress == HALFWAY


def test_a_renewed_lease_does_not_run_out(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    clock.advance(29)
    store.renew(job_id, ANN, 30, None)
    clock.advance(29)
    assert store.requeue_lost(max_attempts=3) == 0
    clock.advance(2)
    assert store.requeue_lost(max_attempts=3) == 1


def test_a_lost_worker_cannot_touch_a_job_that_was_given_away(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    store.renew(job_id, ANN, 30, HALFWAY)
    clock.advance(31)
    store.requeue_lost(max_attempts=3)
    again = store.claim(job_id, BOB, 30)
    assert again is not None
    assert (again.attempts, again.progress) == (2, None)
    assert not store.renew(job_id, ANN, 30, HALFWAY).owned
    assert not store.watch(job_id, ANN).owned
    assert not store.finish(job_id, ANN, RESULT)
    assert not store.fail(job_id, ANN, BROKEN)
    assert not store.release(job_id, ANN)
    assert store.get(job_id) == again


@pytest.mark.parametrize("free", ["requeue_lost", "abandon"])
def test_a_job_that_loses_every_worker_fails(store: JobStore, add_job: AddJob, clock: Clock, free: str) -> None:
    job_id = add_job()
    for attempt in (1, 2):
        claimed = store.claim(job_id, ANN, 30)
        assert claimed is not None
        assert claimed.attempts == attempt
        clock.advance(31)
        assert (store.abandon(ANN, max_attempts=2) if free == "abandon" else store.requeue_lost(max_attempts=2)) == 1
    job = store.get(job_id)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.code == "worker_lost"


def test_a_dead_workers_job_waits_again_at_once_and_only_its(store: JobStore, add_job: AddJob) -> None:
    of_ann, of_bob = add_job(), add_job()
    store.claim(of_ann, ANN, 30)
    store.claim(of_bob, BOB, 30)
    assert store.abandon(ANN, max_attempts=3) == 1
    assert store.get(of_ann).status is JobStatus.QUEUED
    assert store.get(of_bob).status is JobStatus.IN_PROGRESS


def test_a_released_job_has_not_been_attempted(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    before = store.get(job_id)
    store.claim(job_id, ANN, 30)
    store.renew(job_id, ANN, 30, HALFWAY)
    assert store.release(job_id, ANN)
    assert store.get(job_id) == before


def test_a_finished_job_has_its_result(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    job_id = add_job()
    claimed = store.claim(job_id, ANN, 30)
    assert claimed is not None
    clock.advance(9)
    assert store.finish(job_id, ANN, RESULT)
    assert store.get(job_id) == replace(claimed, status=JobStatus.COMPLETED, result=RESULT, completed_at=clock())
    assert not store.finish(job_id, ANN, RESULT)
    assert not store.fail(job_id, ANN, BROKEN)


def test_a_failed_job_says_why(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    assert store.fail(job_id, ANN, BROKEN)
    job = store.get(job_id)
    assert (job.status, job.error, job.result) == (JobStatus.FAILED, BROKEN, None)


def test_cancelling_a_waiting_job_ends_it(store: JobStore, add_job: AddJob, clock: Clock) -> None:
    job = store.request_cancel(add_job())
    assert (job.status, job.completed_at) == (JobStatus.FAILED, clock())
    assert job.error is not None
    assert job.error.code == "cancelled"
    assert store.waiting() == ()


def test_cancelling_a_running_job_tells_its_worker(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    job = store.request_cancel(job_id)
    assert (job.status, job.cancel_requested) == (JobStatus.IN_PROGRESS, True)
    asked = Renewal(owned=True, cancel_requested=True)
    assert (store.watch(job_id, ANN), store.renew(job_id, ANN, 30, None)) == (asked, asked)


def test_cancelling_a_finished_job_changes_nothing(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    store.finish(job_id, ANN, RESULT)
    before = store.get(job_id)
    assert store.request_cancel(job_id) == before


def test_a_cancelled_job_whose_worker_dies_is_not_made_again(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    store.request_cancel(job_id)
    store.abandon(ANN, max_attempts=3)
    job = store.get(job_id)
    assert job.error is not None
    assert (job.status, job.error.code) == (JobStatus.FAILED, "cancelled")


def test_a_deleted_job_is_gone_for_everybody(store: JobStore, add_job: AddJob) -> None:
    job_id, other = add_job(), add_job()
    store.delete(job_id)
    with pytest.raises(JobNotFound):
        store.get(job_id)
    with pytest.raises(JobNotFound):
        store.delete(job_id)
    assert [job.id for job in store.list(after=None, limit=9, newest_first=True).jobs] == [other]
    assert store.position(other) == 1
    assert store.counts() == {s: int(s is JobStatus.QUEUED) for s in JobStatus}
    assert store.deleted() == (job_id,)
    store.forget(job_id)
    assert store.deleted() == ()


def test_deleting_a_running_job_stops_it_before_its_files_go(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, ANN, 30)
    store.delete(job_id)
    assert store.watch(job_id, ANN) == Renewal(owned=True, cancel_requested=True)
    assert store.deleted() == ()
    store.fail(job_id, ANN, BROKEN)
    assert store.deleted() == (job_id,)


def test_only_deleted_jobs_can_be_forgotten(store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    store.forget(job_id)
    assert store.get(job_id).id == job_id


def test_silent_workers_are_not_listed(store: JobStore, clock: Clock) -> None:
    ann = WorkerInfo(ANN, "cpu", 11, None, None, clock())
    store.announce(ann)
    clock.advance(8)
    memory = DeviceMemory("H100", 80, 70)
    bob = WorkerInfo(BOB, "cuda:0", 12, "homereel-mini", JobId("video_1"), clock(), memory=memory)
    store.announce(bob)
    assert store.workers() == (ann, bob)
    clock.advance(3)
    assert store.workers() == (bob,)
    store.announce(replace(ann, seen_at=clock()))
    assert len(store.workers()) == 2
    store.dismiss(ANN)
    store.abandon(BOB, max_attempts=3)
    assert store.workers() == ()


def test_acceptance_waits_for_the_disk_and_heartbeats_do_not(settings: Settings) -> None:
    engine = database.connect(settings.database_url)
    with database.durable(engine).begin() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
    with database.hasty(engine).begin() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar_one() == 1
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    engine.dispose()


def test_migrations_lead_to_the_tables_of_the_code(settings: Settings) -> None:
    engine = database.connect(settings.database_url)
    with engine.connect() as connection:
        # The index of prompts is SQLite's own kind of table, in several parts.
        options = {"include_name": lambda name, kind, _: not str(name).startswith("prompt_search")}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    engine.dispose()


def test_opening_a_store_again_keeps_its_jobs(store: JobStore, add_job: AddJob, settings: Settings) -> None:
    job_id = add_job()
    store.close()
    again = JobStore.open(settings.database_url)
    assert again.get(job_id).id == job_id
    again.close()
