"""Edits: by id in every spelling, and of uploaded files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.types import VideoShape
from server.jobs import JobId, Origin
from server.store import JobStore
from tests.server.routes.conftest import Hand, files_in, movie, picture, refused, send_movie

BLUE = {"prompt": "a blue ball"}
EDITS = "/v1/videos/edits"


@pytest.fixture
def source(create: Callable[..., str], hand: Hand) -> str:
    made = create(seconds=2)
    hand.finish(made)
    return made


WAYS: dict[str, Callable[[TestClient, str], Any]] = {
    "json object": lambda client, id_: client.post(EDITS, json=BLUE | {"video": {"id": id_}}),
    "json text": lambda client, id_: client.post(EDITS, json=BLUE | {"video": json.dumps({"id": id_})}),
    "bare id": lambda client, id_: client.post(EDITS, json=BLUE | {"video": id_}),
    "brackets": lambda client, id_: client.post(
        EDITS, files=[("prompt", (None, "a blue ball")), ("video[id]", (None, id_))]
    ),
    "text part": lambda client, id_: client.post(
        EDITS, files=[("prompt", (None, "a blue ball")), ("video", (None, json.dumps({"id": id_})))]
    ),
    "path": lambda client, id_: client.post(f"/v1/videos/{id_}/edits", json=BLUE),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_video_can_be_named_in_every_way(client: TestClient, source: str, store: JobStore, way: str) -> None:
    answer = WAYS[way](client, source)
    assert answer.status_code == 200, answer.text
    job = store.get(JobId(answer.json()["id"]))
    assert job.origin == Origin("edit", JobId(source), 0)
    assert answer.json()["remixed_from_video_id"] == source
    assert answer.json()["seconds"] == "2"


def test_an_uploaded_clip_is_edited_in_its_own_shape(client: TestClient, store: JobStore) -> None:
    content = movie(24, "160x96", 8)
    answer = send_movie(client, EDITS, content, prompt="a blue ball", model="homereel-mini", seed=3)
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert (video["size"], video["seconds"], video["model"], video["seed"]) == ("160x96", "3", "homereel-mini", 3)
    assert video["remixed_from_video_id"] is None
    job = store.get(JobId(video["id"]))
    assert job.origin == Origin("edit", None, 0)
    assert job.request.source is not None
    assert (job.request.source.shape, job.request.source.prompt) == (VideoShape(24, 96, 160, 8), "")
    assert job.request.source.path.read_bytes() == content


def test_an_upload_without_a_model_goes_to_the_default(client: TestClient) -> None:
    assert send_movie(client, EDITS, movie(), prompt="a").json()["model"] == "sora-2"


def test_a_file_of_ours_says_what_it_shows(client: TestClient, store: JobStore) -> None:
    known = json.dumps({"homereel": {"prompt": "a red ball; = # \\ rolls", "extensions": 2}})
    video = send_movie(client, EDITS, movie(comment=known), prompt="a blue ball").json()
    job = store.get(JobId(video["id"]))
    assert job.request.source is not None
    assert job.request.source.prompt == "a red ball; = # \\ rolls"
    assert job.origin == Origin("edit", None, 2)


def test_a_clip_that_fits_no_size_is_edited_at_the_nearest_and_says_so(client: TestClient) -> None:
    video = send_movie(client, EDITS, movie(12, "64x64", 12), prompt="a blue ball").json()
    assert (video["size"], video["fps"], video["num_frames"]) == ("160x96", 8, 8)
    assert any("64x64" in warning for warning in video["warnings"])
    assert any("12 frames per second" in warning for warning in video["warnings"])


BROKEN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"hello",
    "a picture": picture,
    "a playlist": lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "only a beginning": lambda: movie()[:40],
    "cut short": lambda: movie(48)[:-4000],
    "overwritten": lambda: movie()[: len(movie()) // 2] + bytes(len(movie()) - len(movie()) // 2),
    "lies in its name": lambda: b"\0\0\0\x18ftypisom" + bytes(5000),
    "too large a picture": lambda: movie(1, "4200x2200", 8),
    "too small a picture": lambda: movie(8, "8x8", 8),
    "too long": lambda: movie(122, "64x64", 1),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_file_that_is_no_sound_clip_is_refused_and_leaves_nothing(
    client: TestClient, tmp_path: Path, kind: str
) -> None:
    error = refused(send_movie(client, EDITS, BROKEN[kind](), prompt="a"))
    assert (error["param"], error["code"]) == ("video", "invalid_video")
    assert "MP4" in error["message"]
    assert files_in(tmp_path / "assets") == []
    assert client.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize(
    ("video", "status", "code"),
    [
        (None, 400, "missing_parameter"),
        (5, 400, "invalid_type"),
        ([], 400, "invalid_type"),
        ({}, 400, "invalid_type"),
        ({"id": 5}, 400, "invalid_type"),
        ({"id": "video_1", "x": 1}, 400, "invalid_type"),
        ("movie.mp4", 400, "invalid_type"),
        ("{broken", 400, "invalid_body"),
        ({"id": "video_1"}, 404, "video_not_found"),
        ({"id": "video_" + "0" * 48}, 404, "video_not_found"),
    ],
)
def test_what_names_no_video_is_refused(client: TestClient, video: Any, status: int, code: str) -> None:
    error = refused(client.post(EDITS, json=BLUE | {"video": video}), status)
    assert error["code"] == code


def test_a_model_that_cannot_edit_says_which_can(client: TestClient, source: str, services: Any) -> None:
    cards = services.registry.cards
    mini = cards["homereel-mini"]
    cards["mute"] = mini.model_copy(update={"id": "mute", "capabilities": mini.capabilities - {"edit"}})
    error = refused(client.post(EDITS, json=BLUE | {"video": {"id": source}, "model": "mute"}))
    assert (error["param"], error["code"]) == ("video", "unsupported_option")
    assert "mute cannot edit videos" in error["message"]
    assert "homereel-mini" in error["message"]
