from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.app import create_app
from server.jobs import JobId
from server.settings import Settings
from server.store import JobStore
from tests.server.routes.conftest import PROMPT, as_form, files_in, in_pieces, picture, refused, send_file

EVERYTHING = {
    "prompt": "a red ball\non grass",
    "model": "sora-2-pro",
    "seconds": 3,
    "size": "320x192",
    "seed": 42,
    "negative_prompt": "rain",
    "num_inference_steps": 12,
    "guidance_scale": 3.5,
    "fps": 8,
}


def test_both_encodings_make_the_same_job_and_the_answer_echoes_it(post: Callable[..., Any], store: JobStore) -> None:
    answer = post(EVERYTHING)
    assert answer.status_code == 200
    video = answer.json()
    assert {key: video[key] for key in EVERYTHING} == {**EVERYTHING, "seconds": "3"}
    assert (video["status"], video["native_size"], video["num_frames"]) == ("queued", "160x96", 24)
    assert video["warnings"]
    job = store.get(JobId(video["id"]))
    assert (job.card, job.request.delivery.size, job.request.seed) == ("homereel-mini", "320x192", 42)


def test_what_is_left_out_is_decided_and_said(post: Callable[..., Any]) -> None:
    first, second = post(PROMPT).json(), post(PROMPT).json()
    assert (first["model"], first["size"], first["seconds"], first["fps"]) == ("sora-2", "160x96", "4", 8)
    assert first["seed"] != second["seed"]


def test_the_operator_says_which_steps_are_spared_where_the_request_does_not(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, step_cache=0.1), supervise=False)
    with TestClient(app) as client:
        for asked, meant in (({}, 0.1), ({"step_cache": 0.2}, 0.2), ({"step_cache": 0}, 0.0)):
            answer = client.post("/v1/videos", json={**PROMPT, **asked})
            assert answer.status_code == 200, answer.text
            assert app.state.services.store.get(JobId(answer.json()["id"])).request.step_cache == meant


def test_null_means_left_out(client: TestClient) -> None:
    answer = client.post("/v1/videos", json={**PROMPT, "seed": None, "size": None, "input_reference": None})
    assert answer.status_code == 200


def test_the_job_is_stored_before_the_answer_and_the_client_is_told_when_to_ask(
    client: TestClient, store: JobStore
) -> None:
    answer = client.post("/v1/videos", json=PROMPT)
    assert store.get(JobId(answer.json()["id"]))
    assert 250 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["openai-version"]


def test_nodes_line_ends_are_put_right(client: TestClient) -> None:
    answer = client.post("/v1/videos", files={"prompt": (None, "one\r\ntwo\rthree\nfour")})
    assert answer.json()["prompt"] == "one\ntwo\nthree\nfour"


def test_json_needs_no_content_type(client: TestClient) -> None:
    assert client.post("/v1/videos", content=json.dumps(PROMPT).encode()).status_code == 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_becomes_the_first_frame_whatever_it_is_called(
    client: TestClient, store: JobStore, kind: str
) -> None:
    content = picture(kind)
    answer = send_file(client, content, name="../../etc/passwd", kind="application/octet-stream")
    assert answer.status_code == 200, answer.text
    [condition] = store.get(JobId(answer.json()["id"])).request.conditions
    assert (condition.frame, condition.path.read_bytes()) == (0, content)


@pytest.mark.parametrize("way", ["json", "bracket", "text"])
def test_a_data_url_is_as_good_as_a_file(client: TestClient, store: JobStore, way: str) -> None:
    content = picture()
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    answer = {
        "json": lambda: client.post("/v1/videos", json={**PROMPT, "input_reference": {"image_url": url}}),
        "bracket": lambda: as_form(client, {**PROMPT, "input_reference[image_url]": url}),
        "text": lambda: as_form(client, {**PROMPT, "input_reference": json.dumps({"image_url": url})}),
    }[way]()
    assert answer.status_code == 200, answer.text
    [condition] = store.get(JobId(answer.json()["id"])).request.conditions
    assert condition.path.read_bytes() == content


def test_nothing_of_a_picture_stays_when_the_queue_is_full(
    client: TestClient, create: Callable[..., str], tmp_path: Path
) -> None:
    ids = {create() for _ in range(20)}
    answer = send_file(client, picture())
    assert refused(answer, 429)["code"] == "queue_full"
    assert int(answer.headers["retry-after"]) > 0
    assert {video["id"] for video in client.get("/v1/videos?limit=100").json()["data"]} == ids
    assert files_in(tmp_path / "assets") == []


def test_an_upload_may_come_in_pieces_of_any_size(client: TestClient, store: JobStore) -> None:
    whole = client.build_request("POST", "/v1/videos", data=PROMPT, files={"input_reference": ("x.png", picture())})
    content = whole.read()
    answer = client.post(
        "/v1/videos", content=in_pieces(content, 7), headers={"content-type": whole.headers["content-type"]}
    )
    assert answer.status_code == 200, answer.text
    assert store.get(JobId(answer.json()["id"])).request.conditions
