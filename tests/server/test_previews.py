"""Previews are painted beside the work: the newest only, never too often, and never at a video's expense."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from pipelines.types import Frames
from server.assets import AssetMissing
from server.jobs import JobId, JobStatus, WorkerId
from server.previews import Previews
from server.worker import Place, Worker
from tests.conftest import fake_models

if TYPE_CHECKING:
    from server.assets import AssetStore
    from server.settings import Settings
    from server.store import JobStore
    from tests.conftest import FakePipeline

VIDEO = JobId("video_" + 48 * "a")


def clip(brightness: int) -> Frames:
    """Return a rough clip, as a sketch paints it: 12 frames of 40x24."""
    frames = np.full((12, 24, 40, 3), brightness, dtype=np.uint8)
    # Frames that are equal would be stored as one.
    frames[:, 0, 0, 0] = np.arange(12) * 20
    return frames


class Canvas:
    """A sketch that says when it is painted."""

    def __init__(self, painted: Frames | None) -> None:
        self.painted = painted
        self.asked = threading.Event()

    def __call__(self) -> Frames | None:
        self.asked.set()
        return self.painted


def brightness(assets: AssetStore) -> float:
    with Image.open(assets.preview_path(VIDEO)) as picture:
        return float(np.asarray(picture.convert("L")).mean())


def test_a_sketch_becomes_a_moving_picture(assets: AssetStore) -> None:
    with Previews(assets, VIDEO, fps=8) as previews:
        canvas = Canvas(clip(200))
        previews.show(canvas)
        assert canvas.asked.wait(30)
    assert previews.count == 1
    with Image.open(io.BytesIO(assets.preview_path(VIDEO).read_bytes())) as picture:
        assert (picture.format, picture.size, getattr(picture, "n_frames", 1)) == ("WEBP", (160, 96), 12)
        picture.seek(1)
        picture.load()
        assert picture.info["duration"] == 125


def test_only_the_newest_sketch_is_painted(assets: AssetStore) -> None:
    gate = threading.Event()
    skipped, newest = Canvas(clip(60)), Canvas(clip(220))

    def first() -> Frames:
        begun.set()
        assert gate.wait(30)
        return clip(10)

    begun = threading.Event()
    with Previews(assets, VIDEO, fps=8, every_s=0) as previews:
        previews.show(first)
        assert begun.wait(30)
        previews.show(skipped)
        previews.show(newest)
        gate.set()
        assert newest.asked.wait(30)
    assert not skipped.asked.is_set()
    assert previews.count == 2
    assert brightness(assets) == pytest.approx(220, abs=6)


def test_nothing_to_see_is_no_preview(assets: AssetStore) -> None:
    with Previews(assets, VIDEO, fps=8) as previews:
        canvas = Canvas(None)
        previews.show(canvas)
        assert canvas.asked.wait(30)
    assert previews.count == 0
    with pytest.raises(AssetMissing):
        assets.preview_path(VIDEO)


def test_a_job_that_was_given_away_gets_no_more_files(assets: AssetStore) -> None:
    with Previews(assets, VIDEO, fps=8, wanted=lambda: False) as previews:
        canvas = Canvas(clip(200))
        previews.show(canvas)
        assert canvas.asked.wait(30)
    with pytest.raises(AssetMissing):
        assets.preview_path(VIDEO)


def test_a_sketch_that_fails_harms_nobody(assets: AssetStore) -> None:
    asked = threading.Event()

    def broken() -> Frames:
        asked.set()
        raise ZeroDivisionError

    with Previews(assets, VIDEO, fps=8) as previews:
        previews.show(broken)
        assert asked.wait(30)
        previews.show(broken)
    assert previews.count == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_preview_outlives_a_finished_job_and_no_failed_one(
    settings: Settings,
    store: JobStore,
    assets: AssetStore,
    pipeline: FakePipeline,
    add_job: Callable[..., JobId],
    *,
    fails: bool,
) -> None:
    job_id = add_job()
    pipeline.sketched = clip(100)

    def on_step(step: int) -> None:
        # The first sketch is shown after the first step; go on when it can be looked at.
        while step > 1 and not _has_preview(assets, job_id):
            pass
        if fails and step == 3:
            raise ZeroDivisionError

    pipeline.on_step = on_step
    place = Place(WorkerId("cpu-ann"), "cpu", 1)
    Worker(place, settings, store, models=fake_models(settings, lambda: pipeline)).run_one()
    assert store.get(job_id).status is (JobStatus.FAILED if fails else JobStatus.COMPLETED)
    assert _has_preview(assets, job_id) is not fails
    assets.delete(job_id)
    assert not _has_preview(assets, job_id)


def _has_preview(assets: AssetStore, job_id: JobId) -> bool:
    try:
        assets.preview_path(job_id)
    except AssetMissing:
        return False
    return True
