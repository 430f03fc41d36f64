"""POST /v1/videos/join, as far as the API goes: what is accepted, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.assets import Variant
from server.deps import Services
from server.jobs import JobId
from tests.server.routes.conftest import CONTENT, Hand, files_in, refused


@pytest.fixture
def done(create: Callable[..., str], hand: Hand) -> Callable[..., str]:
    """Make a completed video."""

    def make(**parameters: Any) -> str:
        video_id = create(seconds="1", **parameters)
        hand.finish(video_id)
        return video_id

    return make


def test_the_parts_become_one_job_that_needs_nothing_of_them_any_more(
    client: TestClient, services: Services, done: Callable[..., str]
) -> None:
    first, second = done(prompt="a red ball", seed=1), done(prompt="a blue ball", seed=2)
    body = {"videos": [{"id": first}, {"id": second, "start_frame": 2, "end_frame": 5}], "metadata": {"a": "b"}}
    joined = client.post("/v1/videos/join", json=body)
    assert joined.status_code == 200, joined.text
    video = joined.json()
    assert video["status"] == "queued"
    assert video["joined_from"] == [first, second]
    assert video["num_frames"] == 8 + 3
    assert video["prompt"] == "a red ball\na blue ball"
    assert video["metadata"] == {"a": "b"}
    assert client.delete(f"/v1/videos/{first}").status_code == 200
    request = services.store.get(JobId(video["id"])).request
    assert [(part.start, part.end) for part in request.parts] == [(0, 8), (2, 5)]
    assert [part.path.read_bytes() for part in request.parts] == [CONTENT[Variant.VIDEO]] * 2


def test_the_same_clip_may_come_twice_and_forms_are_taken_too(client: TestClient, done: Callable[..., str]) -> None:
    clip = done()
    form = {"videos[][id]": [clip, clip]}
    joined = client.post("/v1/videos/join", files=[(name, (None, i)) for name, ids in form.items() for i in ids])
    assert joined.status_code == 200, joined.text
    assert joined.json()["num_frames"] == 16


@pytest.mark.parametrize(
    ("parts", "param", "code"),
    [
        ([], "videos", None),
        ([{}], "videos", None),
        ([{}] * 33, "videos", None),
        ([{"end_frame": 9}, {}], "videos[0].end_frame", "invalid_range"),
        ([{}, {"start_frame": 8}], "videos[1].start_frame", "invalid_range"),
        ([{}, {"start_frame": 5, "end_frame": 5}], "videos[1].start_frame", "invalid_range"),
        ([{}, {"start_frame": -1}], "videos", None),
        ([{}, {"id": "video_no"}], "videos[1].id", "video_not_found"),
    ],
)
def test_what_does_not_go_together_is_refused_and_leaves_nothing(
    client: TestClient, services: Services, done: Callable[..., str], parts: Any, param: str, code: str | None
) -> None:
    clip = done()
    before = files_in(services.settings.assets_dir)
    answer = client.post("/v1/videos/join", json={"videos": [{"id": clip, **part} for part in parts]})
    error = refused(answer, 404 if code == "video_not_found" else 400)
    assert error["param"].startswith(param)
    assert code is None or error["code"] == code
    assert files_in(services.settings.assets_dir) == before


def test_clips_of_two_sizes_and_unfinished_ones_are_refused(
    client: TestClient, create: Callable[..., str], done: Callable[..., str]
) -> None:
    wide, tall, waiting = done(size="160x96"), done(size="96x160"), create()
    error = refused(client.post("/v1/videos/join", json={"videos": [{"id": wide}, {"id": tall}]}))
    assert (error["code"], error["param"]) == ("different_shapes", "videos[1].id")
    assert "160x96" in error["message"]
    assert "96x160" in error["message"]
    error = refused(client.post("/v1/videos/join", json={"videos": [{"id": wide}, {"id": waiting}]}))
    assert error["code"] == "video_not_ready"


def test_a_repeated_request_makes_one_video(client: TestClient, done: Callable[..., str]) -> None:
    clip = done()
    body = {"videos": [{"id": clip}, {"id": clip}]}
    made = [client.post("/v1/videos/join", json=body, headers={"idempotency-key": "k"}).json()["id"] for _ in "ab"]
    assert made[0] == made[1]
