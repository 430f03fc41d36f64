"""Webhook endpoints over HTTP: the wire, and what is refused with which words."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient

from server.app import create_app
from server.outbox import WEBHOOK_TYPES
from server.settings import Settings
from server.webhook_schemas import WebhookType
from server.webhooks import MAX_ENDPOINTS
from tests.server.routes.conftest import refused

PUBLIC = "https://93.184.215.14/hook"
WISH = {"name": "mine", "url": PUBLIC, "event_types": ["video.completed", "video.failed"]}
SHOWN = {"id", "object", "name", "url", "event_types", "created_at", "updated_at", "signing_secret_hint"}


@pytest.fixture
def made(client: TestClient) -> dict[str, Any]:
    answer = client.post("/v1/webhook_endpoints", json=WISH)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_endpoint_shows_its_secret_once(client: TestClient, made: dict[str, Any]) -> None:
    assert set(made) == {*SHOWN, "signing_secret"}
    assert made["object"] == "webhook_endpoint"
    assert {key: made[key] for key in WISH} == WISH
    assert made["created_at"] == made["updated_at"]
    assert made["signing_secret"].startswith("whsec_")
    assert made["signing_secret_hint"] not in {"", made["signing_secret"]}
    found = client.get(f"/v1/webhook_endpoints/{made['id']}").json()
    assert found == {key: made[key] for key in SHOWN}


def test_a_form_says_the_same_as_json(client: TestClient) -> None:
    parts = [("name", "mine"), ("url", PUBLIC), *(("event_types[]", kind) for kind in WISH["event_types"])]
    made = client.post("/v1/webhook_endpoints", files=[(name, (None, value)) for name, value in parts]).json()
    assert {key: made[key] for key in WISH} == WISH


def test_a_type_that_is_named_twice_is_delivered_once(client: TestClient) -> None:
    types = ["video.failed", "video.completed", "video.failed"]
    made = client.post("/v1/webhook_endpoints", json=WISH | {"event_types": types}).json()
    assert made["event_types"] == ["video.failed", "video.completed"]


def test_an_update_changes_what_it_names(client: TestClient, made: dict[str, Any]) -> None:
    path = f"/v1/webhook_endpoints/{made['id']}"
    same = client.post(path, json={}).json()
    assert same == {key: made[key] for key in SHOWN}
    renamed = client.post(path, json={"name": "other"}).json()
    assert renamed == {**same, "name": "other", "updated_at": renamed["updated_at"]}
    changed = client.post(path, json={"event_types": ["batch.completed"], "url": f"{PUBLIC}2"}).json()
    assert (changed["event_types"], changed["url"], changed["name"]) == (["batch.completed"], f"{PUBLIC}2", "other")
    assert client.get(path).json() == changed


def test_endpoints_are_listed_newest_first(client: TestClient) -> None:
    ids = [client.post("/v1/webhook_endpoints", json=WISH).json()["id"] for _ in range(3)]
    page = client.get("/v1/webhook_endpoints", params={"limit": 2}).json()
    assert [endpoint["id"] for endpoint in page["data"]] == ids[:0:-1]
    assert (page["object"], page["first_id"], page["last_id"], page["has_more"]) == ("list", ids[2], ids[1], True)
    assert all(set(endpoint) == SHOWN for endpoint in page["data"])
    rest = client.get("/v1/webhook_endpoints", params={"after": ids[1]}).json()
    assert ([endpoint["id"] for endpoint in rest["data"]], rest["has_more"]) == (ids[:1], False)
    assert refused(client.get("/v1/webhook_endpoints", params={"after": "x"}))["param"] == "after"


def test_a_deleted_endpoint_is_gone(client: TestClient, made: dict[str, Any]) -> None:
    path = f"/v1/webhook_endpoints/{made['id']}"
    expected = {"id": made["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    assert client.delete(path).json() == expected
    for call in (
        lambda: client.get(path),
        lambda: client.post(path, json={"name": "x"}),
        lambda: client.delete(path),
        lambda: client.post(f"{path}/rotate_secret", json={}),
        lambda: client.post(f"{path}/test", json={"event_type": "video.failed"}),
    ):
        error = refused(call(), 404)
        assert (error["code"], error["param"]) == ("webhook_endpoint_not_found", "webhook_endpoint_id")


@pytest.mark.parametrize("body", [{}, {"keep_old_secret_active_for_24_hours": True}, None])
def test_a_rotated_secret_is_shown_once(client: TestClient, made: dict[str, Any], body: dict[str, bool] | None) -> None:
    rotated = client.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret", json=body).json()
    assert set(rotated) == {*SHOWN, "signing_secret"}
    assert rotated["signing_secret"] != made["signing_secret"]
    assert rotated["signing_secret_hint"] != made["signing_secret_hint"]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"event_types": ["response.completed"]}, "event_types", "invalid_value"),
        ({"event_types": ["video.started"]}, "event_types", "invalid_value"),
        ({"event_types": []}, "event_types", "invalid_value"),
        ({"event_types": "video.completed"}, "event_types", "invalid_value"),
        ({"event_types": None}, "event_types", "invalid_type"),
        ({"event_types": [1]}, "event_types", "invalid_value"),
        ({"name": ""}, "name", "invalid_value"),
        ({"name": "\0"}, "name", "invalid_value"),
        ({"name": 7}, "name", "invalid_type"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"url": 7}, "url", "invalid_type"),
        ({"url": ""}, "url", "address_not_allowed"),
        ({"url": "ftp://example.com/"}, "url", "address_not_allowed"),
        ({"url": "https://user:secret@example.com/"}, "url", "address_not_allowed"),
        ({"url": f"https://example.com/{'x' * 5000}"}, "url", "address_not_allowed"),
        ({"url": "http://localhost:9/hook"}, "url", "address_not_allowed"),
        ({"url": "http://127.0.0.1/hook"}, "url", "address_not_allowed"),
        ({"url": "http://192.168.1.2/hook"}, "url", "address_not_allowed"),
        ({"url": "http://169.254.169.254/latest"}, "url", "address_not_allowed"),
        ({"url": "http://[::1]/hook"}, "url", "address_not_allowed"),
    ],
)
def test_what_cannot_be_is_refused(client: TestClient, change: dict[str, object], param: str, code: str) -> None:
    error = refused(client.post("/v1/webhook_endpoints", json=WISH | change))
    assert (error["param"], error["code"]) == (param, code)
    assert client.get("/v1/webhook_endpoints").json()["data"] == []


def test_every_parameter_is_needed(client: TestClient) -> None:
    for name in WISH:
        rest = {key: value for key, value in WISH.items() if key != name}
        error = refused(client.post("/v1/webhook_endpoints", json=rest))
        assert (error["param"], error["code"]) == (name, "missing_parameter")


def test_a_refused_update_changes_nothing(client: TestClient, made: dict[str, Any]) -> None:
    path = f"/v1/webhook_endpoints/{made['id']}"
    error = refused(client.post(path, json={"name": "other", "url": "http://10.0.0.1/"}))
    assert error["param"] == "url"
    assert "HOMEREEL_ALLOW_PRIVATE_FETCH" in error["message"]
    assert client.get(path).json()["name"] == "mine"


def test_there_may_only_be_so_many(client: TestClient) -> None:
    for _ in range(MAX_ENDPOINTS):
        assert client.post("/v1/webhook_endpoints", json=WISH).status_code == 200
    assert refused(client.post("/v1/webhook_endpoints", json=WISH))["code"] == "too_many_webhook_endpoints"


def test_the_types_are_those_that_happen_here(client: TestClient) -> None:
    assert get_args(WebhookType) == WEBHOOK_TYPES
    listed = client.get("/v1/webhook_event_types").json()
    assert listed["object"] == "list"
    assert {"video.completed", "video.failed", "batch.completed"} <= set(listed["data"])
    made = client.post("/v1/webhook_endpoints", json=WISH | {"event_types": listed["data"]}).json()
    assert made["event_types"] == listed["data"]


class Receiver(BaseHTTPRequestHandler):
    """Answers with the number at the end of the path."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(int(self.path.rsplit("/", 1)[-1]))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the parent's name


