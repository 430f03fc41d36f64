from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.loaded import DeviceMemory, LoadedModel
from server.store import JobStore
from server.workers import WorkerInfo
from tests.server.routes.conftest import ANN, Hand, refused


def announce(store: JobStore, hand: Hand) -> None:
    models = (
        LoadedModel("homereel-mini", "float32, all on the device", 49_000_000, 1_800_000_000.7),
        LoadedModel("other", "bfloat16, model offload", 1, None),
    )
    memory = DeviceMemory("a CPU", 16_000_000_000, 9_000_000_000)
    now = hand.services.now()
    store.announce(WorkerInfo(ANN, "cpu", 123, "homereel-mini", None, now, models=models, memory=memory))


def test_health_asks_nobody(client: TestClient, store: JobStore) -> None:
    store.close()
    assert client.get("/health").json()["status"] == "ok"


def test_ready_waits_for_a_worker(client: TestClient, store: JobStore, hand: Hand) -> None:
    answer = client.get("/ready")
    assert refused(answer, 503)["code"] == "not_ready"
    assert answer.headers["retry-after"]
    announce(store, hand)
    ready = client.get("/ready")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "reason": None,
        "workers": [
            {
                "device": "cpu",
                "name": "a CPU",
                "memory_total_mb": 16_000.0,
                "memory_free_mb": 9_000.0,
                "model": "homereel-mini",
                "busy": False,
                "models": [
                    {
                        "model": "homereel-mini",
                        "plan": "float32, all on the device",
                        "memory_mb": 49.0,
                        "unload_at": 1_800_000_000,
                    },
                    {"model": "other", "plan": "bfloat16, model offload", "memory_mb": 1e-6, "unload_at": None},
                ],
            }
        ],
    }


def test_a_worker_of_an_earlier_version_says_nothing_of_its_models_or_memory(
    client: TestClient, store: JobStore, hand: Hand
) -> None:
    store.announce(WorkerInfo(ANN, "cpu", 123, None, None, hand.services.now()))
    worker = client.get("/ready").json()["workers"][0]
    assert worker["models"] == []
    assert (worker["name"], worker["memory_total_mb"], worker["memory_free_mb"]) == (None, None, None)


def test_metrics_count_jobs_workers_and_requests(
    client: TestClient, create: Callable[..., str], store: JobStore, hand: Hand
) -> None:
    hand.finish(create())
    video = create()
    announce(store, hand)
    client.get(f"/v1/videos/{video}")
    client.get("/nowhere/at/all")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert 'homereel_jobs{status="queued"} 1.0' in lines
    assert 'homereel_jobs{status="completed"} 1.0' in lines
    assert 'homereel_worker_busy{device="cpu"} 0.0' in lines
    assert 'homereel_http_requests_total{method="GET",route="/v1/videos/{video_id}",status="200"} 1.0' in lines
    assert 'homereel_http_requests_total{method="GET",route="none",status="404"} 1.0' in lines
    assert video not in answer.text


def test_what_clients_invent_makes_no_time_series(client: TestClient) -> None:
    for i in range(5):
        refused(client.request(f"METHOD{i}", f"/v1/videos/{i}"), 405)
    series = [
        line for line in client.get("/metrics").text.splitlines() if line.startswith("homereel_http_requests_total")
    ]
    assert series == ['homereel_http_requests_total{method="other",route="/v1/videos/{video_id}",status="405"} 5.0']


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/videos/", 404),
        ("GET", "/v1/videos/a%2F..%2Fb", 404),
        ("POST", "/v1/videos/generations/x", 404),
        ("GET", "/docs", 404),
        ("PUT", "/v1/videos", 405),
        ("PATCH", "/v1/videos/video_1", 405),
        ("POST", "/v1/videos/video_1/content", 405),
        ("DELETE", "/v1/models", 405),
    ],
)
def test_the_frameworks_own_refusals_wear_the_envelope(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, follow_redirects=False)
    assert refused(answer, status)["type"] == "invalid_request_error"
    assert (status == 405) == ("allow" in answer.headers)


def test_a_crash_of_a_route_wears_the_envelope(app: FastAPI, client: TestClient, store: JobStore) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("secret detail")

    store.get = crash  # type: ignore[assignment]
    error = refused(client.get("/v1/videos/video_" + "0" * 48), 500)
    assert error["type"] == "server_error"
    assert "secret" not in error["message"]


@pytest.mark.parametrize("given", ["abc-123", "req_0.1", "A" * 128])
def test_a_request_keeps_the_name_it_came_with(client: TestClient, given: str) -> None:
    assert client.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"a b", b"a\tb", b"A" * 129, b"a;b", b'"x"', "é".encode()])
def test_a_name_that_could_do_harm_is_replaced(client: TestClient, given: bytes) -> None:
    name = client.get("/health", headers={b"x-request-id": given}).headers["x-request-id"]
    assert name.startswith("req_")
    assert name != client.get("/health").headers["x-request-id"]
