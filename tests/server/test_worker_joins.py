"""A worker that joins: without a model, and with the same care for jobs that are stopped or lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines import joining, media
from pipelines.types import Part, VideoShape
from server.assets import AssetMissing, AssetStore, Variant
from server.jobs import JobId, JobStatus, Origin, WorkerId
from server.repair import index_again
from server.store import JobStore
from server.worker import Worker

if TYPE_CHECKING:
    from tests.conftest import Clock, FakePipeline, MakeJob

SHAPE = VideoShape(8, 96, 160, 8)
BOB = WorkerId("bob")


@pytest.fixture
def joined(
    worker: Worker, store: JobStore, assets: AssetStore, make_job: MakeJob, pipeline: FakePipeline
) -> Callable[[], JobId]:
    """Make a clip, and ask for two pieces of it to be joined."""

    def ask() -> JobId:
        clip = make_job()
        clip = replace(clip, request=replace(clip.request, shape=SHAPE, delivery=SHAPE, conditions=()))
        store.add(clip, max_queued=9)
        assert worker.run_one()
        pipeline.requests.clear()
        job = make_job()
        path = assets.link_input(job.id, "part_00.mp4", assets.path(clip.id, Variant.VIDEO))
        parts = (Part(path, SHAPE, 0, 8, clip.id), Part(path, SHAPE, 2, 5, clip.id))
        both = SHAPE._replace(frames=11)
        request = replace(clip.request, shape=both, delivery=both, parts=parts)
        store.add(replace(job, request=request, origin=Origin("join", videos=(clip.id, clip.id))), max_queued=9)
        return job.id

    return ask


def test_it_asks_no_model(
    worker: Worker, store: JobStore, assets: AssetStore, pipeline: FakePipeline, joined: Callable[[], JobId]
) -> None:
    job_id = joined()
    assert worker.run_one()
    job = store.get(job_id)
    assert (job.status, job.error) == (JobStatus.COMPLETED, None)
    assert pipeline.requests == []
    facts = media.probe(assets.path(job_id, Variant.VIDEO))
    assert facts.shape == SHAPE._replace(frames=11)
    pieces = joining.pieces_of(facts.provenance)
    assert [(piece.start_frame, piece.end_frame) for piece in pieces] == [(0, 8), (2, 5)]
    assert all((piece.made or {})["prompt"] == job.request.prompt for piece in pieces)
    assert assets.path(job_id, Variant.SPRITESHEET).is_file()


def test_its_record_is_written_again_from_its_file(
    worker: Worker, store: JobStore, assets: AssetStore, tmp_path: Path, joined: Callable[[], JobId]
) -> None:
    job_id = joined()
    worker.run_one()
    emptied = JobStore.open(f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert {outcome.reason for outcome in index_again(emptied, assets)} == {None}
    before, after = store.get(job_id), emptied.get(job_id)
    assert (after.request.prompt, after.request.delivery) == (before.request.prompt, before.request.delivery)
    emptied.close()


def test_a_lost_one_is_joined_by_the_next_worker(
    worker: Worker, store: JobStore, clock: Clock, joined: Callable[[], JobId]
) -> None:
    job_id = joined()
    assert store.claim(job_id, BOB, lease_s=30)
    clock.advance(31)
    assert worker.run_one()
    job = store.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 2)


def test_one_that_is_cancelled_while_it_is_joined_stops(
    worker: Worker, store: JobStore, assets: AssetStore, monkeypatch: pytest.MonkeyPatch, joined: Callable[[], JobId]
) -> None:
    job_id = joined()
    before = joining.join

    def cancelled_meanwhile(*arguments: object, **options: object) -> None:
        store.request_cancel(job_id)
        before(*arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(joining, "join", cancelled_meanwhile)
    worker.run_one()
    job = store.get(job_id)
    assert job.error is not None
    assert job.error.code == "cancelled"
    with pytest.raises(AssetMissing):
        assets.path(job_id, Variant.VIDEO)