@pytest.fixture
def receiver() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def at_home(tmp_path: Path) -> Iterator[TestClient]:
    """A server whose operator lets clients name addresses at home."""
    settings = Settings(data_dir=tmp_path / "home", allow_private_fetch=True)
    with TestClient(create_app(settings, supervise=False)) as client:
        yield client


def endpoint_at(client: TestClient, url: str) -> str:
    answer = client.post("/v1/webhook_endpoints", json=WISH | {"url": url})
    assert answer.status_code == 200, answer.text
    return f"/v1/webhook_endpoints/{answer.json()['id']}"


@pytest.mark.parametrize("status", [200, 204, 302, 404, 500])
def test_a_test_tells_what_the_receiver_answered(at_home: TestClient, receiver: str, status: int) -> None:
    path = endpoint_at(at_home, f"{receiver}/{status}")
    answer = at_home.post(f"{path}/test", json={"event_type": "video.completed"})
    assert answer.json() == {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": path.rsplit("/", 1)[-1],
        "event_type": "video.completed",
        "status_code": status,
        "success": True,
    }


def test_a_test_of_a_receiver_that_is_not_there_says_so(at_home: TestClient, receiver: str) -> None:
    path = endpoint_at(at_home, "http://127.0.0.1:9/")
    answer = at_home.post(f"{path}/test", json={"event_type": "video.failed"})
    assert refused(answer)["code"] == "webhook_unreachable"
    # The official clients would try again otherwise.
    assert answer.headers["x-should-retry"] == "false"
    assert refused(at_home.post(f"{path}/test", json={"event_type": "video.started"}))["param"] == "event_type"
