"""What a video would be, without making it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient

from pipelines.plan import Device, numbers_of
from pipelines.types import Stage
from server.deps import Services
from server.jobs import JobId
from server.workers import WorkerInfo
from tests.server.routes.conftest import ANN, PROMPT, files_in, picture, refused

ESTIMATE = "/v1/videos/estimate"


def estimate(client: TestClient, **parameters: Any) -> dict[str, Any]:
    answer = client.post(ESTIMATE, json=PROMPT | parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def measure(services: Services, video: str, *, denoise_s: float = 4.0) -> None:
    """Pretend that the video has been made."""
    job = services.store.get(JobId(video))
    stage_s = {Stage.LOAD: 9.0, Stage.ENCODE: 0.5, Stage.DENOISE: denoise_s, Stage.DECODE: 1.0, Stage.MUX: 0.5}
    services.timings.learn(job.card, "cpu", job.request, stage_s=stage_s, peak=1_500_000)


def test_a_video_is_described_and_nothing_is_made(client: TestClient, tmp_path: Path) -> None:
    known = estimate(client, size="320x192", seconds="3", model="sora-2-pro", num_inference_steps=5)
    assert (known["object"], known["model"], known["card"]) == ("video.estimate", "sora-2-pro", "homereel-mini")
    assert (known["size"], known["native_size"], known["seconds"], known["num_frames"]) == (
        "320x192",
        "160x96",
        "3",
        24,
    )
    assert known["native_frames"] >= 24
    assert (known["windows"], known["num_inference_steps"]) == (1, 5)
    assert any("320x192" in warning for warning in known["warnings"])
    assert client.get("/v1/videos").json()["data"] == []
    assert files_in(tmp_path / "assets") == []


def test_a_long_clip_is_made_in_windows(client: TestClient) -> None:
    assert estimate(client, seconds="12")["windows"] > 1


def test_nothing_is_predicted_before_anything_was_measured(client: TestClient) -> None:
    known = estimate(client)
    assert (known["predicted_time_s"], known["queue_wait_s"]) == (None, None)


def test_memory_is_the_plans_until_it_has_been_measured(
    client: TestClient, services: Services, create: Callable[..., str]
) -> None:
    short, long = estimate(client, seconds="2"), estimate(client, seconds="4")
    assert 500 < short["predicted_memory_mb"] < long["predicted_memory_mb"] < 2000
    measure(services, create(seconds="4"))
    assert estimate(client, seconds="4")["predicted_memory_mb"] == 1.5


def test_what_does_not_fit_is_no_error_but_a_warning(client: TestClient, services: Services, app: FastAPI) -> None:
    small = Device("cpu", "a CPU", 2**28, 2**28, 2**40, None, numbers_of(None))
    app.state.services = replace(services, device=lambda: small)
    known = estimate(client)
    assert any("does not fit on cpu" in warning for warning in known["warnings"])
    assert known["predicted_memory_mb"] > 268


def test_a_device_that_nobody_can_describe_predicts_nothing(
    client: TestClient, services: Services, app: FastAPI
) -> None:
    app.state.services = replace(services, device=lambda: None)
    assert estimate(client)["predicted_memory_mb"] is None


def test_what_was_measured_is_predicted_again(
    client: TestClient, services: Services, create: Callable[..., str]
) -> None:
    measure(services, create())
    known = estimate(client)
    # Loading happens once, not with every video.
    assert (known["predicted_time_s"], known["predicted_memory_mb"]) == (6.0, 1.5)


def test_half_the_steps_take_half_the_denoising(
    client: TestClient, services: Services, create: Callable[..., str]
) -> None:
    measure(services, create(num_inference_steps=20))
    assert estimate(client, num_inference_steps=10)["predicted_time_s"] == 4.0


def test_an_idle_worker_starts_at_once_and_a_busy_one_after_what_waits(
    client: TestClient, services: Services, create: Callable[..., str]
) -> None:
    services.store.announce(WorkerInfo(ANN, "cpu", 1, None, None, services.now()))
    assert estimate(client)["queue_wait_s"] == 0.0
    waiting = create()
    assert estimate(client)["queue_wait_s"] is None
    measure(services, waiting)
    assert estimate(client)["queue_wait_s"] == 6.0


def test_pictures_and_forms_are_taken_as_in_create(client: TestClient, tmp_path: Path) -> None:
    answer = client.post(ESTIMATE, data=PROMPT, files={"input_reference": ("x.png", picture())})
    assert answer.status_code == 200, answer.text
    assert files_in(tmp_path / "assets") == []


def test_what_create_refuses_is_refused_here(client: TestClient) -> None:
    for change, param in (({"size": "1x1"}, "size"), ({"model": "x"}, "model"), ({"promt": "a"}, "promt")):
        assert refused(client.post(ESTIMATE, json=PROMPT | change))["param"] == param
    refused(client.post(ESTIMATE, data=PROMPT, files={"input_reference": ("x.png", b"no picture")}))
