"""A request that comes again makes nothing new, under load too; a request that is merely alike does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server import intake
from server.deps import Services
from server.jobs import JobId, Owner
from server.retries import Turns, digest_of
from server.store import JobStore
from tests.conftest import Clock
from tests.server.routes.conftest import PROMPT, Hand, files_in, movie, picture, refused, send_movie

FIRST, SECOND = {"x-stainless-retry-count": "0"}, {"x-stainless-retry-count": "1"}


@pytest.fixture
def source(create: Callable[..., str], hand: Hand) -> str:
    made = create(seconds=2)
    hand.finish(made)
    return made


def ids(client: TestClient) -> list[str]:
    return [video["id"] for video in client.get("/v1/videos?limit=100&order=asc").json()["data"]]


Send = Callable[[TestClient, str, dict[str, str]], Any]
CALLS: dict[str, Send] = {
    "create": lambda client, _, headers: client.post("/v1/videos", json=PROMPT, headers=headers),
    "form": lambda client, _, headers: client.post("/v1/videos", files={"prompt": (None, "a")}, headers=headers),
    "picture": lambda client, _, headers: client.post(
        "/v1/videos", data=PROMPT, files={"input_reference": ("x.png", PICTURE)}, headers=headers
    ),
    "remix": lambda client, source, headers: client.post(f"/v1/videos/{source}/remix", json=PROMPT, headers=headers),
    "edit": lambda client, source, headers: client.post(
        "/v1/videos/edits", json=PROMPT | {"video": {"id": source}}, headers=headers
    ),
    "edit of a file": lambda client, _, headers: client.post(
        "/v1/videos/edits", data=PROMPT, files={"video": ("a.mp4", movie())}, headers=headers
    ),
    "extension": lambda client, source, headers: client.post(
        "/v1/videos/extensions", json=PROMPT | {"video": {"id": source}, "seconds": 1}, headers=headers
    ),
}
PICTURE = picture()


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["count", "key"])
def test_what_comes_again_is_answered_with_what_the_first_made(
    client: TestClient, source: str, tmp_path: Path, call: str, kind: str
) -> None:
    again = SECOND if kind == "count" else {"idempotency-key": "k1"}
    first = CALLS[call](client, source, FIRST if kind == "count" else again)
    assert first.status_code == 200, first.text
    kept = files_in(tmp_path / "assets")
    for _ in range(2):
        second = CALLS[call](client, source, again)
        assert (second.status_code, second.json()["id"]) == (200, first.json()["id"])
    assert ids(client) == [source, first.json()["id"]]
    assert files_in(tmp_path / "assets") == kept


@pytest.mark.parametrize("headers", [SECOND, {"idempotency-key": "k1"}])
def test_variations_come_back_as_the_same_group(client: TestClient, headers: dict[str, str]) -> None:
    def vary() -> Any:
        return client.post("/v1/videos/variations", json=PROMPT | {"n": 3}, headers=headers).json()

    first = vary()
    assert vary() == first
    assert len(ids(client)) == 3


def test_a_request_that_counts_no_retry_is_a_new_one(client: TestClient) -> None:
    for headers in (FIRST, FIRST, {}, {"x-stainless-retry-count": "x"}, {"x-stainless-retry-count": "-1"}):
        assert client.post("/v1/videos", json=PROMPT, headers=headers).status_code == 200
    assert len(ids(client)) == 5


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/videos", {"prompt": "a blue ball"}),
        ("/v1/videos", PROMPT | {"seed": 1}),
        ("/v1/videos", PROMPT | {"metadata": {"a": "b"}}),
        ("/v1/videos/variations", PROMPT),
    ],
)
def test_another_body_or_path_is_another_request(client: TestClient, path: str, body: dict[str, Any]) -> None:
    client.post("/v1/videos", json=PROMPT, headers=FIRST)
    assert client.post(path, json=body, headers=SECOND).status_code == 200
    assert len(ids(client)) == 2


def test_another_file_is_another_request(client: TestClient) -> None:
    one = send_movie(client, "/v1/videos/edits", movie(16), prompt="a")
    other = client.post("/v1/videos/edits", data={"prompt": "a"}, files={"video": ("a.mp4", movie(24))}, headers=SECOND)
    assert one.json()["id"] != other.json()["id"]


def test_a_retry_long_after_is_a_new_request(
    client: TestClient, store: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_now", clock)
    client.post("/v1/videos", json=PROMPT, headers=FIRST)
    clock.time = store.get(JobId(ids(client)[0])).created_at + intake.RETRY_WINDOW_S - 1
    client.post("/v1/videos", json=PROMPT, headers=SECOND)
    assert len(ids(client)) == 1
    clock.advance(2)
    client.post("/v1/videos", json=PROMPT, headers=SECOND)
    assert len(ids(client)) == 2


def test_a_key_of_another_request_is_refused_once(client: TestClient) -> None:
    key = {"idempotency-key": "k1"}
    client.post("/v1/videos", json=PROMPT, headers=key)
    answer = client.post("/v1/videos", json={"prompt": "a blue ball"}, headers=key)
    assert refused(answer)["code"] == "idempotency_key_reused"
    assert answer.headers["x-should-retry"] == "false"
    assert len(ids(client)) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "é".encode("latin-1")])
def test_what_cannot_be_a_key_is_refused(client: TestClient, key: str | bytes) -> None:
    headers: Any = {b"idempotency-key": key if isinstance(key, bytes) else key.encode()}
    assert refused(client.post("/v1/videos", json=PROMPT, headers=headers))["param"] == "idempotency-key"


def test_a_key_is_kept_for_a_day_though_its_video_is_deleted(
    client: TestClient, store: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_now", clock)
    key = {"idempotency-key": "k1"}
    first = client.post("/v1/videos", json=PROMPT, headers=key).json()["id"]
    client.delete(f"/v1/videos/{first}")
    store.forget(JobId(first))
    clock.advance(24 * 3600)
    assert refused(client.post("/v1/videos", json=PROMPT, headers=key), 404)["code"] == "video_not_found"
    clock.advance(intake.KEY_LIFETIME_S)
    assert client.post("/v1/videos", json=PROMPT, headers=key).json()["id"] != first


def test_a_refused_request_uses_no_key_up(client: TestClient) -> None:
    key = {"idempotency-key": "k1"}
    refused(client.post("/v1/videos", json=PROMPT | {"size": "1x1"}, headers=key))
    assert client.post("/v1/videos", json=PROMPT, headers=key).status_code == 200


@pytest.mark.parametrize("headers", [SECOND, {"idempotency-key": "k1"}])
def test_two_at_the_same_instant_make_one(client: TestClient, tmp_path: Path, headers: dict[str, str]) -> None:
    gate = threading.Barrier(6)

    def send(_: int) -> str:
        gate.wait()
        return client.post(
            "/v1/videos", data=PROMPT, files={"input_reference": ("x.png", PICTURE)}, headers=headers
        ).json()["id"]

    with ThreadPoolExecutor(6) as pool:
        answered = set(pool.map(send, range(6)))
    assert ids(client) == list(answered)
    assert len(files_in(tmp_path / "assets")) == 1


def test_a_retry_waits_for_the_first_that_is_still_at_work(
    client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection broke, the server did not notice: both attempts are under way at once."""
    begun, go_on = threading.Event(), threading.Event()
    add = services.store.add

    def slow_add(*new: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return add(*new, **options)

    monkeypatch.setattr(services.store, "add", slow_add)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/v1/videos", json=PROMPT, headers=FIRST)
        assert begun.wait(60)
        second = pool.submit(client.post, "/v1/videos", json=PROMPT, headers=SECOND)
        go_on.set()
        assert first.result().json()["id"] == second.result().json()["id"]
    assert len(ids(client)) == 1


def test_a_retry_that_overtakes_the_first_is_found_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, key = Turns(), (Owner(""), "digest")
    waiting, looked = threading.Event(), list[bool]()
    wait_for = turns._changed.wait_for

    def watched(is_due: Callable[[], bool]) -> bool:
        if not is_due():
            waiting.set()
        return wait_for(is_due)

    def first() -> None:
        with turns.taken(key, is_retry=False) as looks:
            looked.append(looks)

    monkeypatch.setattr(turns._changed, "wait_for", watched)
    with turns.taken(key, is_retry=True):
        thread = threading.Thread(target=first)
        thread.start()
        assert waiting.wait(60)
        assert looked == []
    thread.join()
    assert looked == [True]
    assert turns._at_work == {}


def test_firsts_do_not_wait_for_each_other() -> None:
    turns, key = Turns(), (Owner(""), "digest")
    with turns.taken(key, is_retry=False), turns.taken(key, is_retry=False) as looks:
        assert not looks


def test_the_digest_knows_neither_order_nor_encoding_of_a_form() -> None:
    assert digest_of("/a", {"x": "1", "y": ["2"]}) == digest_of("/a", {"y": ["2"], "x": "1"})
    different = [
        digest_of("/a", {"x": "1"}),
        digest_of("/b", {"x": "1"}),
        digest_of("/a", {"x": "2"}),
        digest_of("/a", {"x": ["1"]}),
        digest_of("/a", {"x": None}),
        digest_of("/a", {"x": "\ud800"}),
    ]
    assert len(set(different)) == len(different)
