from __future__ import annotations

import re

import pytest
from fastapi.testclient import TestClient

from server.headers import PAGE
from server.keys import KeyStore
from server.store import JobStore
from tests.server.routes.conftest import refused


def files_of(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]+)"', page)


def test_the_page_and_all_that_it_names_is_there(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert page.headers["content-security-policy"] == PAGE
    named = files_of(page.text)
    assert any(name.endswith("app.js") for name in named)
    types = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    for name in named:
        file = client.get(name)
        assert file.headers["content-type"] == types[name.rpartition(".")[2]]
        assert "immutable" in file.headers["cache-control"]


def test_who_has_it_is_not_sent_it_again_but_keeps_its_policy(client: TestClient) -> None:
    page = client.get("/")
    again = client.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    # A browser takes the headers of this answer for the page's own.
    assert again.headers["content-security-policy"] == PAGE
    script = next(name for name in files_of(page.text) if name.endswith("app.js"))
    tag = client.get(script).headers["etag"]
    assert client.get(script, headers={"if-none-match": f'"other", W/{tag}'}).status_code == 304


def test_it_is_packed_for_whoever_can_unpack_it(client: TestClient) -> None:
    packed = client.get("/", headers={"accept-encoding": "gzip"})
    plain = client.get("/", headers={"accept-encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text
    assert packed.headers["vary"] == plain.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize(
    "path",
    [
        "/studio/0000000000000000/app.js",
        "/studio/{version}/__init__.py",
        "/studio/{version}/types.d.ts",
        "/studio/{version}/../settings.py",
        "/studio/{version}/%2e%2e/settings.py",
        "/studio/{version}/index.html",
        "/studio/{version}/",
        "/studio/",
    ],
)
def test_there_is_nothing_else(client: TestClient, path: str) -> None:
    version = files_of(client.get("/").text)[0].split("/")[2]
    refused(client.get(path.format(version=version)), 404)


def test_the_page_needs_no_key_and_nothing_else_comes_with_it(client: TestClient, store: JobStore) -> None:
    KeyStore(store.engine).create("ann")
    assert client.get("/").status_code == 200
    assert all(client.get(name).status_code == 200 for name in files_of(client.get("/").text))
    for path in ("/v1/videos", "/studio", "/studi", "/v1/studio/x"):
        refused(client.get(path), 401)
    for method in ("POST", "PUT", "DELETE"):
        refused(client.request(method, "/"), 401)
