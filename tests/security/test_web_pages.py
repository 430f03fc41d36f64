"""What web pages from elsewhere can make a browser do to a server on the loopback interface: nothing that counts.

A page cannot read answers of another origin, but it can send forms and plain texts to it (CSRF), embed what is there,
and have a name of its own resolve to this machine, which makes the server a part of its origin (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from server.headers import OTHERS, PAGE, SafeHeaders
from server.keys import KeyStore
from server.store import JobStore
from tests.server.routes.conftest import app_in, refused

HERE = {"host": "127.0.0.1:7672"}
SIMPLE = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=B", "text/plain")
FORM = b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red ball\r\n--B--\r\n'
FOREIGN = [
    "https://evil.example", "http://evil.example:7672", "http://127.0.0.1", "http://127.0.0.1:3000",
    "http://127.0.0.1:76720", "http://127.0.0.1:7672.evil.example", "http://localhost:7672", "http://user@127.0.0.1:7672",
    "null", "", "file://", "chrome-extension://abc", "http://[::1]:7672", "http://127.0.0.1:7672@evil.example",
]  # fmt: skip
CHANGES = [
    ("POST", "/v1/videos"), ("POST", "/v1/videos/edits"), ("POST", "/v1/videos/characters"), ("POST", "/v1/files"),
    ("POST", "/v1/batches"), ("POST", "/v1/webhook_endpoints"), ("POST", "/v1/videos/video_0/cancel"),
    ("POST", "/v1/videos/estimate"), ("DELETE", "/v1/videos/video_0"), ("DELETE", "/v1/files/file-0"),
    ("PUT", "/v1/videos"), ("PATCH", "/v1/videos"), ("POST", "/"), ("POST", "/nowhere"),
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_no_page_from_elsewhere_makes_a_video(client: TestClient, origin: str) -> None:
    for kind in SIMPLE:
        headers = {**HERE, "origin": origin, "content-type": kind}
        assert refused(client.post("/v1/videos", content=FORM, headers=headers), 403)["code"] == "origin_not_allowed"
    assert client.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_no_page_from_elsewhere_changes_anything(client: TestClient, change: tuple[str, str]) -> None:
    answer = client.request(*change, headers={**HERE, "origin": "https://evil.example"})
    assert refused(answer, 403)["code"] == "origin_not_allowed"


@pytest.mark.parametrize(
    "headers",
    [
        {**HERE, "origin": "http://127.0.0.1:7672"},
        {**HERE, "origin": "HTTP://127.0.0.1:7672"},
        {"host": "localhost:7672", "origin": "http://localhost:7672"},
        {"host": "[::1]:7672", "origin": "http://[::1]:7672"},
        {"host": "gpu.local:7672", "origin": "http://gpu.local:7672"},
        # The SDKs, curl and every other program that is no browser.
        HERE,
        {},
    ],
)
def test_our_own_page_and_programs_get_through(client: TestClient, headers: dict[str, str]) -> None:
    made = client.post("/v1/videos", json={"prompt": "a red ball"}, headers=headers)
    assert made.status_code == 200
    assert client.delete(f"/v1/videos/{made.json()['id']}", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7672", "127.0.0.1.evil.example", "localhost.evil.example:7672",
        "evil.localhost.com",
        "127.0.0.1@evil.example", "evil.example#127.0.0.1", "evil.example:7672:127.0.0.1", "[evil.example]",
        "[::1].evil.example", "127.0.0.1 evil.example", "localhost:7672.evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "HEAD"])
def test_a_name_that_was_made_to_lead_here_gets_nothing(client: TestClient, host: str, method: str) -> None:
    answer = client.request(method, "/v1/videos", headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 403
    assert method == "HEAD" or refused(answer, 403)["code"] == "host_not_allowed"


def test_no_answer_is_for_pages_of_other_origins(client: TestClient) -> None:
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    for answer in (
        client.options("/v1/videos", headers={**HERE, "origin": "https://evil.example", **preflight}),
        client.get("/v1/videos", headers={**HERE, "origin": "https://evil.example"}),
    ):
        assert not any(name.startswith("access-control-") for name in answer.headers)


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[TestClient]:
    with TestClient(app_in(tmp_path)) as client:
        store = JobStore.open(f"sqlite:///{tmp_path / 'homereel.sqlite3'}")
        KeyStore(store.engine).create("ann")
        store.close()
        yield client


def test_with_a_key_a_browser_has_nothing_to_send_by_itself(keyed: TestClient) -> None:
    """No cookie, no password that a browser keeps: without the page's own script no request is anybody's."""
    for headers in (
        {"origin": "https://evil.example"},
        {"cookie": "key=sk-homereel-x"},
        {"authorization": "Basic YTpi"},
    ):
        answer = keyed.post("/v1/videos", content=FORM, headers={**HERE, **headers, "content-type": SIMPLE[1]})
        assert refused(answer, 401)["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "set-cookie" not in answer.headers


ANSWERS = ["/health", "/ready", "/openapi.json", "/metrics", "/v1/videos", "/v1/videos/video_0", "/nowhere"]


@pytest.mark.parametrize("path", ANSWERS)
def test_every_answer_tells_browsers_to_make_nothing_of_it(client: TestClient, path: str) -> None:
    for headers in (HERE, {"host": "evil.example"}):
        answer = client.get(path, headers=headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-site"
        assert answer.headers["content-security-policy"] == OTHERS


def directives(policy: str) -> dict[str, list[str]]:
    return {name: sources for name, *sources in (part.split() for part in policy.split(";"))}


def test_a_page_may_run_and_load_only_what_is_ours() -> None:
    app = FastAPI()
    app.add_middleware(SafeHeaders)

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse("<!doctype html>")

    @app.get("/own")
    def own() -> HTMLResponse:
        return HTMLResponse("<!doctype html>", headers={"content-security-policy": "default-src 'none'"})

    client = TestClient(app)
    answer = client.get("/")
    assert answer.headers["content-security-policy"] == PAGE
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert client.get("/own").headers["content-security-policy"] == "default-src 'none'"


def test_the_policies_allow_nothing_from_elsewhere_nothing_inline_and_no_frame() -> None:
    for policy in (PAGE, OTHERS):
        found = directives(policy)
        assert found["default-src"] == ["'none'"]
        assert [found[name] for name in ("base-uri", "form-action", "frame-ancestors")] == [["'none'"]] * 3
        sources = {source for name, listed in found.items() if name != "sandbox" for source in listed}
        assert sources <= {"'none'", "'self'", "blob:", "data:"}
    scripts: Any = directives(PAGE)["script-src"]
    assert scripts == ["'self'"]
