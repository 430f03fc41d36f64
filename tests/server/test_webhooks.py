"""Signing, delivering, trying again: from the database, with time as the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import httpx2
import pytest
from sqlalchemy import select

from server import database
from server.delivery import (
    AT_ONCE,
    AT_ONCE_PER_ENDPOINT,
    CLAIM_S,
    GIVE_UP_S,
    JITTER,
    LONGEST_PAUSE_S,
    Deliverer,
    DeliveryQueue,
    pause_s,
    payload,
    send_sample,
)
from server.fetch import AddressRefused
from server.jobs import JobError, JobId, JobResult, Owner, WorkerId
from server.outbox import WEBHOOK_TYPES, EventType, Outbox, emit
from server.store import JobStore
from server.tables import delivery as deliveries
from server.webhooks import (
    MAX_ENDPOINTS,
    OLD_SECRET_S,
    EndpointChange,
    EndpointStore,
    signed_headers,
)

if TYPE_CHECKING:
    from tests.conftest import Clock

ANN = WorkerId("cpu-ann")
ALICE, BOB = Owner("key_alice"), Owner("key_bob")
RESULT = JobResult({"denoise": 1.5}, 1_000_000)
BOTH = (EventType.VIDEO_COMPLETED, EventType.VIDEO_FAILED)
HOOK, OTHER = "https://hooks.example.com/a", "https://hooks.example.com/b"

AddJob = Callable[..., JobId]


@dataclass
class Receivers:
    """What is on the other side: answers by address, and what has been posted."""

    clock: Clock
    answers: dict[str, int | Exception] = field(default_factory=dict[str, "int | Exception"])
    got: list[tuple[str, bytes, Mapping[str, str], float]] = field(
        default_factory=list[tuple[str, bytes, Mapping[str, str], float]]
    )

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.got.append((url, body, headers, self.clock()))
        answer = self.answers.get(url, 200)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def told(self) -> list[tuple[str, str, str]]:
        """Where what was posted about what."""
        bodies = [(url, json.loads(body)) for url, body, _, _ in self.got]
        return [(url, body["type"], body["data"]["id"]) for url, body in bodies]


@pytest.fixture
def endpoints(store: JobStore, clock: Clock) -> EndpointStore:
    return EndpointStore(store.engine, clock)


@pytest.fixture
def receivers(clock: Clock) -> Receivers:
    return Receivers(clock)


@pytest.fixture
def deliverer(store: JobStore, clock: Clock, receivers: Receivers) -> Deliverer:
    queue = DeliveryQueue(store.engine, clock, jitter=lambda: 0.5)
    return Deliverer(queue, Outbox(store.engine, clock), receivers, "1.2.3", clock)


@pytest.fixture
def complete(store: JobStore, add_job: AddJob) -> Callable[..., JobId]:
    def make(owner: Owner = ALICE) -> JobId:
        job_id = add_job(owner=owner)
        store.claim(job_id, ANN, 30)
        store.finish(job_id, ANN, RESULT)
        return job_id

    return make


def rows(store: JobStore) -> list[Mapping[str, object]]:
    with store.engine.connect() as db:
        return [dict(row) for row in db.execute(select(deliveries).order_by(deliveries.c.event)).mappings()]


def test_the_published_vector_is_what_we_send() -> None:
    body = payload("evt_abc123", "video.completed", "video_abc123", 1758941485.9)
    assert body == (
        '{"id":"evt_abc123","object":"event","created_at":1758941485,"type":"video.completed",'
        '"data":{"id":"video_abc123"}}'
    )
    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    assert signed_headers("wh_test_1", body, (secret,), 1758941490.7) == {
        "webhook-id": "wh_test_1",
        "webhook-timestamp": "1758941490",
        "webhook-signature": "v1,/KrsJrf/DN8hM1CN4ki/8VERe6vd7nZQkIcf6KBEsrI=",
    }


def test_the_end_of_a_video_is_delivered(
    endpoints: EndpointStore,
    deliverer: Deliverer,
    receivers: Receivers,
    store: JobStore,
    add_job: AddJob,
) -> None:
    endpoint = endpoints.add(ALICE, "mine", HOOK, BOTH)
    done, broken, stopped = (add_job(owner=ALICE) for _ in range(3))
    store.claim(done, ANN, 30)
    store.finish(done, ANN, RESULT)
    store.claim(broken, ANN, 30)
    store.fail(broken, ANN, JobError("bad_output", "flat frames"))
    store.request_cancel(stopped)
    while deliverer.deliver_due():
        pass
    assert sorted(receivers.told()) == sorted(
        [(HOOK, "video.completed", done), (HOOK, "video.failed", broken), (HOOK, "video.failed", stopped)]
    )
    body, headers = next((body, headers) for _, body, headers, _ in receivers.got if done.encode() in body)
    assert json.loads(body).keys() == {"id", "object", "created_at", "type", "data"}
    assert headers["user-agent"] == "Homereel/1.2.3"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"].startswith("wh_")
    expected = signed_headers(headers["webhook-id"], body.decode(), (endpoint.secret,), receivers.clock())
    assert headers["webhook-signature"] == expected["webhook-signature"]
    assert all(row["delivered_at"] == receivers.clock() and row["last_status"] == 200 for row in rows(store))


def test_an_endpoint_gets_what_it_asked_for_from_when_it_did(
    endpoints: EndpointStore,
    deliverer: Deliverer,
    receivers: Receivers,
    complete: Callable[..., JobId],
    store: JobStore,
) -> None:
    complete()
    endpoints.add(ALICE, "failures", OTHER, (EventType.VIDEO_FAILED,))
    endpoints.add(BOB, "somebody else's", "https://bob.example.com/", BOTH)
    endpoint = endpoints.add(ALICE, "mine", HOOK, (EventType.VIDEO_COMPLETED, EventType.BATCH_FAILED))
    done = complete()
    with database.durable(store.engine).begin() as db:
        emit(db, EventType.BATCH_FAILED, "batch_1", owner=ALICE, now=0)
        emit(db, EventType.BATCH_COMPLETED, "batch_2", owner=ALICE, now=0)
    deliverer.deliver_due()
    assert receivers.told() == [(HOOK, "video.completed", done), (HOOK, "batch.failed", "batch_1")]
    endpoints.delete(endpoint.id, ALICE)
    complete()
    assert deliverer.deliver_due() == 0


@pytest.mark.parametrize(
    "answer",
    [
        199,
        301,
        404,
        410,
        500,
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("late"),
        AddressRefused("private"),
        KeyError(),
    ],
)
def test_what_fails_is_tried_again_until_it_arrives(
    endpoints: EndpointStore,
    deliverer: Deliverer,
    receivers: Receivers,
    complete: Callable[..., JobId],
    store: JobStore,
    answer: int | Exception,
) -> None:
    clock = receivers.clock
    endpoints.add(ALICE, "mine", HOOK, BOTH)
    complete()
    receivers.answers[HOOK] = answer
    assert deliverer.deliver_due() == 1
    assert rows(store)[0]["last_status"] == (answer if isinstance(answer, int) else None)
    assert rows(store)[0]["last_error"]
    assert deliverer.deliver_due() == 0
    clock.advance(pause_s(1, 0.5) + 0.01)
    receivers.answers[HOOK] = 204
    assert deliverer.deliver_due() == 1
    clock.advance(GIVE_UP_S)
    assert deliverer.deliver_due() == 0
    first, second = receivers.got
    assert first[1] == second[1]
    assert first[2]["webhook-id"] == second[2]["webhook-id"]
    # Receivers refuse what was signed minutes ago.
    assert int(second[2]["webhook-timestamp"]) == int(clock() - GIVE_UP_S)
    assert second[2]["webhook-signature"] != first[2]["webhook-signature"]


def test_pauses_double_up_to_a_limit_and_are_spread() -> None:
    middle = [pause_s(attempts, 0.5) for attempts in range(1, 40)]
    assert middle[:4] == [5, 10, 20, 40]
    assert middle == sorted(middle)
    assert middle[-1] == LONGEST_PAUSE_S
    assert pause_s(3, 0) == pytest.approx(20 * (1 - JITTER))
    assert pause_s(3, 1) == pytest.approx(20 * (1 + JITTER))


def test_what_never_arrives_is_given_up_after_three_days(
    endpoints: EndpointStore, deliverer: Deliverer, receivers: Receivers, complete: Callable[..., JobId], clock: Clock
) -> None:
    endpoints.add(ALICE, "mine", HOOK, BOTH)
    complete()
    receivers.answers[HOOK] = 500
    began = clock()
    while clock() < began + 2 * GIVE_UP_S:
        deliverer.deliver_due()
        clock.advance(60)
    times = [at - began for *_, at in receivers.got]
    assert times[0] == 0
    assert GIVE_UP_S - LONGEST_PAUSE_S - 60 < times[-1] <= GIVE_UP_S + 60
    assert 20 < len(times) < 40


def test_a_server_that_dies_in_the_middle_leaves_the_delivery_to_the_next(
    endpoints: EndpointStore, receivers: Receivers, complete: Callable[..., JobId], clock: Clock, store: JobStore
) -> None:
    endpoints.add(ALICE, "mine", HOOK, BOTH)
    done = complete()
    queue = DeliveryQueue(store.engine, clock)
    (taken,) = queue.claim({}, 10)
    assert queue.claim({}, 10) == ()
    clock.advance(CLAIM_S + 1)
    (again,) = queue.claim({}, 10)
    assert (again.id, again.subject, again.attempts) == (taken.id, done, 2)


def test_what_is_under_way_when_a_server_stops_is_due_at_once(
    endpoints: EndpointStore, complete: Callable[..., JobId], clock: Clock, store: JobStore
) -> None:
    endpoints.add(ALICE, "mine", HOOK, BOTH)
    complete()
    asked, answered = threading.Event(), threading.Event()

    def hang(url: str, body: bytes, headers: Mapping[str, str]) -> int:
        asked.set()
        answered.wait()
        return 200

    queue = DeliveryQueue(store.engine, clock)
    deliverer = Deliverer(queue, Outbox(store.engine, clock), hang, "1", clock)
    deliverer.start()
    asked.wait()
    deliverer.stop()
    assert rows(store)[0]["next_at"] == clock()
    assert len(queue.claim({}, 10)) == 1
    answered.set()


def test_dead_endpoints_do_not_hold_up_one_that_lives(
    endpoints: EndpointStore, complete: Callable[..., JobId], clock: Clock, store: JobStore
) -> None:
    dead = [endpoints.add(ALICE, f"dead {n}", f"https://dead.example.com/{n}", BOTH) for n in range(MAX_ENDPOINTS - 1)]
    complete()
    queue = DeliveryQueue(store.engine, clock, jitter=lambda: 0.5)
    while claimed := queue.claim({}, AT_ONCE):
        for delivery in claimed:
            queue.failed(delivery, 500, "dead")
    # More and more is due to them.
    for _ in range(AT_ONCE):
        complete()
    endpoints.add(ALICE, "alive", HOOK, BOTH)
    latest = complete()
    claimed = queue.claim({}, AT_ONCE)
    assert len(claimed) == AT_ONCE
    assert [delivery.subject for delivery in claimed if delivery.endpoint.url == HOOK] == [latest]
    each = [[delivery for delivery in claimed if delivery.endpoint.id == endpoint.id] for endpoint in dead]
    assert {len(taken) for taken in each} <= {0, 1, AT_ONCE_PER_ENDPOINT}
    # While as many as may be are under way, an endpoint gets no more.
    busy = {delivery.endpoint.id: AT_ONCE_PER_ENDPOINT for delivery in claimed}
    more = queue.claim(busy, AT_ONCE)
    assert more
    assert busy.keys().isdisjoint(delivery.endpoint.id for delivery in more)


def test_deliveries_of_one_endpoint_are_all_made(
    endpoints: EndpointStore, deliverer: Deliverer, receivers: Receivers, complete: Callable[..., JobId]
) -> None:
    endpoints.add(ALICE, "mine", HOOK, BOTH)
    done = [complete() for _ in range(5)]
    while deliverer.deliver_due():
        pass
    assert sorted(subject for _, _, subject in receivers.told()) == sorted(done)


def test_a_change_moves_what_waits_and_a_deletion_ends_it(
    endpoints: EndpointStore, deliverer: Deliverer, receivers: Receivers, complete: Callable[..., JobId], clock: Clock
) -> None:
    endpoint = endpoints.add(ALICE, "mine", HOOK, BOTH)
    done = complete()
    clock.advance(5)
    changed = endpoints.change(endpoint.id, ALICE, EndpointChange(url=OTHER))
    assert (changed.url, changed.name, changed.created_at) == (OTHER, "mine", endpoint.created_at)
    assert changed.updated_at == clock()
    deliverer.deliver_due()
    assert receivers.told() == [(OTHER, "video.completed", done)]
    clock.advance(5)
    assert endpoints.change(endpoint.id, ALICE, EndpointChange(url=OTHER)) == changed
    complete()
    endpoints.delete(endpoint.id, ALICE)
    assert deliverer.deliver_due() == 0


@pytest.mark.parametrize("keep_old", [True, False])
def test_a_new_secret_takes_over_at_once_or_after_a_day(
    endpoints: EndpointStore,
    deliverer: Deliverer,
    receivers: Receivers,
    complete: Callable[..., JobId],
    keep_old: bool,
) -> None:
    before = endpoints.add(ALICE, "mine", HOOK, BOTH)
    after = endpoints.rotate(before.id, ALICE, keep_old=keep_old)
    assert after.secret != before.secret
    assert before.secret.startswith("whsec_")
    both = (after.secret, before.secret)
    for wait_s, signers in ((0.0, both if keep_old else both[:1]), (OLD_SECRET_S, (after.secret,))):
        receivers.clock.advance(wait_s)
        complete()
        deliverer.deliver_due()
        _, body, headers, at = receivers.got[-1]
        assert headers == {**headers, **signed_headers(headers["webhook-id"], body.decode(), signers, at)}
        assert len(headers["webhook-signature"].split(" ")) == len(signers)


@pytest.mark.parametrize("kind", WEBHOOK_TYPES)
def test_a_sample_looks_like_the_real_thing(
    endpoints: EndpointStore, receivers: Receivers, clock: Clock, kind: EventType
) -> None:
    endpoint = endpoints.add(ALICE, "mine", HOOK, BOTH)
    receivers.answers[HOOK] = 418
    assert send_sample(receivers, "1", endpoint, kind, clock()) == 418
    _, body, headers, _ = receivers.got[0]
    said = json.loads(body)
    assert (said["type"], said["created_at"]) == (kind, int(clock()))
    assert said["data"]["id"].startswith(kind.split(".")[0] + "_")
    assert datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC).timestamp() == int(clock())


@pytest.fixture
def running(deliverer: Deliverer) -> Iterator[Deliverer]:
    deliverer.start()
    yield deliverer
    deliverer.stop()


def test_the_thread_delivers_what_comes(
    endpoints: EndpointStore, running: Deliverer, receivers: Receivers, complete: Callable[..., JobId], store: JobStore
) -> None:
    endpoints.add(ALICE, "mine", HOOK, BOTH)
    done = {complete() for _ in range(AT_ONCE_PER_ENDPOINT * 3)}
    until = threading.Event()
    while any(row["delivered_at"] is None for row in rows(store)):
        until.wait(0.01)
    assert {subject for _, _, subject in receivers.told()} == done
