"""Delivers events to webhook endpoints: at least once, from the database, however often the server restarts."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import httpx2
from sqlalchemy import Connection, Engine, and_, func, select, update
from sqlalchemy.exc import SQLAlchemyError

from server import database
from server.fetch import FetchError, pinned_client
from server.ids import new_id
from server.tables import delivery as deliveries
from server.tables import event as events
from server.tables import webhook_endpoint as endpoints
from server.webhooks import Endpoint, endpoint_from, signed_headers

if TYPE_CHECKING:
    import ssl

    from server.outbox import EventType, Outbox
    from server.settings import Settings

_log = logging.getLogger(__name__)

# From connecting to the last byte of the answer's head.
ATTEMPT_S = 10.0
# A delivery that was begun and of which nothing was heard again is begun anew after so long.
CLAIM_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 5.0, 4 * 3600.0
JITTER = 0.2
GIVE_UP_S = 72 * 3600.0
# Events are kept longer than any delivery is tried: streams are resumed from them.
KEEP_EVENTS_S = 7 * 24 * 3600.0
PRUNE_S = 3600.0
POLL_S = 0.5
# How long a server that stops waits for receivers.
STOP_S = 1.0
AT_ONCE, AT_ONCE_PER_ENDPOINT = 16, 2
_ERROR_CHARACTERS = 200

Post: TypeAlias = Callable[[str, bytes, Mapping[str, str]], int]
"""From an address, a body and headers to the status of the answer.

Raises:
    FetchError: The address must not be asked, or does not exist.
    httpx2.HTTPError: It does not answer.
