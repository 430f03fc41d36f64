"""A video that shows another one anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.assets import Variant
from server.jobs import JobId, Origin
from server.store import JobStore
from tests.server.routes.conftest import CONTENT, Hand, files_in, refused

Create = Callable[..., str]
BLUE = {"prompt": "a blue ball"}


@pytest.fixture
def source(create: Create, hand: Hand) -> str:
    """A finished video of two seconds."""
    made = create(seconds=2, size="96x160", model="sora-2-pro")
    hand.finish(made)
    return made


def test_a_remix_takes_from_its_source_what_the_request_leaves_open(
    client: TestClient, source: str, store: JobStore
) -> None:
    answer = client.post(f"/v1/videos/{source}/remix", json=BLUE)
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert (video["remixed_from_video_id"], video["prompt"], video["status"]) == (source, "a blue ball", "queued")
    assert (video["model"], video["size"], video["seconds"]) == ("sora-2-pro", "96x160", "2")
    assert int(answer.headers["openai-poll-after-ms"]) > 0
    job = store.get(JobId(video["id"]))
    assert job.origin == Origin("remix", JobId(source), 0)
    assert job.request.source is not None
    assert (job.request.source.use, job.request.source.prompt) == ("edit", "a red ball")
    assert job.request.source.path.read_bytes() == CONTENT[Variant.VIDEO]


def test_our_own_parameters_are_honoured(client: TestClient, source: str, store: JobStore) -> None:
    own = {"seed": 5, "negative_prompt": "rain", "num_inference_steps": 7, "guidance_scale": 2.5, "strength": 0.5}
    video = client.post(f"/v1/videos/{source}/remix", json=BLUE | own | {"priority": 2, "metadata": {"a": "b"}}).json()
    request = store.get(JobId(video["id"])).request
    assert (request.seed, request.negative_prompt, request.num_inference_steps) == (5, "rain", 7)
    assert request.source is not None
    assert (request.guidance_scale, request.source.strength) == (2.5, 0.5)
    assert (video["priority"], video["metadata"]) == (2, {"a": "b"})


def test_a_form_remixes_too(client: TestClient, source: str) -> None:
    answer = client.post(f"/v1/videos/{source}/remix", files={"prompt": (None, "a blue ball")})
    assert answer.json()["remixed_from_video_id"] == source


def test_a_remix_can_be_remixed_and_lists_with_the_rest(client: TestClient, source: str, hand: Hand) -> None:
    first = client.post(f"/v1/videos/{source}/remix", json=BLUE).json()["id"]
    hand.finish(first)
    second = client.post(f"/v1/videos/{first}/remix", json=BLUE).json()
    assert second["remixed_from_video_id"] == first
    assert [video["id"] for video in client.get("/v1/videos").json()["data"]] == [second["id"], first, source]


def test_nothing_that_happens_to_the_source_matters_any_more(
    client: TestClient, source: str, hand: Hand, store: JobStore
) -> None:
    video = client.post(f"/v1/videos/{source}/remix", json=BLUE).json()
    client.delete(f"/v1/videos/{source}")
    hand.services.assets.delete(JobId(source))
    kept = store.get(JobId(video["id"])).request.source
    assert kept is not None
    assert kept.path.read_bytes() == CONTENT[Variant.VIDEO]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "invalid_type"),
        ({"strength": 0}, "strength", "unsupported_option"),
        ({"strength": 1.5}, "strength", "unsupported_option"),
        ({"strength": "much"}, "strength", "invalid_value"),
        ({"seed": -1}, "seed", "unsupported_option"),
        ({"model": "no-such-model"}, "model", "model_not_found"),
        ({"seconds": 4}, "seconds", "unknown_parameter"),
        ({"size": "160x96"}, "size", "unknown_parameter"),
        ({"video": {"id": "video_1"}}, "video", "unknown_parameter"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    client: TestClient, source: str, tmp_path: Path, change: dict[str, Any], param: str, code: str
) -> None:
    before = files_in(tmp_path / "assets")
    error = refused(client.post(f"/v1/videos/{source}/remix", json=BLUE | change))
    assert (error["param"], error["code"]) == (param, code)
    assert files_in(tmp_path / "assets") == before
    assert len(client.get("/v1/videos").json()["data"]) == 1


def test_a_source_that_is_not_completed_is_refused_once(client: TestClient, create: Create, hand: Hand) -> None:
    waiting, failed = create(), create()
    hand.fail(failed)
    for video, code in ((waiting, "video_not_ready"), (failed, "video_failed")):
        answer = client.post(f"/v1/videos/{video}/remix", json=BLUE)
        error = refused(answer)
        assert (error["code"], error["param"]) == (code, "video")
        # The SDKs would repeat some of the statuses that fit here; this is not one, and the header says it again.
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("video", ["video_" + "0" * 48, "video_1", "..%2F..%2Fetc"])
def test_an_unknown_source_is_not_found(client: TestClient, video: str) -> None:
    assert refused(client.post(f"/v1/videos/{video}/remix", json=BLUE), 404)["code"] in {"video_not_found", "not_found"}


def test_a_source_whose_file_is_gone_is_not_found(client: TestClient, source: str, hand: Hand) -> None:
    hand.services.assets.delete(JobId(source))
    assert refused(client.post(f"/v1/videos/{source}/remix", json=BLUE), 404)["code"] == "content_not_found"
