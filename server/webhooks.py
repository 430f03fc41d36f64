"""Webhook endpoints: where events are delivered, and the secrets that deliveries are signed with."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, RowMapping, and_, delete, func, insert, select, update
from standardwebhooks import Webhook

from server import database
from server.ids import new_id, shape_of
from server.jobs import Owner
from server.outbox import EventType
from server.tables import webhook_endpoint as endpoints

MAX_ENDPOINTS = 20
OLD_SECRET_S = 24 * 3600.0
_ENDPOINT_ID = shape_of("we_")
_SECRET_PREFIX, _SECRET_BYTES = "whsec_", 32
_HINT_CHARACTERS = 4


class EndpointNotFound(Exception):
    """There is no such endpoint, or it has been deleted."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"no webhook endpoint {endpoint_id}")
        self.endpoint_id = endpoint_id


class TooManyEndpoints(Exception):
    """An owner has as many endpoints as may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"there are {limit} webhook endpoints already")
        self.limit = limit


@dataclass(frozen=True)
class Endpoint:
    """Where events of these types are delivered. Times are Unix seconds.

    Attributes:
        secret: Signs deliveries; starts with ``whsec_``.
        old_secret: Its predecessor, which signs beside it until ``old_secret_until``.
        updated_at: When name, address, types or secret were last changed.
    """

    id: str
    owner: Owner
    name: str
    url: str
    event_types: tuple[EventType, ...]
    secret: str
    created_at: float
    updated_at: float
    old_secret: str | None = None
    old_secret_until: float | None = None

    @property
    def hint(self) -> str:
        """Enough of the secret to tell it from others."""
        return f"{_SECRET_PREFIX}…{self.secret[-_HINT_CHARACTERS:]}"

    def secrets_at(self, now: float) -> tuple[str, ...]:
        """Return the secrets that sign a delivery, the current one first."""
        if self.old_secret is None or self.old_secret_until is None or now >= self.old_secret_until:
            return (self.secret,)
        return (self.secret, self.old_secret)


class EndpointPage(NamedTuple):
    """A part of a list, and whether more follows."""

    endpoints: tuple[Endpoint, ...]
    has_more: bool


@dataclass(frozen=True)
class EndpointChange:
    """What is to be different about an endpoint; None leaves it."""

    name: str | None = None
    url: str | None = None
    event_types: tuple[EventType, ...] | None = None

    def values(self) -> dict[str, Any]:
        """Return the columns to set."""
        return {name: value for name, value in vars(self).items() if value is not None}


def signed_headers(message_id: str, body: str, signers: tuple[str, ...], now: float) -> Mapping[str, str]:
    """Return the headers by which a receiver knows that ``body`` is ours, as Standard Webhooks define them."""
    moment = datetime.fromtimestamp(int(now), UTC)
    signatures = (Webhook(secret).sign(message_id, moment, body) for secret in signers)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(signatures),
    }


class EndpointStore:
    """The endpoints of all owners. Safe to use from many threads and processes."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._now = now

    def add(self, owner: Owner, name: str, url: str, event_types: tuple[EventType, ...]) -> Endpoint:
        """Make an endpoint with a new secret. It gets what happens from now on.

        Raises:
            TooManyEndpoints: The owner has ``MAX_ENDPOINTS`` already.
        """
        now = self._now()
        new = Endpoint(new_id("we_", now), owner, name, url, event_types, _new_secret(), now, now)
        with self._writes.begin() as db:
            counted = select(func.count()).where(endpoints.c.owner == owner)
            if db.execute(counted).scalar_one() >= MAX_ENDPOINTS:
                raise TooManyEndpoints(MAX_ENDPOINTS)
            db.execute(insert(endpoints).values(vars(new)))
        return new

    def get(self, endpoint_id: str, owner: Owner) -> Endpoint:
        """Return the owner's endpoint.

        Raises:
            EndpointNotFound: The owner has no such endpoint; so too below.
        """
        with self._reads.connect() as db:
            return _get(db, endpoint_id, owner)

    def list(self, owner: Owner, *, after: str | None, limit: int) -> EndpointPage:
        """Return up to ``limit`` of the owner's endpoints, the newest first, those that follow ``after`` if given.

        Ids sort by creation, so ``after`` need not exist.
        """
        query = select(endpoints).where(endpoints.c.owner == owner).order_by(endpoints.c.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(endpoints.c.id < after)
        with self._reads.connect() as db:
            found = tuple(endpoint_from(row) for row in db.execute(query).mappings())
        return EndpointPage(found[:limit], has_more=len(found) > limit)

    def change(self, endpoint_id: str, owner: Owner, change: EndpointChange) -> Endpoint:
        """Change the endpoint, and return it. What was to be delivered goes to its new address."""
        with self._writes.begin() as db:
            current = _get(db, endpoint_id, owner)
            values = {name: value for name, value in change.values().items() if getattr(current, name) != value}
            return _set(db, current, values | {"updated_at": self._now()}) if values else current

    def rotate(self, endpoint_id: str, owner: Owner, *, keep_old: bool) -> Endpoint:
        """Give the endpoint a new secret; the old one goes on for a day, or ends now."""
        now = self._now()
        with self._writes.begin() as db:
            current = _get(db, endpoint_id, owner)
            kept = (current.secret, now + OLD_SECRET_S) if keep_old else (None, None)
            values = {"secret": _new_secret(), "old_secret": kept[0], "old_secret_until": kept[1], "updated_at": now}
            return _set(db, current, values)

    def delete(self, endpoint_id: str, owner: Owner) -> None:
        """Delete the endpoint and what was to be delivered to it."""
        mine = and_(endpoints.c.id == endpoint_id, endpoints.c.owner == owner)
        with self._writes.begin() as db:
            if db.execute(delete(endpoints).where(mine)).rowcount == 0:
                raise EndpointNotFound(endpoint_id)


def endpoint_from(row: RowMapping) -> Endpoint:
    """Return the endpoint that a row of ``webhook_endpoint`` holds."""
    values: dict[str, Any] = {name: row[name] for name in Endpoint.__dataclass_fields__}
    values["event_types"] = tuple(map(EventType, row["event_types"]))
    return Endpoint(**values)


def is_endpoint_id(text: str) -> bool:
    """Tell whether ids look like this."""
    return _ENDPOINT_ID.fullmatch(text) is not None


def _new_secret() -> str:
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _get(db: Connection, endpoint_id: str, owner: Owner) -> Endpoint:
    mine = select(endpoints).where(endpoints.c.id == endpoint_id, endpoints.c.owner == owner)
    row = db.execute(mine).mappings().one_or_none()
    if row is None:
        raise EndpointNotFound(endpoint_id)
    return endpoint_from(row)


def _set(db: Connection, current: Endpoint, values: Mapping[str, object]) -> Endpoint:
    db.execute(update(endpoints).where(endpoints.c.id == current.id).values(values))
    return _get(db, current.id, current.owner)
