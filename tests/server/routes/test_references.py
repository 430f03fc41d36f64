"""Reference images that a request points to, and how they are brought to the clip's size."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from server.app import create_app
from server.jobs import Job, JobId
from server.settings import Settings
from server.store import JobStore
from tests.server.routes.conftest import PROMPT, as_form, files_in, picture, refused
from tests.server.web_servers import WebServer, sends, web_server

PICTURE = picture()


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    settings = Settings(
        data_dir=tmp_path / "data",
        max_queued=20,
        max_upload_mb=2,
        max_image_pixels=1_000_000,
        allow_private_fetch=True,
    )
    return create_app(settings, supervise=False)


@pytest.fixture
def elsewhere() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def upload(client: TestClient, content: bytes = PICTURE, purpose: str = "vision") -> str:
    files = {"file": ("a.bin", content, "application/octet-stream")}
    return client.post("/v1/files", data={"purpose": purpose}, files=files).json()["id"]


def accepted(answer: Any, store: JobStore) -> Job:
    assert answer.status_code == 200, answer.text
    return store.get(JobId(answer.json()["id"]))


def kept(job: Job) -> bytes:
    (condition,) = job.request.conditions
    return condition.path.read_bytes()


@pytest.mark.parametrize("purpose", ["vision", "user_data"])
@pytest.mark.parametrize("encoding", ["json", "bracket", "text"])
def test_a_file_is_taken_by_its_id_in_every_encoding(
    client: TestClient, store: JobStore, encoding: str, purpose: str
) -> None:
    reference = {"file_id": upload(client, purpose=purpose)}
    answer = {
        "json": lambda: client.post("/v1/videos", json={**PROMPT, "input_reference": reference}),
        "bracket": lambda: as_form(client, {**PROMPT, "input_reference[file_id]": reference["file_id"]}),
        "text": lambda: as_form(client, {**PROMPT, "input_reference": json.dumps(reference)}),
    }[encoding]()
    job = accepted(answer, store)
    assert kept(job) == PICTURE
    # The video has its own copy.
    client.delete(f"/v1/files/{reference['file_id']}")
    assert kept(job) == PICTURE


@pytest.mark.parametrize("encoding", ["json", "bracket"])
def test_an_address_is_fetched(client: TestClient, store: JobStore, elsewhere: WebServer, encoding: str) -> None:
    elsewhere.answers["/old"] = sends(b"", 301, location="/a.png?x=1")
    elsewhere.answers["/a.png?x=1"] = sends(PICTURE, content_type="text/plain")
    url = f"http://127.0.0.1:{elsewhere.port}/old"
    answer = {
        "json": lambda: client.post("/v1/videos", json={**PROMPT, "input_reference": {"image_url": url}}),
        "bracket": lambda: as_form(client, {**PROMPT, "input_reference[image_url]": url}),
    }[encoding]()
    assert kept(accepted(answer, store)) == PICTURE


def test_a_request_that_is_refused_anyway_fetches_nothing(client: TestClient, elsewhere: WebServer) -> None:
    url = f"http://127.0.0.1:{elsewhere.port}/a.png"
    for change in ({"sesd": 7}, {"size": "huge"}, {"prompt": ""}):
        refused(client.post("/v1/videos", json={**PROMPT, **change, "input_reference": {"image_url": url}}))
    assert elsewhere.asked == []


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("url", [data_url(PICTURE), data_url(PICTURE, "text/html"), "DATA" + data_url(PICTURE)[4:]])
def test_data_urls_are_taken_whatever_kind_they_name(client: TestClient, store: JobStore, url: str) -> None:
    answer = client.post("/v1/videos", json={**PROMPT, "input_reference": {"image_url": url}})
    assert kept(accepted(answer, store)) == PICTURE


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ({"file_id": "file-1"}, ("input_reference.file_id", "file_not_found", 404)),
        ({"file_id": "file-" + "0" * 48}, ("input_reference.file_id", "file_not_found", 404)),
        ({"file_id": 7}, ("input_reference", "invalid_type", 400)),
        ({"file_id": "file-1", "image_url": "https://a/"}, ("input_reference", "invalid_type", 400)),
        ({"image_url": "ftp://host/a.png"}, ("input_reference.image_url", "address_not_allowed", 400)),
        ({"image_url": "https://user:secret@host/a.png"}, ("input_reference.image_url", "address_not_allowed", 400)),
        ({"image_url": ""}, ("input_reference.image_url", "address_not_allowed", 400)),
        ({"image_url": "http://127.0.0.1:{port}/none"}, ("input_reference.image_url", "fetch_failed", 400)),
        ({"image_url": "http://127.0.0.1:{port}/text"}, ("input_reference", "invalid_image", 400)),
        ({"image_url": "http://127.0.0.1:{port}/half"}, ("input_reference", "invalid_image", 400)),
        ({"image_url": "http://127.0.0.1:{port}/large"}, ("input_reference.image_url", "fetch_failed", 400)),
        ({"image_url": "data:image/png,abc"}, ("input_reference.image_url", "invalid_value", 400)),
        ({"image_url": "data:image/png;base64"}, ("input_reference.image_url", "invalid_value", 400)),
        ({"image_url": "data:image/png;base64,a"}, ("input_reference.image_url", "invalid_value", 400)),
        ({"image_url": "data:image/png;base64,ü"}, ("input_reference.image_url", "invalid_value", 400)),
    ],
)
def test_what_leads_to_no_picture_is_refused_and_nothing_is_kept(
    client: TestClient,
    tmp_path: Path,
    elsewhere: WebServer,
    reference: dict[str, Any],
    complaint: tuple[str, str, int],
) -> None:
    param, code, status = complaint
    elsewhere.answers |= {
        "/text": sends(b"<svg>", content_type="image/png"),
        "/half": sends(PICTURE[: len(PICTURE) // 2]),
        "/large": sends(b"x" * 2_000_001),
    }
    text = json.dumps(reference).replace("{port}", str(elsewhere.port))
    answer = client.post("/v1/videos", json={**PROMPT, "input_reference": json.loads(text)})
    error = refused(answer, status)
    assert (error["param"], error["code"]) == (param, code)
    assert files_in(tmp_path / "data" / "assets") == []


def test_a_file_for_something_else_is_refused(client: TestClient) -> None:
    reference = {"file_id": upload(client, b"{}", "batch")}
    error = refused(client.post("/v1/videos", json={**PROMPT, "input_reference": reference}))
    assert (error["param"], error["code"]) == ("input_reference.file_id", "invalid_purpose")


def test_a_file_that_is_no_picture_is_refused(client: TestClient) -> None:
    reference = {"file_id": upload(client, b"no picture")}
    assert refused(client.post("/v1/videos", json={**PROMPT, "input_reference": reference}))["code"] == "invalid_image"


def test_private_addresses_are_refused_by_default(tmp_path: Path, elsewhere: WebServer) -> None:
    elsewhere.answers["/a.png"] = sends(PICTURE)
    app = create_app(Settings(data_dir=tmp_path), supervise=False)
    with TestClient(app) as client:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            url = f"http://{host}:{elsewhere.port}/a.png"
            error = refused(client.post("/v1/videos", json={**PROMPT, "input_reference": {"image_url": url}}))
            assert (error["code"], error["param"]) == ("address_not_allowed", "input_reference.image_url")
    assert elsewhere.asked == []


@pytest.mark.parametrize(("fit", "condition"), [(None, "cover"), ("cover", "cover"), ("contain", "contain")])
def test_the_fit_reaches_the_model(client: TestClient, store: JobStore, fit: str | None, condition: str) -> None:
    parameters = {**PROMPT, "input_reference": {"file_id": upload(client)}, **({"reference_fit": fit} if fit else {})}
    (made,) = accepted(client.post("/v1/videos", json=parameters), store).request.conditions
    assert made.fit == condition


def test_exact_takes_the_size_of_the_video_only(client: TestClient, store: JobStore, tmp_path: Path) -> None:
    parameters = {**PROMPT, "size": "320x192", "reference_fit": "exact"}
    right = {"file_id": upload(client, picture(size=(320, 192)))}
    accepted(client.post("/v1/videos", json={**parameters, "input_reference": right}), store)
    before = files_in(tmp_path / "data" / "assets")
    # The second is what the model makes before it is scaled, which nobody needs to know.
    for size in ((320, 191), (160, 96)):
        wrong = {"file_id": upload(client, picture(size=size))}
        error = refused(client.post("/v1/videos", json={**parameters, "input_reference": wrong}))
        assert error["message"].startswith("Inpaint image must match the requested width and height")
        assert (error["param"], error["code"]) == ("input_reference", "image_size_mismatch")
    assert files_in(tmp_path / "data" / "assets") == before


def test_a_fit_that_does_not_exist_is_refused(client: TestClient) -> None:
    assert refused(client.post("/v1/videos", json={**PROMPT, "reference_fit": "fill"}))["param"] == "reference_fit"


def test_a_picture_that_is_turned_by_its_camera_counts_as_seen(client: TestClient, tmp_path: Path) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 160)).save(turned, exif=exif)
    parameters = {**PROMPT, "size": "160x96", "reference_fit": "exact"}
    reference = {"file_id": upload(client, turned.read_bytes())}
    assert client.post("/v1/videos", json={**parameters, "input_reference": reference}).status_code == 200
