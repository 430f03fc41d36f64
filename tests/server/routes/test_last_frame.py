"""A picture for the end of a clip, for models that take one."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.jobs import JobId
from server.store import JobStore
from tests.server.routes.conftest import picture, refused

BOTH = "wan2.2-i2v-a14b"
PICTURES = {"input_reference": picture(), "last_frame": picture("JPEG", (80, 50))}


def url(content: bytes) -> dict[str, str]:
    return {"image_url": f"data:image/png;base64,{base64.b64encode(content).decode()}"}


@pytest.mark.parametrize("as_files", [True, False])
def test_both_ends_of_a_clip_come_as_files_or_as_addresses(
    client: TestClient, store: JobStore, *, as_files: bool
) -> None:
    words: dict[str, Any] = {"prompt": "a ball", "model": BOTH}
    if as_files:
        files = {name: (f"{name}.bin", content) for name, content in PICTURES.items()}
        answer = client.post("/v1/videos", data=words, files=files)
    else:
        answer = client.post("/v1/videos", json=words | {name: url(content) for name, content in PICTURES.items()})
    assert answer.status_code == 200, answer.text
    request = store.get(JobId(answer.json()["id"])).request
    assert [condition.frame for condition in request.conditions] == [0, request.shape.frames - 1]
    assert [condition.path.name for condition in request.conditions] == ["input_reference.png", "last_frame.jpg"]
    assert [condition.path.read_bytes() for condition in request.conditions] == list(PICTURES.values())
    assert answer.json()["num_frames"] == request.shape.frames == 65


def test_a_clip_of_several_windows_is_as_long_as_asked_for_and_ends_with_its_picture(
    client: TestClient, store: JobStore
) -> None:
    words: dict[str, Any] = {"prompt": "a ball", "model": BOTH, "seconds": "10"}
    video = client.post("/v1/videos", json=words | {name: url(content) for name, content in PICTURES.items()}).json()
    assert (video["num_frames"], video["seconds"]) == (161, "10.0625")
    assert any("161 frames instead of 160" in warning for warning in video["warnings"])
    request = store.get(JobId(video["id"])).request
    assert [condition.frame for condition in request.conditions] == [0, 160]
    assert len(request.windows) == 2


def test_every_variation_has_its_own_pictures(client: TestClient, store: JobStore) -> None:
    wanted = {"prompt": "a ball", "model": BOTH, "n": 2} | {name: url(content) for name, content in PICTURES.items()}
    videos = client.post("/v1/videos/variations", json=wanted).json()["data"]
    folders = set()
    for video in videos:
        conditions = store.get(JobId(video["id"])).request.conditions
        assert [condition.path.read_bytes() for condition in conditions] == list(PICTURES.values())
        folders |= {condition.path.parent for condition in conditions}
    assert len(folders) == 2


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"last_frame": url(PICTURES["last_frame"])}, "last_frame"),
        ({"model": BOTH, "last_frame": url(PICTURES["last_frame"])}, "input_reference"),
        ({"model": BOTH, "input_reference": url(PICTURES["input_reference"]), "last_frame": url(b"no picture")},
         "last_frame"),
        ({"model": BOTH, "input_reference": url(PICTURES["input_reference"]),
          "last_frame": url(PICTURES["last_frame"][:200])}, "last_frame"),
        ({"model": BOTH, "input_reference": url(PICTURES["input_reference"]), "last_frame": {"image_url": "x"}},
         "last_frame.image_url"),
        ({"model": BOTH, "input_reference": url(PICTURES["input_reference"]), "last_frame": 3}, "last_frame"),
        ({"model": "wan2.1-flf2v-14b", "input_reference": url(PICTURES["input_reference"])}, "last_frame"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_its_name(
    client: TestClient, store: JobStore, change: dict[str, Any], param: str
) -> None:
    error = refused(client.post("/v1/videos", json={"prompt": "a ball"} | change))
    assert error["param"] == param, error["message"]
    assert not store.waiting()
