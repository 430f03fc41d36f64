from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.types import Stage
from server.jobs import JobId, JobProgress, JobResult
from server.store import JobNotFound, JobStore
from tests.server.routes.conftest import ANN, Hand, refused

UNKNOWN = "video_" + "0" * 48
NOT_IDS = ["x", "video_", "video_" + "g" * 48, "video_" + "0" * 47, UNKNOWN.upper(), "%27%20OR%201=1", "video_%00", "é"]


def test_a_video_waits_runs_and_completes(
    client: TestClient, create: Callable[..., str], hand: Hand, store: JobStore
) -> None:
    first, second = create(), create()
    assert client.get(f"/v1/videos/{second}").json()["queue_position"] == 2
    assert [video["queue_position"] for video in client.get("/v1/videos").json()["data"]] == [2, 1]

    hand.start(first)
    store.renew(JobId(first), ANN, 60, JobProgress(Stage.DENOISE, 5, 20, 30, eta_s=12.0))
    answer = client.get(f"/v1/videos/{first}")
    running = answer.json()
    assert (running["status"], running["progress"], running["queue_position"]) == ("in_progress", 30, None)
    assert (running["stage"], running["step"], running["total_steps"], running["eta_s"]) == ("denoise", 5, 20, 12.0)
    assert answer.headers["openai-poll-after-ms"] == "600"
    assert client.get(f"/v1/videos/{second}").json()["queue_position"] == 1

    hand.start(second)
    store.renew(JobId(second), ANN, 60, JobProgress(Stage.MUX, 3, 20, 97))
    assert store.finish(JobId(second), ANN, JobResult({"encode": 0.5, "denoise": 4.0}, 1_500_000))
    answer = client.get(f"/v1/videos/{second}")
    done = answer.json()
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["completed_at"] >= done["created_at"]
    assert done["inference_time_s"] == 4.5
    assert "openai-poll-after-ms" not in answer.headers


@pytest.mark.parametrize(("eta_s", "wait_ms"), [(0.0, 250), (10.0, 500), (33.333, 1666), (9000.0, 5000), (None, 500)])
def test_the_poll_interval_is_a_whole_number_that_follows_the_eta(
    client: TestClient, create: Callable[..., str], hand: Hand, store: JobStore, eta_s: float | None, wait_ms: int
) -> None:
    video = create()
    hand.start(video)
    store.renew(JobId(video), ANN, 60, JobProgress(Stage.DENOISE, 1, 20, 5, eta_s=eta_s))
    assert client.get(f"/v1/videos/{video}").headers["openai-poll-after-ms"] == str(wait_ms)


def test_a_failed_video_is_a_good_answer(client: TestClient, create: Callable[..., str], hand: Hand) -> None:
    video = create()
    hand.fail(video)
    answer = client.get(f"/v1/videos/{video}")
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == {"code": "bad_output", "message": "The clip is black."}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/videos/{}"),
        ("DELETE", "/v1/videos/{}"),
        ("POST", "/v1/videos/{}/cancel"),
        ("GET", "/v1/videos/{}/content"),
    ],
)
@pytest.mark.parametrize("video", [UNKNOWN, *NOT_IDS])
def test_what_is_no_video_is_not_found(client: TestClient, method: str, path: str, video: str) -> None:
    assert refused(client.request(method, path.format(video)), 404)["code"] == "video_not_found"


def test_a_deleted_video_is_gone_at_once(client: TestClient, create: Callable[..., str], store: JobStore) -> None:
    video, other = create(), create()
    # Python's client sends this header with an empty body.
    answer = client.delete(f"/v1/videos/{video}", headers={"content-type": "application/json"})
    assert answer.json() == {"id": video, "object": "video.deleted", "deleted": True}
    refused(client.get(f"/v1/videos/{video}"), 404)
    refused(client.delete(f"/v1/videos/{video}"), 404)
    assert [v["id"] for v in client.get("/v1/videos").json()["data"]] == [other]
    with pytest.raises(JobNotFound):
        store.get(JobId(video))


def test_cancelling_a_waiting_video_fails_it_and_says_why(client: TestClient, create: Callable[..., str]) -> None:
    video = create()
    answer = client.post(f"/v1/videos/{video}/cancel")
    assert (answer.json()["status"], answer.json()["error"]["code"]) == ("failed", "cancelled")


def test_cancelling_a_running_video_asks_its_worker(
    client: TestClient, create: Callable[..., str], hand: Hand, store: JobStore
) -> None:
    video = create()
    hand.start(video)
    assert client.post(f"/v1/videos/{video}/cancel").json()["status"] == "in_progress"
    assert store.renew(JobId(video), ANN, 60, None).cancel_requested


def test_cancelling_a_finished_video_changes_nothing(
    client: TestClient, create: Callable[..., str], hand: Hand
) -> None:
    video = create()
    hand.finish(video)
    assert client.post(f"/v1/videos/{video}/cancel").json()["status"] == "completed"


def pages(client: TestClient, **query: Any) -> list[list[str]]:
    found: list[list[str]] = []
    after: dict[str, str] = {}
    while True:
        page = client.get("/v1/videos", params={**query, **after}).json()
        found.append([video["id"] for video in page["data"]])
        assert (page["first_id"], page["last_id"]) == (found[-1][0], found[-1][-1])
        if not page["has_more"]:
            return found
        after = {"after": page["last_id"]}


def test_pages_follow_each_other_to_the_end(client: TestClient, create: Callable[..., str]) -> None:
    ids = [create() for _ in range(5)]
    newest_first = ids[::-1]
    assert pages(client, limit=2) == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    assert pages(client, limit=2, order="asc") == [ids[:2], ids[2:4], ids[4:]]
    assert pages(client) == [newest_first]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_may_follow_a_video_that_is_deleted(client: TestClient, create: Callable[..., str], order: str) -> None:
    ids = [create() for _ in range(3)]
    client.delete(f"/v1/videos/{ids[1]}")
    page = client.get("/v1/videos", params={"after": ids[1], "order": order}).json()
    assert [video["id"] for video in page["data"]] == ([ids[2]] if order == "asc" else [ids[0]])


def test_an_empty_list_has_all_five_keys(client: TestClient) -> None:
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert client.get("/v1/videos").json() == empty


def test_limit_zero_asks_only_whether_there_is_anything(client: TestClient, create: Callable[..., str]) -> None:
    create()
    page = client.get("/v1/videos?limit=0").json()
    assert (page["data"], page["last_id"], page["has_more"]) == ([], None, True)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=-1", "limit"),
        ("limit=101", "limit"),
        ("limit=ten", "limit"),
        ("limit=", "limit"),
        ("order=up", "order"),
        (f"after={UNKNOWN}0", "after"),
        ("after=x", "after"),
        ("after=", "after"),
    ],
)
def test_a_list_that_cannot_be_had_is_refused(client: TestClient, query: str, param: str) -> None:
    assert refused(client.get(f"/v1/videos?{query}"))["param"] == param
