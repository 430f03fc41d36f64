"""The queue as its clients see it; and what they may change about a video in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.types import Stage
from server.deps import Services
from server.jobs import JobId, JobProgress, Owner, new_job_id
from server.workers import WorkerInfo
from tests.server.routes.conftest import ANN, PROMPT, Hand, refused

Create = Callable[..., str]


def queue(client: TestClient) -> dict[str, Any]:
    answer = client.get("/v1/queue")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_empty_queue(client: TestClient) -> None:
    shown = queue(client)
    assert (shown["object"], shown["running"], shown["waiting"]) == ("queue", [], [])
    assert (shown["others"], shown["workers"]) == ({"running": 0, "waiting": 0}, 0)


def test_running_and_waiting_are_told_apart_and_in_order(client: TestClient, create: Create, hand: Hand) -> None:
    running, first, second = (create() for _ in range(3))
    job_id = hand.start(running)
    hand.services.store.renew(job_id, ANN, 60, JobProgress(Stage.DENOISE, 1, 4, 30, eta_s=5.0))
    hand.services.store.announce(WorkerInfo(ANN, "cpu", 1, None, job_id, hand.services.now()))
    shown = queue(client)
    [now] = shown["running"]
    assert (now["id"], now["status"], now["progress"], now["eta_s"]) == (running, "in_progress", 30, 5.0)
    assert [(one["id"], one["queue_position"]) for one in shown["waiting"]] == [(first, 1), (second, 2)]
    assert shown["workers"] == 1
    # The first is known to start; how long it takes, nobody has measured.
    assert [one["eta_s"] for one in shown["waiting"]] == [None, None]
    job = hand.services.store.get(job_id)
    hand.services.timings.learn(job.card, "cpu", job.request, stage_s={Stage.DENOISE: 4.0}, peak=1)
    waiting = queue(client)["waiting"]
    assert [(one["starts_in_s"], one["eta_s"]) for one in waiting] == [(5.0, 9.0), (9.0, 13.0)]


def test_of_others_only_the_number_is_told(client: TestClient, create: Create, services: Services) -> None:
    mine = create()
    template = services.store.get(JobId(mine))
    theirs = replace(template, id=new_job_id(template.created_at), owner=Owner("key_2"), created_at=0.0)
    services.store.add(theirs, max_queued=20)
    shown = queue(client)
    assert [(one["id"], one["queue_position"]) for one in shown["waiting"]] == [(mine, 2)]
    assert shown["others"] == {"running": 0, "waiting": 1}
    assert theirs.id not in str(shown)


def test_a_larger_priority_goes_first(client: TestClient, create: Create) -> None:
    plain, urgent, late = create(), create(priority=3), create(priority=-3)
    assert [one["id"] for one in queue(client)["waiting"]] == [urgent, plain, late]
    assert client.get(f"/v1/videos/{urgent}").json()["queue_position"] == 1
    changed = client.post(f"/v1/videos/{late}", json={"priority": 10}).json()
    assert (changed["priority"], changed["queue_position"]) == (10, 1)


METADATA = [
    {"a": 1},
    {"": "x"},
    {"k" * 65: "x"},
    {"a": "v" * 513},
    {f"k{number}": "x" for number in range(17)},
    {"a": {"b": "c"}},
    {"a": "nul\0"},
    ["a"],
    "a",
]


@pytest.mark.parametrize("metadata", METADATA)
def test_metadata_follow_openais_rules(client: TestClient, create: Create, metadata: Any) -> None:
    assert refused(client.post("/v1/videos", json=PROMPT | {"metadata": metadata}))["param"] == "metadata"
    assert refused(client.post(f"/v1/videos/{create()}", json={"metadata": metadata}))["param"] == "metadata"


def test_metadata_come_back(client: TestClient, create: Create) -> None:
    most = {f"{number:064}": "v" * 512 for number in range(16)}
    assert client.get(f"/v1/videos/{create(metadata=most)}").json()["metadata"] == most
    form = [("prompt", (None, "a")), ("metadata[shot]", (None, "12")), ("metadata[take]", (None, "3"))]
    assert client.post("/v1/videos", files=form).json()["metadata"] == {"shot": "12", "take": "3"}


@pytest.mark.parametrize("priority", [11, -11, 1.5, "high", True])
def test_priorities_have_bounds(client: TestClient, create: Create, priority: Any) -> None:
    assert refused(client.post("/v1/videos", json=PROMPT | {"priority": priority}))["param"] == "priority"
    assert refused(client.post(f"/v1/videos/{create()}", json={"priority": priority}))["param"] == "priority"


def test_a_video_can_be_starred_and_found_by_it(client: TestClient, create: Create, hand: Hand) -> None:
    one, other = create(), create(model="sora-2-pro")
    hand.finish(one)
    assert client.post(f"/v1/videos/{one}", json={"starred": True}).json()["starred"] is True
    # What is not mentioned stays.
    assert client.post(f"/v1/videos/{one}", json={"metadata": {"a": "b"}}).json()["starred"] is True
    for query, found in (
        ("starred=true", [one]),
        ("starred=false", [other]),
        ("status=completed", [one]),
        ("status=queued", [other]),
        ("status=failed", []),
        ("model=sora-2-pro", [other]),
        ("model=sora-2&starred=true&status=completed", [one]),
    ):
        assert [video["id"] for video in client.get(f"/v1/videos?{query}").json()["data"]] == found, query
    assert client.post(f"/v1/videos/{one}", files={"starred": (None, "false")}).json()["starred"] is False
    assert refused(client.get("/v1/videos?status=expired"))["param"] == "status"


@pytest.mark.parametrize(
    ("body", "param"),
    [({"starred": "perhaps"}, "starred"), ({"prompt": "x"}, "prompt"), ({"status": "failed"}, "status")],
)
def test_nothing_else_can_be_changed(client: TestClient, create: Create, body: dict[str, Any], param: str) -> None:
    assert refused(client.post(f"/v1/videos/{create()}", json=body))["param"] == param


def test_an_unknown_video_cannot_be_changed(client: TestClient) -> None:
    assert refused(client.post("/v1/videos/video_" + "0" * 48, json={"starred": True}), 404)["param"] == "video_id"
