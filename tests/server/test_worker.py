"""A worker in this process, with a model that takes no time: every way in which a job can end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines import media
from pipelines.errors import BadOutput, OutOfMemory, PipelineError, WeightsMissing
from pipelines.types import VideoShape
from server.assets import AssetMissing, AssetStore, Variant
from server.jobs import JobId, JobStatus, WorkerId
from server.residents import Residents, find
from server.settings import Settings
from server.store import JobStore
from server.worker import Drain, Place, Worker
from tests.server.conftest import ANN, Loader

if TYPE_CHECKING:
    from tests.conftest import Clock, FakePipeline

AddJob = Callable[..., JobId]


def files_of(settings: Settings, job_id: JobId) -> set[str]:
    folder = settings.assets_dir / job_id
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_an_empty_queue_is_no_work(worker: Worker) -> None:
    assert worker.run_one() is False


def test_a_job_becomes_a_video_with_pictures(
    worker: Worker, store: JobStore, assets: AssetStore, settings: Settings, add_job: AddJob
) -> None:
    job_id = add_job()
    assert worker.run_one() is True
    job = store.get(job_id)
    assert job.error is None
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)
    facts = media.probe(assets.path(job_id, Variant.VIDEO))
    assert facts.shape == VideoShape(16, 96, 160, 8)
    assert facts.provenance is not None
    assert facts.provenance["prompt"] == job.request.prompt
    assert files_of(settings, job_id) == {variant.filename for variant in Variant}


def test_the_result_says_what_it_took(worker: Worker, store: JobStore, add_job: AddJob) -> None:
    job_id = add_job()
    worker.run_one()
    result = store.get(job_id).result
    assert result is not None
    assert list(result.stage_s) == ["load", "encode", "denoise", "decode", "mux"]
    assert result.peak_memory_bytes > 1_000_000
    assert result.facts["family"] == "fake"
    assert result.facts["plan"] == "float32, all on the device"
    assert float(result.facts["predicted_peak_mb"]) > 900


def test_metadata_can_be_left_out(
    settings: Settings, store: JobStore, models: Residents, assets: AssetStore, add_job: AddJob
) -> None:
    job_id = add_job()
    plain = settings.model_copy(update={"embed_metadata": False})
    Worker(Place(ANN, "cpu", 1), plain, store, models=models).run_one()
    assert media.probe(assets.path(job_id, Variant.VIDEO)).provenance is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadOutput("flat"), "bad_output"),
        (OutOfMemory("too large"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (ZeroDivisionError("secret"), "generation_failed"),
    ],
)
def test_a_failure_is_recorded_and_the_next_job_runs(
    worker: Worker, store: JobStore, pipeline: FakePipeline, add_job: AddJob, error: Exception, code: str
) -> None:
    def fail(step: int) -> None:
        raise error

    failing, following = add_job(), add_job()
    pipeline.on_step = fail
    worker.run_one()
    pipeline.on_step = lambda step: None
    worker.run_one()
    failed = store.get(failing)
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, code)
    assert failed.error.message
    assert "secret" not in failed.error.message
    assert store.get(following).status is JobStatus.COMPLETED


def test_a_failure_leaves_no_files(
    worker: Worker, settings: Settings, pipeline: FakePipeline, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(video: Path, into: Path) -> None:
        raise BadOutput("no thumbnail")

    monkeypatch.setattr(media, "thumbnail", fail)
    job_id = add_job()
    worker.run_one()
    assert files_of(settings, job_id) == set()


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_dead_attempt_left_is_cleared_away(
    worker: Worker, settings: Settings, pipeline: FakePipeline, add_job: AddJob, *, fails: bool
) -> None:
    def fail(step: int) -> None:
        raise BadOutput("flat")

    job_id = add_job()
    leftover = settings.assets_dir / job_id / "work" / "abc" / "video.mp4"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"half")
    if fails:
        pipeline.on_step = fail
    worker.run_one()
    assert not leftover.parent.exists()


def test_a_model_in_doubt_is_loaded_again(
    worker: Worker, loader: Loader, pipeline: FakePipeline, add_job: AddJob
) -> None:
    def fail(step: int) -> None:
        raise ZeroDivisionError

    pipeline.on_step = fail
    for _ in range(2):
        add_job()
        worker.run_one()
    assert len(loader.names) == 2


def test_a_model_that_cannot_be_loaded_fails_its_job(
    worker: Worker, loader: Loader, store: JobStore, add_job: AddJob
) -> None:
    loader.error = WeightsMissing("not here")
    job_id = add_job()
    worker.run_one()
    error = store.get(job_id).error
    assert error is not None
    assert error.code == "weights_missing"


def test_a_model_that_is_unknown_is_refused_as_it_is_elsewhere(settings: Settings) -> None:
    with pytest.raises(PipelineError) as refused:
        find(settings, "no-such-model")
    assert refused.value.code == "model_not_found"


def when_cancelled_at_step_2(
    store: JobStore, pipeline: FakePipeline, cancel: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Have ``cancel`` called in the second step, wait until the worker has seen it, and record the steps made."""
    steps: list[int] = []
    seen: list[bool] = []
    watch = store.watch

    def spy(job_id: JobId, worker: WorkerId) -> object:
        state = watch(job_id, worker)
        seen.append(state.cancel_requested or not state.owned)
        return state

    monkeypatch.setattr(store, "watch", spy)

    def on_step(step: int) -> None:
        steps.append(step)
        if step == 2:
            cancel()
            # The look after the one that saw it can only come when the flag has been set.
            while not any(seen[:-1]):
                pass

    pipeline.on_step = on_step
    return steps


