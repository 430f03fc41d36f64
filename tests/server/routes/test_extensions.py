"""Extensions: what is new comes after what is there, within the hosted service's limits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.jobs import JobId, Origin
from server.store import JobStore
from tests.server.routes.conftest import Hand, movie, refused, send_movie

EXTENSIONS = "/v1/videos/extensions"
ON = {"prompt": "it rolls on"}


@pytest.fixture
def source(create: Callable[..., str], hand: Hand) -> str:
    made = create(seconds=2)
    hand.finish(made)
    return made


def extend(client: TestClient, video: str, seconds: object = "4", **more: Any) -> Any:
    return client.post(EXTENSIONS, json=ON | {"video": {"id": video}, "seconds": seconds} | more)


def test_seconds_of_the_result_are_the_total(client: TestClient, source: str, store: JobStore) -> None:
    answer = extend(client, source, seed=4)
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert (video["seconds"], video["num_frames"], video["size"], video["seed"]) == ("6", 48, "160x96", 4)
    assert video["remixed_from_video_id"] == source
    job = store.get(JobId(video["id"]))
    assert job.origin == Origin("extension", JobId(source), 1)
    assert job.request.source is not None
    assert (job.request.source.use, job.request.shape.frames >= 32) == ("extend", True)


def test_a_form_extends_too(client: TestClient, source: str) -> None:
    parts = {"prompt": (None, "on"), "seconds": (None, "4"), "video[id]": (None, source)}
    assert client.post(EXTENSIONS, files=parts).json()["seconds"] == "6"


def test_an_uploaded_clip_is_extended(client: TestClient) -> None:
    assert send_movie(client, EXTENSIONS, movie(16), prompt="on", seconds=3).json()["seconds"] == "5"


def test_six_extensions_are_the_most_also_through_an_edit_and_a_file(
    client: TestClient, source: str, hand: Hand
) -> None:
    video = source
    for number in range(1, 7):
        answer = extend(client, video, 1)
        assert answer.status_code == 200, answer.text
        video = answer.json()["id"]
        assert answer.json()["seconds"] == str(2 + number)
        hand.finish(video)
    answer = extend(client, video, 1)
    error = refused(answer)
    assert (error["code"], error["param"], answer.headers["x-should-retry"]) == (
        *("too_many_extensions", "video"),
        "false",
    )
    edited = client.post(f"/v1/videos/{video}/remix", json=ON).json()["id"]
    hand.finish(edited)
    assert refused(extend(client, edited, 1))["code"] == "too_many_extensions"
    known = json.dumps({"homereel": {"prompt": "a", "extensions": 6}})
    uploaded = send_movie(client, EXTENSIONS, movie(comment=known), prompt="on", seconds=1)
    assert refused(uploaded)["code"] == "too_many_extensions"


def test_two_minutes_are_the_most(client: TestClient) -> None:
    clip = movie(118, "160x96", 1)
    assert send_movie(client, EXTENSIONS, clip, prompt="on", seconds=2).json()["seconds"] == "120"
    error = refused(send_movie(client, EXTENSIONS, clip, prompt="on", seconds=3))
    assert error["param"] == "seconds"
    assert "120" in error["message"]


@pytest.mark.parametrize("seconds", [0, 0.5, -4, 20.5, 1000, "nan", "long", "", None, True, [4]])
def test_a_segment_has_one_to_twenty_seconds(client: TestClient, source: str, seconds: object) -> None:
    assert refused(extend(client, source, seconds))["param"] == "seconds"


def test_what_is_missing_is_named(client: TestClient, source: str) -> None:
    for left_out, param in (("seconds", "seconds"), ("prompt", "prompt"), ("video", "video")):
        body: dict[str, Any] = ON | {"video": {"id": source}, "seconds": "4"}
        del body[left_out]
        error = refused(client.post(EXTENSIONS, json=body))
        assert (error["param"], error["code"]) == (param, "missing_parameter")


@pytest.mark.parametrize("name", ["strength", "size", "num_frames", "characters", "input_reference"])
def test_an_extension_takes_no_such_parameter(client: TestClient, source: str, name: str) -> None:
    assert refused(extend(client, source, **{name: "1"}))["param"] == name
