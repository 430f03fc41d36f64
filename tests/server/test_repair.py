"""A database that is gone costs what files do not say, and no video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from server.assets import AssetStore, Variant
from server.jobs import JobId, JobStatus, WorkerId
from server.repair import index_again
from server.settings import Settings
from server.store import JobNotFound, JobStore
from server.worker import Place, Worker
from tests.conftest import fake_models

if TYPE_CHECKING:
    from tests.conftest import FakePipeline

AddJob = Callable[..., JobId]


@pytest.fixture
def made(store: JobStore, settings: Settings, pipeline: FakePipeline, add_job: AddJob) -> JobId:
    job_id = add_job()
    models = fake_models(settings, lambda: pipeline)
    Worker(Place(WorkerId("ann"), "cpu", 1), settings, store, models=models).run_one()
    assert store.get(job_id).status is JobStatus.COMPLETED
    return job_id


@pytest.fixture
def emptied(settings: Settings, tmp_path: Path) -> Iterator[JobStore]:
    """A new database beside the old files."""
    store = JobStore.open(f"sqlite:///{tmp_path / 'new.sqlite3'}")
    yield store
    store.close()


def test_a_record_is_written_again_from_its_file(
    made: JobId, store: JobStore, emptied: JobStore, assets: AssetStore
) -> None:
    assets.path(made, Variant.THUMBNAIL).unlink()
    with pytest.raises(JobNotFound):
        emptied.get(made)
    (outcome,) = index_again(emptied, assets)
    assert (outcome.job_id, outcome.reason) == (made, None)
    before, after = store.get(made), emptied.get(made)
    # Which pictures it began with is in their own files, which nobody can tell apart.
    assert after.request == replace(before.request, conditions=())
    assert (after.card, after.status) == (before.card, JobStatus.COMPLETED)
    assert after.created_at == pytest.approx(before.created_at, abs=1e-5)
    assert after.result is not None
    assert after.result.facts == (before.result.facts if before.result else None)
    assert assets.path(made, Variant.VIDEO, after.stored("video")).stat().st_size > 0
    assert assets.path(made, Variant.THUMBNAIL, after.stored("thumbnail")).read_bytes()[:4] == b"RIFF"
    assert [job.id for job in emptied.list(after=None, limit=10, newest_first=True).jobs] == [made]
    # A second time there is nothing to do.
    assert list(index_again(emptied, assets)) == []


def test_what_says_nothing_of_itself_is_left_as_it_is(
    made: JobId, emptied: JobStore, assets: AssetStore, add_job: AddJob
) -> None:
    waiting = add_job()
    assets.save_input(waiting, "first.png", [b"a picture"])
    assets.path(made, Variant.VIDEO).write_bytes(b"no film")
    reasons = {outcome.job_id: outcome.reason for outcome in index_again(emptied, assets)}
    assert reasons == {made: "video.mp4 is not a video", waiting: "there is no finished video"}
    assert emptied.list(after=None, limit=10, newest_first=True).jobs == ()
    assert assets.input_path(waiting, "first.png").exists()
