"""Who gets in: keys, revocation, what an open server refuses to web pages, and what is said to whoever stays out."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.app import create_app
from server.auth import FRESH_S, PUBLIC, Guard, Keyring, is_loopback
from server.deps import CallerDep
from server.jobs import NOBODY, JobId
from server.keys import ApiKey, KeyStore
from server.settings import Settings
from server.store import JobStore

if TYPE_CHECKING:
    from tests.conftest import Clock


@pytest.fixture(autouse=True)
def every_card_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: True)


@pytest.fixture
def keys(store: JobStore) -> KeyStore:
    return KeyStore(store.engine)


@contextmanager
def serving(settings: Settings, clock: Clock) -> Generator[TestClient]:
    """An app on the settings' database whose keys and limits go by the test's clock."""
    app = create_app(settings, supervise=False)
    for middleware in app.user_middleware:
        if middleware.cls is Guard:
            middleware.kwargs["now"] = clock
    with TestClient(app) as client:
        app.state.keyring._now = clock
        yield client


@pytest.fixture
def client(settings: Settings, clock: Clock, store: JobStore) -> Iterator[TestClient]:
    with serving(settings, clock) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def refused(answer: Any, status: int, code: str) -> str:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], set(error)) == (status, code, {"message", "type", "param", "code"})
    assert answer.headers["x-request-id"]
    assert answer.headers["openai-version"] == "2020-10-01"
    assert answer.headers["openai-processing-ms"].isdecimal()
    return error["message"]


@pytest.mark.parametrize(
    "headers", [{}, bearer("sk-anything"), bearer("sk-homereel-" + 43 * "x"), {"api-key": "x"}, {"authorization": "?"}]
)
def test_without_keys_everybody_on_this_machine_gets_in(
    client: TestClient, store: JobStore, headers: dict[str, str]
) -> None:
    answer = client.post("/v1/videos", json={"prompt": "a ball"}, headers=headers)
    assert answer.status_code == 200
    assert store.get(JobId(answer.json()["id"])).owner == NOBODY


@pytest.mark.parametrize("header", ["authorization", "lower", "api-key"])
def test_a_key_is_taken_from_either_header(client: TestClient, keys: KeyStore, store: JobStore, header: str) -> None:
    new = keys.create("ann")
    by = {"authorization": bearer(new.secret), "lower": {"authorization": f"bearer  {new.secret} "}}
    answer = client.post("/v1/videos", json={"prompt": "a ball"}, headers=by.get(header, {"api-key": new.secret}))
    assert answer.status_code == 200
    assert store.get(JobId(answer.json()["id"])).owner == new.key.id


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic YTpi"}, {"authorization": "Bearer "}, bearer("")])
def test_without_a_key_nobody_gets_in_once_there_is_one(
    client: TestClient, keys: KeyStore, headers: dict[str, str]
) -> None:
    keys.create("ann")
    answer = client.get("/v1/videos", headers=headers)
    assert "homereel keys create" in refused(answer, 401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == 'Bearer realm="homereel"'


WRONG = "sk-proj-somebody-elses-secret-0123456789"


@pytest.mark.parametrize(
    ("sent", "quoted"),
    [(WRONG, "sk-***89"), ("sk-homereel-" + 43 * "x", "sk-***xx"), ("short", "***"), ("fifteen-letters", "***")],
)
def test_a_wrong_key_is_quoted_by_its_ends_only(client: TestClient, keys: KeyStore, sent: str, quoted: str) -> None:
    keys.create("ann")
    answer = client.get("/v1/videos", headers=bearer(sent))
    message = refused(answer, 401, "invalid_api_key")
    assert f": {quoted}." in message
    assert len(quoted) == 3 or sent[4:-3] not in message
    assert answer.headers["www-authenticate"].endswith('error="invalid_token"')


def test_bytes_that_are_no_text_are_only_a_wrong_key(client: TestClient, keys: KeyStore) -> None:
    keys.create("ann")
    for sent in (
        b"Bearer \xff\xfe\xfd and more of the same",
        b"Bearer " + b"\xe2\x82" * 40,
        b"Bearer " + b"k" * 60_000,
    ):
        refused(client.get("/v1/videos", headers={b"authorization": sent}), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "path", ["/v1/videos", "/v1/models", "/v1/nothing", "/metrics", "/studio", "/health/", "/.//health"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_every_other_address_is_closed_whether_it_exists_or_not(
    client: TestClient, keys: KeyStore, path: str, method: str
) -> None:
    keys.create("ann")
    refused(client.request(method, path), 401, "invalid_api_key")


@pytest.mark.parametrize("path", sorted(PUBLIC))
def test_public_addresses_stay_open(client: TestClient, keys: KeyStore, path: str) -> None:
    keys.create("ann")
    assert client.get(path).status_code in {200, 503}


def test_metrics_are_for_whoever_has_a_key(client: TestClient, keys: KeyStore) -> None:
    answer = client.get("/metrics", headers=bearer(keys.create("prometheus").secret))
    assert (answer.status_code, "homereel_jobs" in answer.text) == (200, True)


def test_a_key_works_the_moment_it_has_been_made(client: TestClient, keys: KeyStore, store: JobStore) -> None:
    assert client.get("/v1/videos").status_code == 200
    new = keys.create("ann")
    answer = client.post("/v1/videos", json={"prompt": "a ball"}, headers=bearer(new.secret))
    # Not a moment of the clock has passed: what is remembered from before is not good enough.
    assert store.get(JobId(answer.json()["id"])).owner == new.key.id


def test_revocation_is_noticed_in_time(client: TestClient, keys: KeyStore, clock: Clock) -> None:
    ann, bob = keys.create("ann"), keys.create("bob")
    clock.advance(2 * FRESH_S)
    assert client.get("/v1/videos", headers=bearer(ann.secret)).status_code == 200
    keys.revoke(ann.key.id)
    clock.advance(FRESH_S * 1.01)
    refused(client.get("/v1/videos", headers=bearer(ann.secret)), 401, "invalid_api_key")
    assert client.get("/v1/videos", headers=bearer(bob.secret)).status_code == 200


def test_a_server_for_this_machine_opens_again_without_its_last_key(
    client: TestClient, keys: KeyStore, clock: Clock
) -> None:
    keys.revoke(keys.create("ann").key.id)
    clock.advance(2 * FRESH_S)
    assert client.get("/v1/videos").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "video.example.com"])
def test_any_other_server_closes_without_its_last_key(
    settings: Settings, clock: Clock, store: JobStore, host: str
) -> None:
    with serving(settings.model_copy(update={"host": host}), clock) as client:
        assert "no keys left" in refused(client.get("/v1/videos"), 401, "invalid_api_key")
    with serving(settings.model_copy(update={"host": host, "insecure_no_auth": True}), clock) as client:
        assert client.get("/v1/videos").status_code == 200


@pytest.mark.parametrize(
    ("host", "only_this_machine"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("192.168.1.5", False), ("fe80::1", False),
        ("", False), ("localhost.example.com", False), ("127.0.0.1.example.com", False), ("::ffff:10.0.0.1", False),
    ],
)  # fmt: skip
def test_loopback(host: str, only_this_machine: bool) -> None:
    assert is_loopback(host) is only_this_machine


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7672", 200), ("localhost:7672", 200), ("LOCALHOST.", 200), ("[::1]:7672", 200),
        ("192.168.1.5:7672", 200), ("homereel:7672", 200), ("gpu.local", 200), ("a.localhost:1", 200),
        ("video.example.com", 200), ("Video.Example.com:443", 200),
        ("rebound.attacker.example:7672", 403), ("127.0.0.1.attacker.example", 403), ("example.com", 403),
        ("localhost.attacker.example", 403), ("not a host", 200),
    ],
)  # fmt: skip
def test_an_open_server_answers_to_names_that_nobody_out_there_can_have(
    settings: Settings, clock: Clock, store: JobStore, host: str, status: int
) -> None:
    with serving(settings.model_copy(update={"allowed_hosts": ("video.example.com",)}), clock) as client:
        answer = client.get("/v1/videos", headers={"host": host})
        assert answer.status_code == status
        if status == 403:
            assert "HOMEREEL_ALLOWED_HOSTS" in refused(answer, 403, "host_not_allowed")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:7672", 404), ("https://127.0.0.1:7672", 404), ("https://video.example.com", 404),
        ("http://127.0.0.1:3000", 403), ("https://attacker.example", 403), ("null", 403), ("", 403), ("http://[", 403),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
def test_pages_from_elsewhere_may_change_nothing_on_an_open_server(
    settings: Settings, clock: Clock, store: JobStore, method: str, origin: str, status: int
) -> None:
    with serving(settings.model_copy(update={"allowed_hosts": ("video.example.com",)}), clock) as client:
        headers = {"host": "127.0.0.1:7672", "origin": origin}
        answer = client.request(method, "/v1/nothing", headers=headers)
        assert answer.status_code == status
        if status == 403:
            refused(answer, 403, "origin_not_allowed")
        assert client.get("/v1/videos", headers=headers).status_code == 200


def test_with_keys_names_and_origins_do_not_matter(client: TestClient, keys: KeyStore) -> None:
    headers = {**bearer(keys.create("ann").secret), "host": "video.example.com", "origin": "https://elsewhere.example"}
    assert client.post("/v1/videos", json={"prompt": "a ball"}, headers=headers).status_code == 200


def test_a_refused_upload_is_not_read(client: TestClient, keys: KeyStore) -> None:
    keys.create("ann")
    files = {"input_reference": ("x.png", bytes(3_000_000), "image/png")}
    refused(client.post("/v1/videos", data={"prompt": "a ball"}, files=files), 401, "invalid_api_key")


def test_a_key_that_sends_too_much_is_told_when_to_go_on(client: TestClient, keys: KeyStore, clock: Clock) -> None:
    headers = bearer(keys.create("ann", requests_per_minute=2).secret)
    answers = [client.post("/v1/videos", json={"prompt": "a ball"}, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {"2"}
    assert [answer.headers["x-ratelimit-reset-requests"] for answer in answers] == ["30s", "1m0s", "1m0s"]
    assert "2 requests a minute" in refused(answers[2], 429, "rate_limit_exceeded")
    assert (answers[2].headers["retry-after"], answers[2].headers["retry-after-ms"]) == ("30", "30000")
    clock.advance(30)
    assert client.post("/v1/videos", json={"prompt": "a ball"}, headers=headers).status_code == 200


def test_looking_is_free_and_others_are_not_slowed_down(client: TestClient, keys: KeyStore) -> None:
    ann = bearer(keys.create("ann", requests_per_minute=1).secret)
    assert client.post("/v1/videos", json={"prompt": "a ball"}, headers=ann).status_code == 200
    for _ in range(5):
        answer = client.get("/v1/videos", headers=ann)
        assert answer.status_code == 200
        assert "x-ratelimit-limit-requests" not in answer.headers
    for _ in range(3):
        other = bearer(keys.create("other").secret)
        assert client.post("/v1/videos", json={"prompt": "a ball"}, headers=other).status_code == 200
    refused(client.post("/v1/videos", json={"prompt": "a ball"}, headers=ann), 429, "rate_limit_exceeded")


def test_waiting_videos_of_a_key_are_limited(client: TestClient, keys: KeyStore) -> None:
    ann = bearer(keys.create("ann", max_queued=1).secret)
    answers = [client.post("/v1/videos", json={"prompt": "a ball"}, headers=ann) for _ in range(2)]
    assert answers[0].status_code == 200
    assert "this key's limit" in refused(answers[1], 429, "queue_full")
    assert answers[1].headers["retry-after"]


class SlowKeys:
    """A key store that counts how often it is asked and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()

    def usable(self) -> dict[str, ApiKey]:
        self.asked += 1
        assert self.may_answer.wait(60)
        return {}


