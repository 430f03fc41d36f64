"""A video that is being made gives way to its operator, and to one that is more urgent; nothing of it is made twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pipelines.types import GenerationRequest, Given, OnStep, Step
from server.control import NOTICED_S, Control
from server.jobs import PRIORITY_STEP_S, JobId, JobStatus, WorkerId
from server.lease import Lease
from server.settings import Settings
from server.store import JobStore
from server.worker import Drain, Place, Worker
from tests.conftest import FakePipeline, fake_models

if TYPE_CHECKING:
    from tests.conftest import Clock

AddJob = Callable[..., JobId]
STEPS = 8


class Resumable(FakePipeline):
    """Goes on where it was left; remembers the seed and number of every step that it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[int, int]] = []

    def denoise(self, request: GenerationRequest, conditioning: str, given: Given, on_step: OnStep) -> int:
        first = int(given.state or b"0")
        for step in range(first + 1, STEPS + 1):
            self.made.append((request.seed, step))
            self.on_step(step)
            on_step(Step(step, STEPS, lambda: None, lambda step=step: lambda: str(step).encode()))
        return request.seed


@pytest.fixture
def pipeline() -> Resumable:
    return Resumable()


@pytest.fixture
def control(store: JobStore, clock: Clock) -> Control:
    return Control(store.engine, clock)


@pytest.fixture
def worker(settings: Settings, store: JobStore, pipeline: Resumable, clock: Clock, control: Control) -> Worker:
    models = fake_models(settings, lambda: pipeline)
    worker = Worker(Place(WorkerId("ann"), "cpu", 1), settings, store, drain=Drain(clock), models=models)
    worker._control = control
    return worker


@pytest.fixture
def running(store: JobStore, add_job: AddJob) -> JobId:
    job_id = add_job()
    store.claim(job_id, WorkerId("ann"), 30)
    return job_id


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step look at the database, and not a thread that may be late."""
    note = Lease.note

    def look(self: Lease, progress: object) -> None:
        self.beat()
        note(self, progress)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(Lease, "note", look)
    monkeypatch.setattr(Lease, "_keep", lambda self: None)


@pytest.mark.usefixtures("beating")
def test_a_paused_video_goes_on_where_it_was_left(
    worker: Worker, store: JobStore, pipeline: Resumable, control: Control, add_job: AddJob
) -> None:
    job_id = add_job()
    pipeline.on_step = lambda step: control.pause("a game") if step == 3 else None
    worker.run_one()
    job = store.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)
    assert pipeline.made[-1][1] < STEPS

    # Nothing is begun, everybody is told why, and the device is free.
    assert worker.run_one() is False
    assert worker.info().paused == "The queue is paused by its operator: a game"
    assert worker.info().card is None
    assert pipeline.is_closed

    pipeline.on_step = lambda step: None
    assert control.resume() is True
    assert control.resume() is False
    worker.run_one()
    assert store.get(job_id).status is JobStatus.COMPLETED
    assert [step for _, step in pipeline.made] == list(range(1, STEPS + 1))


@pytest.mark.usefixtures("beating")
def test_an_urgent_video_is_made_first_and_no_step_is_made_twice(
    worker: Worker,
    store: JobStore,
    pipeline: Resumable,
    clock: Clock,
    add_job: AddJob,
    make_request: Callable[..., GenerationRequest],
) -> None:
    long = add_job(request=make_request(seed=1))
    urgent: list[JobId] = []

    def arrive(step: int) -> None:
        if step == 2 and not urgent:
            clock.advance(1)
            urgent.append(add_job(request=make_request(seed=2), priority=1))
            clock.advance(NOTICED_S + 1)

    pipeline.on_step = arrive
    for _ in range(3):
        worker.run_one()
    assert store.get(urgent[0]).status is JobStatus.COMPLETED
    assert store.get(long).status is JobStatus.COMPLETED
    assert store.get(long).attempts == 1
    order = [seed for seed, _ in pipeline.made]
    assert order == [1] * order.index(2) + [2] * STEPS + [1] * (STEPS - order.index(2))
    assert order.index(2) < STEPS
    assert sorted(pipeline.made) == [(seed, step) for seed in (1, 2) for step in range(1, STEPS + 1)]


@pytest.mark.parametrize(
    "case",
    [
        (1, NOTICED_S + 1, True),
        # An idle worker may take it yet.
        (1, NOTICED_S - 1, False),
        (0, NOTICED_S + 1, False),
        (-1, NOTICED_S + 1, False),
    ],
)
def test_who_gives_way_to_whom(
    control: Control, clock: Clock, running: JobId, add_job: AddJob, case: tuple[int, float, bool]
) -> None:
    priority, waited_s, gives_way = case
    clock.advance(1)
    add_job(priority=priority)
    clock.advance(waited_s)
    assert control.gives_way(running) is gives_way


def test_what_has_waited_long_enough_gives_way_to_nobody(
    control: Control, clock: Clock, running: JobId, add_job: AddJob
) -> None:
    """It would be chosen first again at once, and the two would take turns."""
    clock.advance(PRIORITY_STEP_S)
    add_job(priority=1)
    clock.advance(NOTICED_S + 1)
    assert control.gives_way(running) is False
    assert control.gives_way(JobId("video_of_nobody")) is False


def test_a_pause_outlives_the_server(store: JobStore, control: Control, settings: Settings, clock: Clock) -> None:
    control.pause("")
    control.pause("again")
    again = JobStore.open(settings.database_url)
    assert Control(again.engine, clock).reason() == "The queue is paused by its operator: again"
    again.close()