"""


@dataclass(frozen=True)
class Delivery:
    """One event on its way to one endpoint; ``attempts`` counts this time too.

    ``id`` is the message's, the same at every attempt, so that a receiver can tell that it has it already.
    """

    id: str
    event_id: str
    type: str
    subject: str
    created_at: float
    attempts: int
    endpoint: Endpoint

    @property
    def body(self) -> str:
        """What is posted. It says what happened to what; the receiver asks for the rest."""
        return payload(self.event_id, self.type, self.subject, self.created_at)


def payload(event_id: str, kind: str, subject: str, created_at: float) -> str:
    """Return an event as the hosted service posts it."""
    said = {"id": event_id, "object": "event", "created_at": int(created_at), "type": kind, "data": {"id": subject}}
    return json.dumps(said, separators=(",", ":"))


def pause_s(attempts: int, jitter: float) -> float:
    """Return how long to wait after so many failed attempts; ``jitter`` is between 0 and 1."""
    doubled = FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30)
    return min(doubled, LONGEST_PAUSE_S) * (1 - JITTER + 2 * JITTER * jitter)


class DeliveryQueue:
    """What has to be delivered. Safe to use from many threads and processes."""

    def __init__(self, engine: Engine, now: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        self._reads = engine
        # A delivery that is made twice after a loss of power is allowed for.
        self._writes = database.hasty(engine)
        self._now = now
        self._jitter = jitter

    def claim(self, busy: Mapping[str, int], limit: int) -> tuple[Delivery, ...]:
        """Take up to ``limit`` deliveries that are due, a few of each endpoint, and begin an attempt at them.

        Args:
            busy: How many are under way to which endpoint.
            limit: How many to take.
        """
        now = self._now()
        pending = select(deliveries.c.endpoint).where(deliveries.c.next_at.is_not(None)).group_by(deliveries.c.endpoint)
        first_due = func.min(deliveries.c.next_at)
        # Endpoints that answer come before those that do not, however much has become due to these.
        waiting = pending.having(first_due <= now).order_by(func.max(deliveries.c.attempts), first_due)
        with self._reads.connect() as db:
            # Asked twice a second with nothing to do: leave the write lock alone then.
            found = db.execute(waiting).scalars().all()
        free = [endpoint for endpoint in found if busy.get(endpoint, 0) < AT_ONCE_PER_ENDPOINT]
        if not free or limit <= 0:
            return ()
        with self._writes.begin() as db:
            taken: list[Delivery] = []
            for endpoint in free:
                most = min(AT_ONCE_PER_ENDPOINT - busy.get(endpoint, 0), limit - len(taken))
                taken += self._take(db, endpoint, now, most) if most > 0 else ()
            return tuple(taken)

    def _take(self, db: Connection, endpoint: str, now: float, limit: int) -> tuple[Delivery, ...]:
        mine = (deliveries.c.endpoint == endpoint, deliveries.c.next_at <= now)
        oldest = select(deliveries.c.id).where(*mine).order_by(deliveries.c.event).limit(limit)
        begun = update(deliveries).where(deliveries.c.id.in_(oldest), *mine)
        begun = begun.values(attempts=deliveries.c.attempts + 1, next_at=now + CLAIM_S)
        ids = db.execute(begun.returning(deliveries.c.id)).scalars().all()
        if not ids:
            return ()
        row = db.execute(select(endpoints).where(endpoints.c.id == endpoint)).mappings().one()
        columns = (deliveries.c.id, events.c.id, events.c.type, events.c.subject, events.c.created_at)
        query = select(*columns, deliveries.c.attempts).join(events, events.c.seq == deliveries.c.event)
        rows = db.execute(query.where(deliveries.c.id.in_(ids)).order_by(events.c.seq))
        return tuple(Delivery(*values, endpoint=endpoint_from(row)) for values in rows)

    def succeeded(self, delivery: Delivery, status: int) -> None:
        """Note that it has arrived."""
        self._note(delivery, next_at=None, delivered_at=self._now(), last_status=status, last_error=None)

    def failed(self, delivery: Delivery, status: int | None, error: str) -> float | None:
        """Note that the attempt has failed, and return when the next one is due: None if there is none."""
        now = self._now()
        next_at: float | None = now + pause_s(delivery.attempts, self._jitter())
        if next_at > delivery.created_at + GIVE_UP_S:
            next_at = None
        self._note(delivery, next_at=next_at, last_status=status, last_error=error[:_ERROR_CHARACTERS])
        return next_at

    def release(self, ids: Sequence[str]) -> None:
        """Make deliveries due whose attempts are not followed to their end."""
        with self._writes.begin() as db:
            begun = and_(deliveries.c.id.in_(ids), deliveries.c.next_at.is_not(None))
            db.execute(update(deliveries).where(begun).values(next_at=self._now()))

    def _note(self, delivery: Delivery, **values: object) -> None:
        with self._writes.begin() as db:
            db.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(values))


class Poster:
    """Posts to addresses as ``server.fetch`` guards them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post, and return the status of the answer; what it says is of no interest, and may be endless."""
        with (
            pinned_client(self._settings, total_s=ATTEMPT_S, verify=self._certificates) as client,
            client.stream("POST", url, content=body, headers=dict(headers)) as answer,
        ):
            return answer.status_code

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        # Reading them takes longer than most deliveries.
        return httpx2.create_ssl_context()


def send(post: Post, version: str, delivery: Delivery, now: float) -> int:
    """Post a delivery, signed at ``now``, and return the status of the answer. Raises what ``post`` does."""
    body = delivery.body
    headers = {"content-type": "application/json", "user-agent": f"Homereel/{version}"}
    signed = signed_headers(delivery.id, body, delivery.endpoint.secrets_at(now), now)
    return post(delivery.endpoint.url, body.encode(), {**headers, **signed})


def send_sample(post: Post, version: str, endpoint: Endpoint, kind: EventType, now: float) -> int:
    """Deliver an event that has not happened, of a subject that does not exist; return the status of the answer."""
    what = kind.split(".")[0]
    event_id, message_id, subject = (new_id(prefix, now) for prefix in ("evt_", "wh_", f"{what}_"))
    return send(post, version, Delivery(message_id, event_id, kind, subject, now, 1, endpoint), now)


class Deliverer:
    """Delivers what is due, in threads of its own, from ``start`` to ``stop``."""

    def __init__(
        self,
        queue: DeliveryQueue,
        outbox: Outbox,
        post: Post,
        version: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._outbox = outbox
        self._post = post
        self._version = version
        self._now = now
        self._prune_at = float("-inf")
        # Those under way. The condition guards them, and says that one has come to its end.
        self._under_way: dict[str, Delivery] = {}
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no more attempts, and leave those that do not end soon to the next server."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, STOP_S)
            left = list(self._under_way)
        try:
            if left:
                self._queue.release(left)
        except SQLAlchemyError:
            # They become due again by themselves, only later.
            _log.exception("webhooks_not_released")

    def deliver_due(self) -> int:
        """Attempt what is due now and return, once all is over, how much it was."""
        begun = self._begin_due()
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way)
        return begun

    def _begin_due(self) -> int:
        with self._changed:
            busy = Counter(delivery.endpoint.id for delivery in self._under_way.values())
        claimed = self._queue.claim(busy, AT_ONCE - busy.total())
        with self._changed:
            self._under_way.update((delivery.id, delivery) for delivery in claimed)
        for delivery in claimed:
            # No pool: its threads would keep the process alive until the slowest receiver has answered.
            threading.Thread(target=self._attempt, args=[delivery], name=delivery.id, daemon=True).start()
        return len(claimed)

    def _attempt(self, delivery: Delivery) -> None:
        try:
            self._deliver(delivery)
        except SQLAlchemyError:
            # What became of it is not written down: it is tried again once its claim is over.
            _log.exception("webhook_not_noted id=%s", delivery.id)
        finally:
            with self._changed:
                del self._under_way[delivery.id]
                self._changed.notify_all()

    def _deliver(self, delivery: Delivery) -> None:
        status: int | None = None
        try:
            status = send(self._post, self._version, delivery, self._now())
            error = f"The receiver answered {status}."
        except (FetchError, httpx2.HTTPError) as failure:
            error = reason(failure)
        except Exception as failure:  # noqa: BLE001 - whatever an address leads to, it must not be tried for ever
            error = f"{type(failure).__name__}: {failure}"
        if status is not None and 200 <= status < 300:
            self._queue.succeeded(delivery, status)
            _log.info("webhook_delivered id=%s type=%s attempts=%d", delivery.id, delivery.type, delivery.attempts)
            return
        next_at = self._queue.failed(delivery, status, error)
        level = logging.INFO if next_at else logging.WARNING
        next_in = "never" if next_at is None else f"{next_at - self._now():.0f}"
        _log.log(level, "webhook_failed id=%s attempts=%d next_in_s=%s", delivery.id, delivery.attempts, next_in)

    def _run(self) -> None:
        while True:
            try:
                self._begin_due()
                self._prune()
            except Exception:  # noqa: BLE001 - logged whole
                # A full disk or a locked database passes; without this thread nothing would be delivered any more.
                _log.exception("webhooks_failed")
            with self._changed:
                if not self._is_stopping:
                    # Also when an attempt has come to its end: another may take its place.
                    self._changed.wait(POLL_S)
                if self._is_stopping:
                    return

    def _prune(self) -> None:
        if self._now() >= self._prune_at:
            self._prune_at = self._now() + PRUNE_S
            self._outbox.prune(KEEP_EVENTS_S)


def reason(failure: FetchError | httpx2.HTTPError) -> str:
    """Say why a receiver could not be reached."""
    if isinstance(failure, FetchError):
        return failure.message
    if isinstance(failure, httpx2.TimeoutException):
        return f"No answer within {ATTEMPT_S:g} seconds."
    return f"The connection failed ({type(failure).__name__})."
