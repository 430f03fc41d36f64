from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from pipelines.types import GenerationRequest, Stage, VideoShape
from server.jobs import Job, JobError, JobId, JobProgress, JobResult, JobStatus
from server.parameters import VideoCreate
from server.schemas import Video, VideoList

REQUEST = GenerationRequest(
    prompt="a red ball",
    negative_prompt="rain",
    shape=VideoShape(33, 96, 160, 8),
    delivery=VideoShape(20, 720, 1280, 8),
    seed=7,
    num_inference_steps=20,
    guidance_scale=4.0,
)
JOB = Job(JobId("video_1"), "sora-2", "mini", JobStatus.QUEUED, REQUEST, 1000.9, warnings=("scaled",))


def test_a_video_has_every_key_of_the_contract_in_the_contracts_types() -> None:
    video = Video.of(JOB, queue_position=3).model_dump(mode="json")
    contract = {
        "id": "video_1",
        "object": "video",
        "model": "sora-2",
        "status": "queued",
        "progress": 0,
        "created_at": 1000,
        "completed_at": None,
        "expires_at": None,
        "prompt": "a red ball",
        "size": "1280x720",
        "seconds": "2.5",
        "remixed_from_video_id": None,
        "error": None,
    }
    assert {key: video[key] for key in contract} == contract
    assert (video["native_size"], video["num_frames"], video["fps"], video["seed"]) == ("160x96", 20, 8, 7)
    assert (video["queue_position"], video["warnings"]) == (3, ["scaled"])


RUNNING = replace(JOB, status=JobStatus.IN_PROGRESS, progress=JobProgress(Stage.DENOISE, 3, 20, 27, eta_s=4.5))


@pytest.mark.parametrize(
    ("job", "progress"),
    [
        (JOB, 0),
        (RUNNING, 27),
        (replace(RUNNING, progress=None), 0),
        (replace(RUNNING, progress=JobProgress(Stage.MUX, 1, 1, 100)), 99),
        (replace(RUNNING, status=JobStatus.COMPLETED), 100),
        (replace(RUNNING, status=JobStatus.FAILED, error=JobError("x", "y")), 27),
    ],
)
def test_progress_is_a_whole_number_and_100_means_ready(job: Job, progress: int) -> None:
    assert Video.of(job).progress == progress


def test_a_running_video_says_where_it_is() -> None:
    video = Video.of(RUNNING)
    assert (video.stage, video.step, video.total_steps, video.eta_s) == ("denoise", 3, 20, 4.5)


def test_a_finished_video_says_what_it_took() -> None:
    result = JobResult({"encode": 0.5, "denoise": 4.0}, peak_memory_bytes=1_500_000)
    video = Video.of(replace(RUNNING, status=JobStatus.COMPLETED, completed_at=1009.2, result=result))
    assert (video.completed_at, video.inference_time_s, video.peak_memory_mb) == (1009, 4.5, 1.5)
    assert video.stage_durations == {"encode": 0.5, "denoise": 4.0}
    assert (video.stage, video.eta_s) == (None, None)


def test_an_empty_page_has_null_ends() -> None:
    page = VideoList.of([], has_more=False)
    assert (page.first_id, page.last_id, page.data) == (None, None, [])


@pytest.mark.parametrize("seconds", ["4", 4, 4.0, " 4 ", "4.0"])
def test_seconds_may_be_text_or_a_number(seconds: object) -> None:
    assert VideoCreate.model_validate({"prompt": "a", "seconds": seconds}).wish().seconds == 4.0


def test_line_ends_are_one_character_before_they_are_counted() -> None:
    longest = "a\r\n" * 16_000
    assert VideoCreate.model_validate({"prompt": longest}).prompt == "a\n" * 16_000
    with pytest.raises(ValidationError):
        VideoCreate.model_validate({"prompt": longest + "a"})


@pytest.mark.parametrize(
    "size", [{"size": "320x192"}, {"width": "320", "height": 192}, {"size": "320x192", "width": 320, "height": 192}]
)
def test_a_size_can_be_said_in_two_ways(size: dict[str, object]) -> None:
    assert VideoCreate.model_validate({"prompt": "a", **size}).wish().size == (320, 192)
