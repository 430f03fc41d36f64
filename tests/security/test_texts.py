"""Texts that try to be something else: a path, a header, a line of the log, a piece of SQL, an id."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from server import images
from server.assets import AssetMissing, AssetStore
from server.deps import Services
from server.files import FileStore, plain_name
from server.jobs import JobId
from server.logs import JsonLines, TextLines
from tests.server.routes.conftest import movie, picture, refused

PATHS = [
    "../../../etc/passwd", "..\\..\\windows\\win.ini", "/etc/passwd", "C:\\x", "....//....//etc/passwd", "a/../../b",
    "..", ".", "...", "x\0.png", "x\r\nset-cookie: a=b", "%2e%2e%2fetc%2fpasswd", "..%c0%af..", "\u202egnp.exe",
    "~root/x", "$HOME/x", "`id`", "; rm -rf /", "|cat", "file:///etc/passwd", "con", "x" * 5000, "é" * 300, "\ufeff",
]  # fmt: skip
LINES = [
    'x"; filename="evil.html', "x\r\nSet-Cookie: a=b", "x\nLocation: http://evil.example/", "x\0y", 'x\\"y', "x;y=z",
    "x\u2028y", "naïve", "日本", "'\"><script>alert(1)</script>",
]  # fmt: skip
SQL = [
    "' OR '1'='1", "'; DROP TABLE job; --", '" OR ""="', "1); DELETE FROM job; --", "x' UNION SELECT 1 FROM api_key --",
    "%", "_", "\\", "?", ":id", "{0}", "%s", "video_' || '", "1 OR 1=1", "NULL", "\x1a",
]  # fmt: skip
WRONG_IDS = [
    "video_", "video_" + "0" * 47, "video_" + "0" * 49, "video_" + "g" * 48, "VIDEO_" + "0" * 48, "video_" + "A" * 48,
    "video_" + "0" * 48 + "\n", "file-" + "0" * 48, "char_" + "0" * 48, "0" * 48, "video_" + "\uff10" * 48,
    "video_../../" + "0" * 42, "-1", "0", "true", "null", "undefined", "[object Object]",
]  # fmt: skip
# Each takes an id in its path; what is no id of anything is not found there, and does nothing.
CALLS = [
    ("GET", "/v1/videos/{}"), ("POST", "/v1/videos/{}"), ("DELETE", "/v1/videos/{}"), ("POST", "/v1/videos/{}/cancel"),
    ("GET", "/v1/videos/{}/content"), ("GET", "/v1/videos/{}/preview"), ("GET", "/v1/videos/{}/events"),
    ("POST", "/v1/videos/{}/remix"), ("GET", "/v1/videos/characters/{}"), ("DELETE", "/v1/videos/characters/{}"),
    ("GET", "/v1/files/{}"), ("GET", "/v1/files/{}/content"), ("DELETE", "/v1/files/{}"), ("GET", "/v1/batches/{}"),
    ("POST", "/v1/batches/{}/cancel"), ("GET", "/v1/models/{}"), ("GET", "/v1/webhook_endpoints/{}"),
    ("DELETE", "/v1/webhook_endpoints/{}"), ("POST", "/v1/webhook_endpoints/{}/rotate_secret"),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_what_is_no_id_leads_nowhere(client: TestClient, call: tuple[str, str]) -> None:
    method, path = call
    body: dict[str, Any] = {"json": {"prompt": "x"}} if path.endswith("remix") else {"json": {}}
    body = {} if method in {"GET", "DELETE"} else body
    # To every client, "." and ".." are other addresses.
    for text in {*WRONG_IDS, *SQL, *PATHS} - {".", ".."}:
        answer = client.request(method, path.format(quote(text, safe="", errors="surrogatepass")), **body)
        if answer.status_code != 404:
            # So are those with a slash, which may take other methods.
            assert "/" in text, answer.text
            assert answer.status_code == 405
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}, text
        assert "root:" not in answer.text


@pytest.fixture
def one_video(client: TestClient) -> Iterator[str]:
    """A video that is there before the attack, and after it."""
    video = client.post("/v1/videos", json={"prompt": "the only one"}).json()["id"]
    yield video
    assert [found["id"] for found in client.get("/v1/videos").json()["data"]] == [video]
    client.delete(f"/v1/videos/{video}")


@pytest.mark.parametrize("field", ["after", "group", "model", "status", "order", "limit", "starred"])
def test_sql_in_a_query_is_a_value_that_nothing_has(client: TestClient, one_video: str, field: str) -> None:
    for text in SQL:
        answer = client.get("/v1/videos", params={field: text})
        if field in {"group", "model"}:
            assert (answer.status_code, answer.json()["data"]) == (200, []), text
        else:
            assert refused(answer)["param"] == field


def test_sql_in_texts_is_stored_and_shown_as_it_is(client: TestClient) -> None:
    for text in SQL:
        made = client.post("/v1/videos", json={"prompt": f"x{text}", "metadata": {"k": text}})
        video = client.get(f"/v1/videos/{made.json()['id']}").json()
        assert (video["prompt"], video["metadata"]) == (f"x{text}", {"k": text})
        client.delete(f"/v1/videos/{video['id']}")


def as_a_part(name: str) -> str:
    """Return a file's name as the header of a form's part can say it."""
    return name.replace("\0", "%00").replace("\r", "%0D").replace("\n", "%0A")


@pytest.mark.parametrize("text", [*PATHS, *LINES])
def test_no_name_of_a_file_leads_out_or_into_a_header(client: TestClient, data_dir: Path, text: str) -> None:
    kept = plain_name(text)
    assert kept
    assert not set(kept) & set("/\\\0\r\n\u2028\u202e")
    assert len(kept.encode()) <= 255
    before = set(data_dir.parent.iterdir())
    upload = client.post("/v1/files", data={"purpose": "user_data"}, files={"file": (as_a_part(text), b"content")})
    if upload.status_code == 400:
        assert (len(text), refused(upload)["code"]) == (5000, "invalid_body")
        return
    file = upload.json()
    served = client.get(f"/v1/files/{file['id']}/content")
    assert served.content == b"content"
    assert set(served.headers) & {"set-cookie", "location"} == set()
    assert served.headers["content-disposition"].startswith("attachment; filename")
    assert client.delete(f"/v1/files/{file['id']}").json()["deleted"] is True
    assert set(data_dir.parent.iterdir()) == before
    assert list((data_dir / "files").iterdir()) == []


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.usefixtures("unharmed")
def test_the_name_of_an_upload_is_not_where_it_goes(
    client: TestClient, data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # What is in it is looked at in other tests, in a process that takes its time.
    monkeypatch.setattr(images, "check", lambda *_: (64, 40))
    files = {"input_reference": (as_a_part(name), picture(), "image/png")}
    answer = client.post("/v1/videos", data={"prompt": "x"}, files=files)
    if answer.status_code == 400:
        assert (len(name), refused(answer)["code"]) == (5000, "invalid_body")
        return
    video = answer.json()["id"]
    kept = [path.relative_to(data_dir) for path in (data_dir / "assets").rglob("*") if path.is_file()]
    assert [str(path) for path in kept] == [f"assets/{video}/inputs/input_reference.png"]
    client.delete(f"/v1/videos/{video}")
    (data_dir / kept[0]).unlink()


@pytest.mark.parametrize("name", PATHS)
def test_the_stores_take_plain_names_only(tmp_path: Path, services: Services, name: str) -> None:
    assets = AssetStore(tmp_path / "assets")
    job = JobId("video_" + "0" * 48)
    if name in {"con", "x" * 5000}:
        assert assets.input_path(job, name).parent == tmp_path / "assets" / job / "inputs"
    else:
        with pytest.raises(AssetMissing):
            assets.input_path(job, name)
        with pytest.raises(AssetMissing):
            assets.save_input(JobId(name), "x", [])
    with pytest.raises(Exception, match="no file"):
        FileStore(services.store.engine, tmp_path, lambda: 0.0).content_path(name)  # pyright: ignore[reportArgumentType]


HEADERS = ["x-request-id", "idempotency-key", "openai-organization", "user-agent", "referer", "x-forwarded-for"]


@pytest.mark.parametrize("header", HEADERS)
def test_no_header_comes_back_as_one(client: TestClient, header: str) -> None:
    for text in ("a, b", "\x7f", "x" * 60_000, "<script>", "%0d%0aset-cookie:a=b", "\xff\xfe"):
        answer = client.get("/v1/models", headers={header.encode(): text.encode("latin-1")})
        assert answer.status_code == 200
        assert text not in answer.headers.values()
        assert "set-cookie" not in answer.headers


def test_what_an_answer_quotes_is_json_and_short(client: TestClient) -> None:
    page = "<script>alert(1)</script>" * 50
    for answer in (
        client.get(f"/v1/videos/{quote(page, safe='')}"),
        client.get(f"/{quote(page, safe='')}"),
        client.post("/v1/videos", json={"prompt": "x", page: 1}),
        client.post("/v1/videos", json={"prompt": "x", "model": page[:150]}),
        client.post("/v1/videos", content=b"x", headers={"content-type": f"text/x-{page}"}),
    ):
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.json()["error"]["message"]) < 600


@pytest.mark.parametrize(
    "text",
    [
        "x\n2026-01-01T00:00:00.000Z INFO job_finished id=video_forged",
        "x\r\nERROR forged", "\x1b[2J\x1b]0;owned\x07", "\x9b31m", "x\x85forged", "x\u2028forged", "\x08\x08\x08",
    ],
)  # fmt: skip
@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()], ids=["text", "json"])
def test_no_text_becomes_a_line_of_the_log_or_a_command_to_the_terminal(
    formatter: logging.Formatter, text: str
) -> None:
    into = io.StringIO()
    handler = logging.StreamHandler(into)
    handler.setFormatter(formatter)
    log = logging.Logger("x")
    log.addHandler(handler)
    log.warning("webhook_failed error=%s", text)
    log.error("request_failed id=%s", text, exc_info=ValueError(text))
    first, second, *rest = into.getvalue().split("\n")
    assert ("webhook_failed" in first, "request_failed" in second) == (True, True)
    assert all(line == "" or line.startswith("  | ") for line in rest)
    assert not set(into.getvalue()) & set("\r\x07\x08\x1b\x7f\x85\x9b\u2028\u2029")


def test_prompts_and_keys_are_in_no_line_of_the_log(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = "sk-somebodys-key-0123456789abcdef"
    headers = {"authorization": f"Bearer {secret}"}
    client.post("/v1/videos", json={"prompt": "a private wish", "colour": "private"}, headers=headers)
    client.post("/v1/videos?prompt=a+private+wish", content=b"private", headers=headers)
    files = {"file": ("private.png", picture())}
    client.post("/v1/files", data={"purpose": "private"}, files=files, headers=headers)
    client.post("/v1/videos/edits", data={"prompt": "private"}, files={"video": ("private.mp4", movie(frames=1))})
    # The client is this process's too, and has a log of its own.
    lines = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx2")]
    assert sum("request id=" in line for line in lines) == 4
    assert not any("private" in line or secret in line for line in lines)
    for video in client.get("/v1/videos").json()["data"]:
        client.delete(f"/v1/videos/{video['id']}")
