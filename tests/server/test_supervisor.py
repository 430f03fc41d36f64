"""Workers are replaced with patience, their jobs freed at once, and deleted jobs swept up."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from server import supervisor
from server.assets import AssetStore, Variant
from server.jobs import JobId, JobResult, JobStatus, WorkerId, new_job_id
from server.settings import Settings, WorkerOrder
from server.store import JobStore
from server.supervisor import DEAD_WORKER_S, KILL_AFTER_S, LONGEST_PAUSE_S, PROVEN_S, STRAY_S, Crew, Supervisor
from server.workers import WorkerInfo

if TYPE_CHECKING:
    from tests.conftest import Clock

AddJob = Callable[..., JobId]


@dataclass
class FakeProcess:
    """A process that ends when the test says so, or when it is told to."""

    order: WorkerOrder
    code: int | None = None
    heard: list[str] = field(default_factory=list[str])

    @property
    def pid(self) -> int:
        return 1

    @property
    def worker(self) -> WorkerId:
        return WorkerId(self.order.worker)

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.heard.append("terminate")

    def kill(self) -> None:
        self.heard.append("kill")
        self.code = -9


@pytest.fixture
def processes() -> list[FakeProcess]:
    return []


@pytest.fixture
def crew(settings: Settings, store: JobStore, clock: Clock, processes: list[FakeProcess]) -> Crew:
    def spawn(order: WorkerOrder) -> FakeProcess:
        processes.append(FakeProcess(order))
        return processes[-1]

    return Crew(settings, ("cuda:0", "cuda:1"), store, spawn=spawn, now=clock)


def test_every_device_gets_one_worker(crew: Crew, processes: list[FakeProcess]) -> None:
    crew.tick()
    crew.tick()
    assert [process.order.device for process in processes] == ["cuda:0", "cuda:1"]
    assert len({process.worker for process in processes}) == 2


def test_a_dead_worker_frees_its_job_at_once(
    crew: Crew, processes: list[FakeProcess], store: JobStore, add_job: AddJob
) -> None:
    crew.tick()
    first, second = add_job(), add_job()
    store.claim(first, processes[0].worker, 30)
    store.claim(second, processes[1].worker, 30)
    processes[0].code = -9
    crew.tick()
    assert store.get(first).status is JobStatus.QUEUED
    assert store.get(second).status is JobStatus.IN_PROGRESS


def pauses(crew: Crew, processes: list[FakeProcess], clock: Clock, count: int) -> list[float]:
    """Let the worker of the first device die ``count`` times; return how long its place stayed empty."""
    empty: list[float] = []
    for _ in range(count):
        known = len(processes)
        next(p for p in reversed(processes) if p.order.device == "cuda:0").code = 1
        died = clock()
        while len(processes) == known:
            crew.tick()
            clock.advance(0.25)
        empty.append(clock() - 0.25 - died)
    return empty


def test_a_worker_that_keeps_dying_comes_back_ever_more_slowly(
    crew: Crew, processes: list[FakeProcess], clock: Clock
) -> None:
    crew.tick()
    seen = pauses(crew, processes, clock, 10)
    assert seen[:4] == [0.5, 1.0, 2.0, 4.0]
    assert seen == sorted(seen)
    assert seen[-1] == LONGEST_PAUSE_S


def test_a_worker_that_has_made_a_video_was_not_started_in_vain(
    crew: Crew, processes: list[FakeProcess], clock: Clock, store: JobStore, add_job: AddJob
) -> None:
    crew.tick()
    pauses(crew, processes, clock, 5)
    store.claim(made := add_job(), processes[-1].worker, 30)
    store.finish(made, processes[-1].worker, JobResult({}, 1))
    assert pauses(crew, processes, clock, 2) == [0.5, 1.0]


def test_a_worker_that_stayed_up_comes_back_quickly(crew: Crew, processes: list[FakeProcess], clock: Clock) -> None:
    crew.tick()
    pauses(crew, processes, clock, 5)
    clock.advance(PROVEN_S)
    assert pauses(crew, processes, clock, 1) == [0.5]


def test_a_silent_worker_is_killed_and_a_talking_one_is_not(
    crew: Crew, processes: list[FakeProcess], store: JobStore, clock: Clock, settings: Settings
) -> None:
    crew.tick()
    clock.advance(settings.worker_silence_s + 1)
    store.announce(WorkerInfo(processes[1].worker, "cuda:1", 1, None, None, clock()))
    crew.tick()
    assert [process.heard for process in processes] == [["kill"], []]


def test_a_young_worker_may_be_silent(
    crew: Crew, processes: list[FakeProcess], clock: Clock, settings: Settings
) -> None:
    crew.tick()
    clock.advance(settings.worker_silence_s - 1)
    crew.tick()
    assert [process.heard for process in processes] == [[], []]


def test_draining_asks_and_killing_does_not(crew: Crew, processes: list[FakeProcess]) -> None:
    crew.tick()
    crew.drain()
    processes[0].code = 0
    assert not crew.is_gone()
    crew.kill()
    assert crew.is_gone()
    assert [process.heard for process in processes] == [["terminate"], ["terminate", "kill"]]


@pytest.mark.parametrize("drain_s", [0.0, 200.0])
def test_workers_have_all_their_drain_time_and_a_little_more(
    crew: Crew,
    processes: list[FakeProcess],
    clock: Clock,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    drain_s: float,
) -> None:
    crew.tick()
    processes[0].code = 0
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=clock, sleep=clock.advance))
    began = clock()
    Supervisor(settings.model_copy(update={"drain_s": drain_s}))._end(crew)
    assert processes[1].heard == ["terminate", "kill"]
    assert drain_s + KILL_AFTER_S < clock() - began < drain_s + KILL_AFTER_S + 1


def test_jobs_of_lost_machines_are_freed(crew: Crew, store: JobStore, clock: Clock, add_job: AddJob) -> None:
    job_id = add_job()
    store.claim(job_id, WorkerId("elsewhere"), 30)
    crew.tick()
    assert store.get(job_id).status is JobStatus.IN_PROGRESS
    clock.advance(31)
    crew.tick()
    assert store.get(job_id).status is JobStatus.QUEUED


def test_deleted_jobs_lose_their_files_and_then_their_row(
    crew: Crew, store: JobStore, assets: AssetStore, add_job: AddJob, tmp_path: Path
) -> None:
    source = tmp_path / "clip"
    source.write_bytes(b"clip")
    gone, kept = add_job(), add_job()
    for job_id in (gone, kept):
        assets.put(job_id, Variant.VIDEO, source)
    store.delete(gone)
    crew.tick()
    assert store.deleted() == ()
    assert [path.parent.name for path in assets.path(kept, Variant.VIDEO).parents[1].rglob("*.mp4")] == [kept]


def test_files_that_no_row_leads_to_are_swept_up_once_they_are_old(
    crew: Crew, store: JobStore, assets: AssetStore, clock: Clock, add_job: AddJob, tmp_path: Path
) -> None:
    source = tmp_path / "clip"
    source.write_bytes(b"clip")
    live, deleted, finished, stray, fresh = add_job(), add_job(), *(new_job_id(clock()) for _ in range(3))
    store.delete(deleted)
    inputs = {job_id: assets.save_input(job_id, "first.png", [b"png"]) for job_id in (live, deleted, finished, stray)}
    assets.put(finished, Variant.VIDEO, source)
    foreign = assets.input_path(JobId("somebody-elses"), "note")
    foreign.parent.mkdir(parents=True)
    for path in inputs[stray].parents[2].rglob("*"):
        os.utime(path, (clock(), clock()))
    clock.advance(STRAY_S + 1)
    young = assets.save_input(fresh, "first.png", [b"png"])
    os.utime(young, (clock(), clock()))
    crew.clean(clock() - 2)
    assert inputs[stray].exists()
    crew.clean(clock())
    assert not inputs[stray].parents[1].exists()
    assert not inputs[finished].exists()
    assert assets.path(finished, Variant.VIDEO).read_bytes() == b"clip"
    assert all(path.exists() for path in (inputs[live], inputs[deleted], young, foreign.parent))


def test_workers_that_died_with_their_machine_are_forgotten_after_a_day(
    crew: Crew, store: JobStore, clock: Clock
) -> None:
    store.announce(WorkerInfo(WorkerId("dead"), "cpu", 1, None, None, clock()))
    clock.advance(DEAD_WORKER_S)
    store.announce(WorkerInfo(WorkerId("living"), "cpu", 2, None, None, clock()))
    crew.clean(clock())
    assert {worker.id for worker in store.workers(fresh_s=2 * DEAD_WORKER_S)} == {"dead", "living"}
    clock.advance(1)
    crew.clean(clock())
    assert [worker.id for worker in store.workers(fresh_s=2 * DEAD_WORKER_S)] == ["living"]


def test_a_deleted_job_that_runs_keeps_its_files_until_its_worker_lets_go(
    crew: Crew, store: JobStore, add_job: AddJob, processes: list[FakeProcess], clock: Clock
) -> None:
    crew.tick()
    job_id = add_job()
    store.claim(job_id, processes[0].worker, 30)
    store.delete(job_id)
    clock.advance(2)
    crew.tick()
    assert store.watch(job_id, processes[0].worker).cancel_requested
    processes[0].code = 1
    crew.tick()
    clock.advance(2)
    crew.tick()
    assert not store.watch(job_id, processes[0].worker).owned
    assert store.deleted() == ()
