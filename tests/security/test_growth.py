"""Whatever a client can make more of has an end, and one client's end is nobody else's."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server import batches
from server.app import create_app
from server.auth import Keyring
from server.batch_types import BatchStatus, new_batch
from server.deps import Services
from server.jobs import JobId, Owner
from server.keys import KeyStore, digest_of
from server.settings import Settings
from server.slots import Busy, Slots
from server.webhooks import MAX_ENDPOINTS
from tests.server.routes.conftest import picture, refused

LIMITS = {"max_videos": 2, "max_files": 2, "max_characters": 2, "max_batches": 2} | {"max_templates": 2, "max_stars": 2}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("growth"), **LIMITS), supervise=False)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def keys(services: Services, client: TestClient) -> Iterator[list[dict[str, str]]]:
    """Two keys, as headers."""
    store = KeyStore(services.store.engine)
    made = [store.create(name) for name in ("ann", "bob")]
    yield [{"authorization": f"Bearer {new.secret}"} for new in made]
    for new in made:
        store.revoke(new.key.id)


def video(client: TestClient, headers: dict[str, str]) -> Any:
    return client.post("/v1/videos", json={"prompt": "x"}, headers=headers)


def variations(client: TestClient, headers: dict[str, str]) -> Any:
    return client.post("/v1/videos/variations", json={"prompt": "x", "n": 3}, headers=headers)


def file(client: TestClient, headers: dict[str, str], purpose: str = "vision") -> Any:
    return client.post("/v1/files", data={"purpose": purpose}, files={"file": ("x", b"x")}, headers=headers)


def character(client: TestClient, headers: dict[str, str]) -> Any:
    files = {"image": ("x.png", picture())}
    return client.post("/v1/videos/characters", data={"name": "Mossy"}, files=files, headers=headers)


def template(client: TestClient, headers: dict[str, str]) -> Any:
    return client.post("/v1/prompts/templates", json={"name": "x", "text": "x"}, headers=headers)


def star(client: TestClient, headers: dict[str, str]) -> Any:
    prompt = f"ball {secrets.token_hex(8)}"
    return client.post("/v1/prompts/starred", json={"prompt": prompt}, headers=headers)


@pytest.mark.parametrize(
    ("make", "setting"),
    [(template, "TEMPLATES"), (star, "STARS"), (video, "VIDEOS"), (file, "FILES"), (character, "CHARACTERS")],
)
def test_a_key_has_only_so_many(
    client: TestClient, keys: list[dict[str, str]], make: Callable[..., Any], setting: str
) -> None:
    ann, bob = keys
    for _ in range(2):
        assert make(client, ann).status_code == 200
    answer = make(client, ann)
    error = refused(answer, 429)
    assert error["code"] == "quota_exceeded"
    assert f"HOMEREEL_MAX_{setting}" in error["message"]
    # Waiting does not help, so the clients shall not try again by themselves.
    assert answer.headers["x-should-retry"] == "false"
    assert make(client, bob).status_code == 200


def test_all_or_none_of_several_fit(client: TestClient, keys: list[dict[str, str]]) -> None:
    refused(variations(client, keys[0]), 429)
    assert client.get("/v1/videos", headers=keys[0]).json()["data"] == []


def test_what_is_deleted_makes_room(client: TestClient, services: Services, keys: list[dict[str, str]]) -> None:
    ann, _ = keys
    first, _ = video(client, ann).json()["id"], video(client, ann)
    refused(video(client, ann), 429)
    client.delete(f"/v1/videos/{first}", headers=ann)
    # As the supervisor does, every second.
    services.store.forget(JobId(first))
    assert video(client, ann).status_code == 200


def test_a_key_has_only_so_many_batches_under_way(
    client: TestClient, services: Services, keys: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The app's own thread would carry them out at once: they are empty.
    monkeypatch.setattr(services.batches, "active", tuple)
    body = {"input_file_id": file(client, keys[0], "batch").json()["id"], "endpoint": "/v1/videos"}

    def batch() -> Any:
        return client.post("/v1/batches", json={**body, "completion_window": "24h"}, headers=keys[0])

    ids = [batch().json()["id"] for _ in range(2)]
    assert "Wait until one has ended" in refused(batch(), 429)["message"]
    assert services.batches.reject(services.batches.get(ids[0]), [])
    assert batch().status_code == 200


def test_of_ended_batches_the_latest_are_remembered(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "KEPT", 3)
    monkeypatch.setattr(services.batches, "active", tuple)
    owner = Owner("key_carol")
    made = [new_batch(owner, f"file-{number:048x}", 1.8e9 + number) for number in range(8)]
    for number, batch in enumerate(made):
        services.batches.add(batch)
        if number != 1:
            assert services.batches.reject(services.batches.get(batch.id), [])
    left = services.batches.list(after=None, limit=99, owner=owner).batches
    # Those that are under way stay, however old; of the others the next addition removes what is too many.
    assert [batch.id for batch in left] == [made[number].id for number in (7, 6, 5, 4, 1)]
    assert left[-1].status is BatchStatus.VALIDATING
    assert services.batches.reject(left[-1], [])


def test_a_key_has_only_so_many_webhooks(client: TestClient, keys: list[dict[str, str]]) -> None:
    body = {"name": "x", "url": "https://192.0.43.8/", "event_types": ["video.completed"]}

    def hook(headers: dict[str, str]) -> Any:
        return client.post("/v1/webhook_endpoints", json=body, headers=headers)

    for _ in range(MAX_ENDPOINTS):
        assert hook(keys[0]).status_code == 200
    assert refused(hook(keys[0]))["code"] == "too_many_webhook_endpoints"
    assert hook(keys[1]).status_code == 200


def test_nothing_that_a_client_invents_becomes_a_time_series(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/invented/{number}")
        client.get(f"/v1/videos/video_{number:048x}")
        client.request(f"INVENTED{number}", "/v1/videos")
    metrics = client.get("/metrics").text
    assert "nvented" not in metrics.replace("INVENTED", "nvented")
    assert metrics.count("homereel_http_requests_total{") < 40


def test_only_a_few_wait_for_slow_work_and_the_others_are_sent_away() -> None:
    slots, leave = Slots(at_once=2, waiting=1), threading.Event()
    inside = threading.Barrier(3, timeout=60)
    order: list[str] = []

    def work() -> None:
        with slots.taken():
            inside.wait()
            assert leave.wait(60)

    def wait() -> None:
        with slots.taken():
            order.append("waited")

    workers = [threading.Thread(target=work) for _ in range(2)]
    for thread in workers:
        thread.start()
    inside.wait()
    waiter = threading.Thread(target=wait)
    waiter.start()
    while slots._inside < 3:
        pass
    with pytest.raises(Busy), slots.taken():
        raise AssertionError("too many")
    order.append("sent away")
    leave.set()
    for thread in (*workers, waiter):
        thread.join()
    assert order == ["sent away", "waited"]
    with slots.taken():
        assert slots._inside == 1


def test_keys_are_looked_up_by_digest_and_no_secret_is_compared(services: Services) -> None:
    """How long a look-up takes depends on bytes of a digest that a sender cannot choose."""
    store = KeyStore(services.store.engine)
    new = store.create("dora")
    keyring = Keyring(store)

    async def find(secret: str) -> object:
        return await keyring.find(secret)

    assert anyio.run(find, new.secret) == new.key
    for near in (new.secret[:-1], new.secret + "x", new.secret[:-1] + "x", new.secret.upper(), "x" + new.secret[1:]):
        assert anyio.run(find, near) is None
    held = keyring._snapshot.keys
    assert set(held) >= {digest_of(new.secret)}
    assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in held)
    assert new.secret not in repr(held)
    store.revoke(new.key.id)


def test_nothing_of_this_is_left_outside_of_the_data_folder(services: Services, tmp_path: Path) -> None:
    settings = services.settings
    for folder in (settings.assets_dir, settings.files_dir, settings.characters_dir):
        assert folder.is_relative_to(settings.data_dir.absolute())
