from __future__ import annotations

import io
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.deps import Services
from tests.server.routes.conftest import refused


def upload(client: TestClient, content: bytes = b"abc", name: str = "a.png", **fields: Any) -> Any:
    data = {"purpose": "vision", **fields}
    return client.post("/v1/files", data=data, files={"file": (name, content, "image/png")})


def test_a_file_comes_back_as_it_was_sent(client: TestClient) -> None:
    content = bytes(range(256)) * 8000
    answer = upload(client, content, "clip.mp4", purpose="user_data")
    assert answer.status_code == 200
    file = answer.json()
    assert file["id"].startswith("file-")
    assert {key: value for key, value in file.items() if key not in {"id", "created_at"}} == {
        "object": "file",
        "bytes": len(content),
        "expires_at": None,
        "filename": "clip.mp4",
        "purpose": "user_data",
        "status": "processed",
        "status_details": None,
    }
    assert client.get(f"/v1/files/{file['id']}").json() == file
    download = client.get(f"/v1/files/{file['id']}/content")
    assert download.content == content
    assert download.headers["content-type"] == "application/octet-stream"
    assert download.headers["x-content-type-options"] == "nosniff"
    assert download.headers["content-disposition"] == 'attachment; filename="clip.mp4"'
    part = client.get(f"/v1/files/{file['id']}/content", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    same = client.get(f"/v1/files/{file['id']}/content", headers={"if-none-match": download.headers["etag"]})
    assert same.status_code == 304


@pytest.mark.parametrize("name", ['a"; x="b.png', "bild ü.png", "..\\..\\a.png", "a\tb.png"])
def test_no_name_breaks_the_headers(client: TestClient, name: str) -> None:
    file = upload(client, name=name).json()
    download = client.get(f"/v1/files/{file['id']}/content")
    assert download.status_code == 200
    assert download.headers["content-disposition"].startswith("attachment; filename")
    assert not any(character in file["filename"] for character in "\\/\t\r\n")


def test_files_are_listed_by_purpose_in_either_order_and_page_by_page(client: TestClient) -> None:
    made = [upload(client, name=f"{number}.png").json()["id"] for number in range(3)]
    other = upload(client, purpose="batch").json()["id"]
    everything = client.get("/v1/files").json()
    assert (everything["object"], everything["has_more"]) == ("list", False)
    assert [file["id"] for file in everything["data"]] == [other, *made[::-1]]
    assert (everything["first_id"], everything["last_id"]) == (other, made[0])
    page = client.get("/v1/files", params={"purpose": "vision", "order": "asc", "limit": 2}).json()
    assert ([file["id"] for file in page["data"]], page["has_more"]) == (made[:2], True)
    rest = client.get("/v1/files", params={"purpose": "vision", "order": "asc", "after": page["last_id"]}).json()
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == (made[2:], False)
    assert client.get("/v1/files", params={"purpose": "evals"}).json()["data"] == []


def test_a_deleted_file_is_gone(client: TestClient) -> None:
    file_id = upload(client).json()["id"]
    assert client.delete(f"/v1/files/{file_id}").json() == {"id": file_id, "object": "file", "deleted": True}
    for answer in (
        client.get(f"/v1/files/{file_id}"),
        client.get(f"/v1/files/{file_id}/content"),
        client.delete(f"/v1/files/{file_id}"),
    ):
        assert refused(answer, 404)["code"] == "file_not_found"


def test_a_file_may_be_told_when_to_go(client: TestClient) -> None:
    fields: dict[str, Any] = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = upload(client, **fields).json()
    assert file["expires_at"] == file["created_at"] + 3600


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"purpose": "fine-tune"}, "purpose", "invalid_value"),
        ({"purpose": "assistants"}, "purpose", "invalid_value"),
        ({"purpose": "batch_output"}, "purpose", "invalid_value"),
        ({"purpose": ""}, "purpose", "invalid_value"),
        ({"expires_after[seconds]": "3600"}, "expires_after", "missing_parameter"),
        ({"expires_after[anchor]": "now", "expires_after[seconds]": "3600"}, "expires_after", "invalid_value"),
        ({"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, "expires_after", "invalid_value"),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
            "expires_after",
            "invalid_value",
        ),
        ({"colour": "red"}, "colour", "unknown_parameter"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_kept(
    client: TestClient, change: dict[str, Any], param: str, code: str
) -> None:
    error = refused(upload(client, **change))
    assert (error["param"], error["code"]) == (param, code)
    assert client.get("/v1/files").json()["data"] == []


def test_a_purpose_without_a_file_and_a_file_without_a_purpose_are_refused(client: TestClient) -> None:
    for files, param, code in (
        ({"purpose": (None, "batch")}, "file", "missing_parameter"),
        ({"purpose": (None, "batch"), "file": (None, "text")}, "file", "invalid_type"),
        ({"purpose": (None, "batch"), "file": ("a.jsonl", b"")}, "file", "empty_file"),
        ({"file": ("a.jsonl", b"abc")}, "purpose", "missing_parameter"),
        ({"purpose": ("p.txt", b"batch"), "file": ("a.jsonl", b"abc")}, "purpose", "invalid_type"),
    ):
        error = refused(client.post("/v1/files", files=files))
        assert (error["param"], error["code"]) == (param, code)


def test_only_forms_carry_files(client: TestClient) -> None:
    assert refused(client.post("/v1/files", json={"purpose": "batch", "file": "abc"}))["code"] == "invalid_body"


def test_the_size_of_a_file_is_bounded_wherever_the_limit_is_noticed(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(services.settings.__dict__, "max_file_mb", 1)
    assert upload(client, b"x" * 1_000_000).status_code == 200
    for size in (1_000_001, 3_000_000):
        assert refused(upload(client, b"x" * size), 413)["code"] == "payload_too_large"

    def endless() -> Any:
        yield b'--B\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 100_000

    answer = client.post("/v1/files", content=endless(), headers={"content-type": "multipart/form-data; boundary=B"})
    assert refused(answer, 413)["code"] == "payload_too_large"


def test_all_files_together_are_bounded(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(services.settings.__dict__, "max_files_gb", 1e-6)
    first = upload(client, b"x" * 900).json()["id"]
    error = refused(upload(client, b"x" * 101), 413)
    assert error["code"] == "files_full"
    assert "HOMEREEL_MAX_FILES_GB" in error["message"]
    client.delete(f"/v1/files/{first}")
    assert upload(client, b"x" * 101).status_code == 200


@pytest.mark.parametrize("file_id", ["file-1", "x", "file-" + "0" * 48, "%00", "..%2F..%2Fetc%2Fpasswd"])
def test_what_is_not_there_is_not_found(client: TestClient, file_id: str) -> None:
    for path in (file_id, f"{file_id}/content"):
        assert refused(client.get(f"/v1/files/{path}"), 404)
    assert refused(client.get("/v1/files", params={"after": "x"}))["param"] == "after"


def test_files_without_a_length_are_taken(client: TestClient) -> None:
    """Node streams uploads in chunks, and calls everything application/octet-stream."""
    form = (
        b'--B\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        b'--B\r\ncontent-disposition: form-data; name="file"; filename="a.jsonl"\r\n'
        b"content-type: application/octet-stream\r\n\r\n{}\r\n--B--\r\n"
    )
    source = io.BytesIO(form)
    answer = client.post(
        "/v1/files",
        content=iter(lambda: source.read(7), b""),
        headers={"content-type": "multipart/form-data; boundary=B"},
    )
    assert (answer.status_code, answer.json()["bytes"]) == (200, 2)
