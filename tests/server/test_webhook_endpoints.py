"""Webhook endpoints: whose they are, and how many there may be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from server.jobs import JobId, JobResult, Owner, WorkerId
from server.outbox import EventType
from server.store import JobStore
from server.webhooks import (
    MAX_ENDPOINTS,
    Endpoint,
    EndpointChange,
    EndpointNotFound,
    EndpointStore,
    TooManyEndpoints,
)

if TYPE_CHECKING:
    from tests.conftest import Clock

ANN = WorkerId("cpu-ann")
ALICE, BOB = Owner("key_alice"), Owner("key_bob")
RESULT = JobResult({"denoise": 1.5}, 1_000_000)
BOTH = (EventType.VIDEO_COMPLETED, EventType.VIDEO_FAILED)
HOOK, OTHER = "https://hooks.example.com/a", "https://hooks.example.com/b"

AddJob = Callable[..., JobId]


@pytest.fixture
def endpoints(store: JobStore, clock: Clock) -> EndpointStore:
    return EndpointStore(store.engine, clock)


def test_endpoints_belong_to_their_owner(endpoints: EndpointStore, clock: Clock) -> None:
    hers = endpoints.add(ALICE, "hers", HOOK, BOTH)
    assert endpoints.get(hers.id, ALICE) == hers
    assert endpoints.list(BOB, after=None, limit=10).endpoints == ()
    calls: list[Callable[[], object]] = [
        lambda: endpoints.get(hers.id, BOB),
        lambda: endpoints.change(hers.id, BOB, EndpointChange(name="x")),
        lambda: endpoints.rotate(hers.id, BOB, keep_old=False),
        lambda: endpoints.delete(hers.id, BOB),
        lambda: endpoints.delete("we_0", ALICE),
    ]
    for call in calls:
        with pytest.raises(EndpointNotFound):
            call()
    assert endpoints.get(hers.id, ALICE) == hers
    assert hers.secret not in hers.hint


def test_endpoints_are_listed_newest_first_and_bounded(endpoints: EndpointStore, clock: Clock) -> None:
    made: list[Endpoint] = []
    for number in range(MAX_ENDPOINTS):
        clock.advance(1e-3)
        made.append(endpoints.add(ALICE, str(number), HOOK, BOTH))
    with pytest.raises(TooManyEndpoints):
        endpoints.add(ALICE, "one more", HOOK, BOTH)
    endpoints.add(BOB, "another's", HOOK, BOTH)
    first = endpoints.list(ALICE, after=None, limit=MAX_ENDPOINTS - 1)
    assert (list(first.endpoints), first.has_more) == (made[:0:-1], True)
    rest = endpoints.list(ALICE, after=first.endpoints[-1].id, limit=5)
    assert (list(rest.endpoints), rest.has_more) == (made[:1], False)
