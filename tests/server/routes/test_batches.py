from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.batch_runner import BatchRunner
from server.batch_types import ACTIVE, BatchId
from server.deps import Services
from tests.server.routes.conftest import Hand, refused

LINE = {"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a red ball"}}
ORDER = {"endpoint": "/v1/videos", "completion_window": "24h"}


@pytest.fixture(autouse=True)
def nobody_carries_batches_out_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.batch_runner.BatchRunner.tick", lambda self: False)


@pytest.fixture
def runner(services: Services) -> BatchRunner:
    return BatchRunner(services)


def submit(client: TestClient, *lines: Any, **changes: Any) -> dict[str, Any]:
    content = "\n".join(json.dumps(line) for line in lines or [LINE])
    file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", content)}).json()
    answer = client.post("/v1/batches", json={"input_file_id": file["id"], **ORDER, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


def settle(runner: BatchRunner, services: Services, batch_id: str) -> None:
    while runner.advance(services.batches.get(BatchId(batch_id))):
        pass


def test_a_batch_says_all_of_itself_from_the_start(client: TestClient) -> None:
    batch = submit(client, metadata={"scene": "one"})
    assert batch["id"].startswith("batch_")
    assert batch["input_file_id"].startswith("file-")
    assert batch["expires_at"] == batch["created_at"] + 86_400
    assert {key: value for key, value in batch.items() if key not in {"id", "input_file_id"}} == {
        "object": "batch",
        "endpoint": "/v1/videos",
        "completion_window": "24h",
        "status": "validating",
        "created_at": batch["created_at"],
        "expires_at": batch["expires_at"],
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": {"scene": "one"},
        "errors": None,
        **dict.fromkeys(("output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "completed_at")),
        **dict.fromkeys(("failed_at", "expired_at", "cancelling_at", "cancelled_at")),
    }
    assert client.get(f"/v1/batches/{batch['id']}").json() == batch


def test_a_batch_becomes_videos_and_files(
    client: TestClient, runner: BatchRunner, services: Services, hand: Hand
) -> None:
    batch_id = submit(client, LINE, {**LINE, "custom_id": "b", "body": {"size": "huge"}})["id"]
    settle(runner, services, batch_id)
    batch = client.get(f"/v1/batches/{batch_id}").json()
    assert (batch["status"], batch["request_counts"]) == ("in_progress", {"total": 2, "completed": 0, "failed": 1})
    (video,) = client.get("/v1/videos", params={"group": batch_id}).json()["data"]
    hand.finish(video["id"])
    settle(runner, services, batch_id)
    batch = client.get(f"/v1/batches/{batch_id}").json()
    assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 2, "completed": 1, "failed": 1})
    output = json.loads(client.get(f"/v1/files/{batch['output_file_id']}/content").text)
    made = client.get(f"/v1/videos/{video['id']}").json()
    assert (output["custom_id"], output["response"]["body"]) == ("a", made)
    errors = json.loads(client.get(f"/v1/files/{batch['error_file_id']}/content").text)
    assert errors["custom_id"] == "b"
    assert client.get(f"/v1/files/{batch['output_file_id']}").json()["purpose"] == "batch_output"


def test_a_bad_input_file_fails_with_the_numbers_of_its_lines(
    client: TestClient, runner: BatchRunner, services: Services
) -> None:
    batch_id = submit(client, LINE, LINE)["id"]
    settle(runner, services, batch_id)
    batch = client.get(f"/v1/batches/{batch_id}").json()
    assert batch["status"] == "failed"
    assert batch["errors"]["object"] == "list"
    (error,) = batch["errors"]["data"]
    assert (error["line"], error["code"], error["param"]) == (2, "duplicate_custom_id", "custom_id")


def test_cancelling_ends_in_cancelled_and_can_be_repeated(
    client: TestClient, runner: BatchRunner, services: Services
) -> None:
    batch_id = submit(client)["id"]
    assert client.post(f"/v1/batches/{batch_id}/cancel").json()["status"] == "cancelling"
    settle(runner, services, batch_id)
    batch = client.post(f"/v1/batches/{batch_id}/cancel").json()
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] >= batch["cancelling_at"] >= batch["created_at"]
    assert batch == client.get(f"/v1/batches/{batch_id}").json()


def test_batches_are_listed_page_by_page(client: TestClient) -> None:
    made = [submit(client)["id"] for _ in range(3)]
    page = client.get("/v1/batches", params={"limit": 2}).json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (made[:0:-1], True)
    assert (page["first_id"], page["last_id"]) == (made[2], made[1])
    rest = client.get("/v1/batches", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == (made[:1], False)


@pytest.mark.parametrize(
    ("change", "param", "code", "status"),
    [
        ({"endpoint": "/v1/chat/completions"}, "endpoint", "invalid_value", 400),
        ({"endpoint": None}, "endpoint", "invalid_value", 400),
        ({"completion_window": "1h"}, "completion_window", "invalid_value", 400),
        ({"metadata": {"a": 1}}, "metadata", "invalid_type", 400),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata", "invalid_value", 400),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 5}},
            "output_expires_after",
            "invalid_value",
            400,
        ),
        ({"input_file_id": 7}, "input_file_id", "invalid_type", 400),
        ({"input_file_id": "file-1"}, "input_file_id", "file_not_found", 404),
        ({"input_file_id": "file-" + "0" * 48}, "input_file_id", "file_not_found", 404),
        ({"colour": "red"}, "colour", "unknown_parameter", 400),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: TestClient, services: Services, change: dict[str, Any], param: str, code: str, status: int
) -> None:
    file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("in.jsonl", json.dumps(LINE))}).json()
    error = refused(client.post("/v1/batches", json={"input_file_id": file["id"], **ORDER, **change}), status)
    assert (error["param"], error["code"]) == (param, code)
    assert services.batches.active() == ()


def test_what_is_missing_is_named(client: TestClient) -> None:
    assert refused(client.post("/v1/batches", json=ORDER))["param"] == "input_file_id"


def test_the_input_must_have_been_uploaded_for_a_batch(client: TestClient) -> None:
    file = client.post("/v1/files", data={"purpose": "vision"}, files={"file": ("in.jsonl", "{}")}).json()
    error = refused(client.post("/v1/batches", json={"input_file_id": file["id"], **ORDER}))
    assert (error["param"], error["code"]) == ("input_file_id", "invalid_purpose")


@pytest.mark.parametrize("batch_id", ["batch_1", "x", "batch_" + "0" * 48, "%00"])
def test_what_is_not_there_is_not_found(client: TestClient, batch_id: str) -> None:
    assert refused(client.get(f"/v1/batches/{batch_id}"), 404)["code"] == "batch_not_found"
    assert refused(client.post(f"/v1/batches/{batch_id}/cancel"), 404)["code"] == "batch_not_found"
    assert refused(client.get("/v1/batches", params={"after": "x"}))["param"] == "after"


def test_an_unfinished_batch_is_active(client: TestClient, services: Services) -> None:
    batch = submit(client)
    assert services.batches.active() == (batch["id"],)
    assert batch["status"] in ACTIVE