def test_cancelling_stops_after_the_current_step(
    worker: Worker,
    store: JobStore,
    pipeline: FakePipeline,
    settings: Settings,
    add_job: AddJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = add_job()
    steps = when_cancelled_at_step_2(store, pipeline, lambda: store.request_cancel(job_id), monkeypatch)
    worker.run_one()
    job = store.get(job_id)
    assert job.error is not None
    assert (job.status, job.error.code, steps) == (JobStatus.FAILED, "cancelled", [1, 2])
    assert files_of(settings, job_id) == set()


def test_deleting_stops_too_and_the_job_can_be_swept_up(
    worker: Worker, store: JobStore, pipeline: FakePipeline, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job()
    steps = when_cancelled_at_step_2(store, pipeline, lambda: store.delete(job_id), monkeypatch)
    worker.run_one()
    assert (steps, store.deleted()) == ([1, 2], (job_id,))


def test_a_job_that_was_given_away_is_left_alone(
    worker: Worker,
    store: JobStore,
    assets: AssetStore,
    pipeline: FakePipeline,
    add_job: AddJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = add_job()
    steps = when_cancelled_at_step_2(store, pipeline, lambda: store.abandon(ANN, max_attempts=3), monkeypatch)
    worker.run_one()
    assert steps == [1, 2]
    assert store.get(job_id).status is JobStatus.QUEUED
    with pytest.raises(AssetMissing):
        assets.path(job_id, Variant.VIDEO)


def test_a_job_lost_in_its_last_step_does_not_overwrite_its_successors_files(
    worker: Worker, store: JobStore, settings: Settings, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    spritesheet = media.spritesheet

    def lose_the_job(video: Path, into: Path) -> None:
        spritesheet(video, into)
        store.abandon(ANN, max_attempts=3)

    monkeypatch.setattr(media, "spritesheet", lose_the_job)
    job_id = add_job()
    worker.run_one()
    assert store.get(job_id).status is JobStatus.QUEUED
    assert files_of(settings, job_id) == set()


def test_a_draining_worker_finishes_what_fits(
    worker: Worker, store: JobStore, pipeline: FakePipeline, drain: Drain, add_job: AddJob
) -> None:
    current, following = add_job(), add_job()
    pipeline.on_step = lambda step: drain.begin(8)
    worker.run()
    assert store.get(current).status is JobStatus.COMPLETED
    assert store.get(following).status is JobStatus.QUEUED
    assert pipeline.is_closed


def test_a_draining_worker_gives_back_what_does_not_fit(
    worker: Worker, store: JobStore, pipeline: FakePipeline, drain: Drain, clock: Clock, add_job: AddJob
) -> None:
    def slow_step(step: int) -> None:
        drain.begin(8)
        clock.advance(5)

    job_id = add_job()
    pipeline.on_step = slow_step
    worker.run()
    job = store.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)


def test_a_worker_announces_what_it_is_at(worker: Worker, pipeline: FakePipeline, add_job: AddJob) -> None:
    job_id = add_job()
    seen: list[tuple[str | None, JobId | None]] = []

    def look(step: int) -> None:
        seen.append((worker.info().card, worker.info().job))

    pipeline.on_step = look
    worker.run_one()
    assert seen[0] == ("homereel-mini", job_id)
    assert worker.info().job is None


def test_a_preloaded_worker_is_warm(
    settings: Settings, store: JobStore, loader: Loader, models: Residents, drain: Drain, pipeline: FakePipeline
) -> None:
    warm = settings.model_copy(update={"preload": "homereel-mini"})
    drain.begin(0)
    Worker(Place(ANN, "cpu", 1), warm, store, drain=drain, models=models).run()
    assert loader.names == ["homereel-mini"]


def test_prompts_stay_out_of_the_log(worker: Worker, add_job: AddJob, caplog: pytest.LogCaptureFixture) -> None:
    job_id = add_job()
    with caplog.at_level(logging.INFO):
        worker.run_one()
    lines = [record.getMessage() for record in caplog.records if record.name == "server.worker"]
    events = [line.split()[0] for line in lines]
    assert events == ["job_started", "job_finished"]
    assert all(job_id in line for line in lines if line.startswith("job_"))
    assert "red ball" not in caplog.text