def test_a_slow_database_is_asked_once_and_blocks_nobody(clock: Clock) -> None:
    slow = SlowKeys()
    steps: list[str] = []

    async def story() -> None:
        keyring = Keyring(slow, clock)  # pyright: ignore[reportArgumentType]
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(keyring.is_empty)
            while slow.asked == 0:
                await anyio.lowlevel.checkpoint()
            # The loop turns although the database has not answered.
            steps.append("still here")
            slow.may_answer.set()
        assert await keyring.is_empty()
        clock.advance(FRESH_S / 2)
        assert await keyring.is_empty()

    anyio.run(story)
    assert (steps, slow.asked) == (["still here"], 1)


def test_guesses_do_not_reach_the_database_unless_they_look_like_keys(clock: Clock) -> None:
    slow = SlowKeys()
    slow.may_answer.set()

    async def story() -> None:
        keyring = Keyring(slow, clock)  # pyright: ignore[reportArgumentType]
        for guess in ("a", "sk-homereel-", WRONG):
            assert await keyring.find(guess) is None

    anyio.run(story)
    assert slow.asked == 1


def test_a_route_without_the_guard_lets_nobody_in() -> None:
    app = FastAPI()

    @app.get("/")
    def whoever(caller: CallerDep) -> str:
        return caller.owner

    with pytest.raises(AttributeError):
        TestClient(app).get("/")
