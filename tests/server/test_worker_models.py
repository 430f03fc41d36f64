"""What a worker does about models: loads them, tells how far it is, refuses what cannot fit, gives them up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pipelines.types import Stage
from server.jobs import JobId, JobProgress, Waiting
from server.lease import Lease
from server.residents import Residents
from server.settings import Settings
from server.store import JobStore
from server.worker import Drain, Place, Worker
from tests.server.conftest import ANN, Loader

if TYPE_CHECKING:
    from tests.conftest import Clock, FakePipeline

AddJob = Callable[..., JobId]


def test_a_model_is_loaded_once_and_given_up_for_another(
    worker: Worker, loader: Loader, pipeline: FakePipeline, add_job: AddJob
) -> None:
    for card_id in ("mini", "mini", "maxi"):
        add_job(card=card_id)
        worker.run_one()
    assert loader.names == ["mini", "maxi"]
    assert pipeline.is_closed
    assert worker.info().card == "maxi"


def test_loading_is_told_in_percent(
    worker: Worker, loader: Loader, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[JobProgress] = []
    note = Lease.note

    def spy(lease: Lease, progress: JobProgress) -> None:
        noted.append(progress)
        note(lease, progress)

    monkeypatch.setattr(Lease, "note", spy)
    loader.shares = (0.25, 0.5)
    add_job()
    add_job()
    worker.run_one()
    loads = [(progress.step, progress.total) for progress in noted if progress.stage is Stage.LOAD]
    assert loads == [(0, 100), (25, 100), (50, 100), (100, 100)]
    assert [progress.percent for progress in noted] == sorted(progress.percent for progress in noted)
    noted.clear()
    worker.run_one()
    assert Stage.LOAD not in {progress.stage for progress in noted}


def test_what_cannot_fit_is_refused_before_anything_is_loaded(
    worker: Worker, loader: Loader, store: JobStore, add_job: AddJob
) -> None:
    add_job(card="mini")
    worker.run_one()
    loader.params = 10**12
    job_id = add_job(card="giant")
    worker.run_one()
    error = store.get(job_id).error
    assert error is not None
    assert (error.code, "does not fit on cpu" in error.message) == ("out_of_memory", True)
    assert (loader.names, worker.info().card) == (["mini"], "mini")


def test_an_idle_model_is_given_up_in_time(
    settings: Settings, store: JobStore, loader: Loader, clock: Clock, drain: Drain, pipeline: FakePipeline
) -> None:
    models = Residents("cpu", settings.model_copy(update={"keep_alive": 60}), loader.source, clock)
    models.preload("mini")
    worker = Worker(Place(ANN, "cpu", 1), settings, store, drain=drain, models=models)
    looks: list[int] = []

    def waiting() -> tuple[Waiting, ...]:
        looks.append(len(models.names()))
        clock.advance(59 if len(looks) == 1 else 1)
        if len(looks) == 3:
            drain.begin(0)
        return ()

    store.waiting = waiting
    worker.run()
    assert looks == [1, 1, 0]
    assert pipeline.is_closed
