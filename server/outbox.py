"""What happened, written in the transaction in which it happened: nothing is told twice or never.

Webhooks deliver from here, and event streams are resumed from here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, delete, func, insert, select

from server import database
from server.jobs import Owner
from server.tables import delivery as deliveries
from server.tables import event as events
from server.tables import webhook_endpoint as endpoints


class EventType(StrEnum):
    """What can happen."""

    VIDEO_CREATED = "video.created"
    VIDEO_STARTED = "video.started"
    VIDEO_REQUEUED = "video.requeued"
    VIDEO_COMPLETED = "video.completed"
    VIDEO_FAILED = "video.failed"
    VIDEO_DELETED = "video.deleted"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"


WEBHOOK_TYPES = (
    *(
        EventType.VIDEO_COMPLETED,
        EventType.VIDEO_FAILED,
        EventType.BATCH_COMPLETED,
        EventType.BATCH_FAILED,
    ),
    *(EventType.BATCH_EXPIRED, EventType.BATCH_CANCELLED),
)
"""Those that webhooks deliver: the hosted service's names. The others are for event streams."""
ENDS_VIDEO = frozenset({EventType.VIDEO_COMPLETED, EventType.VIDEO_FAILED, EventType.VIDEO_DELETED})
"""After these nothing more happens to a video."""


@dataclass(frozen=True)
class Event:
    """Something that happened to ``subject``, a video or a batch, at ``created_at`` (Unix seconds).

    ``seq`` grows in the order in which events became visible.
    """

    seq: int
    id: str
    type: EventType
    owner: Owner
    subject: str
    created_at: float


def emit(db: Connection, kind: EventType, subject: str, *, owner: Owner, now: float) -> None:
    """Write down that something happened, and to which of the owner's endpoints it has to be delivered.

    ``db`` is the open transaction in which it happens.
    """
    row = {
        "id": f"evt_{secrets.token_hex(24)}",
        "owner": owner,
        "type": kind,
        "subject": subject,
        "created_at": now,
    }
    seq = db.execute(insert(events).values(row).returning(events.c.seq)).scalar_one()
    if kind not in WEBHOOK_TYPES:
        return
    wanted = select(endpoints.c.id, endpoints.c.event_types).where(endpoints.c.owner == owner)
    due = [
        {
            "id": f"wh_{secrets.token_hex(24)}",
            "event": seq,
            "endpoint": endpoint,
            "attempts": 0,
            "next_at": now,
        }
        for endpoint, types in db.execute(wanted)
        if kind in types
    ]
    if due:
        db.execute(insert(deliveries), due)


class Outbox:
    """Reads what happened."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._notes = database.hasty(engine)
        self._now = now

    def last(self) -> int:
        """Return the number of the newest event, 0 if there has been none."""
        with self._reads.connect() as db:
            return db.execute(select(func.coalesce(func.max(events.c.seq), 0))).scalar_one()

    def since(
        self,
        seq: int,
        *,
        until: int | None = None,
        owner: Owner | None = None,
        subject: str | None = None,
        limit: int = 500,
    ) -> tuple[Event, ...]:
        """Return up to ``limit`` events after ``seq``, up to and including ``until``, in order."""
        query = select(events).where(events.c.seq > seq).order_by(events.c.seq).limit(limit)
        if until is not None:
            query = query.where(events.c.seq <= until)
        if owner is not None:
            query = query.where(events.c.owner == owner)
        if subject is not None:
            query = query.where(events.c.subject == subject)
        with self._reads.connect() as db:
            rows: Iterable[dict[str, object]] = [dict(row) for row in db.execute(query).mappings()]
        return tuple(Event(**(row | {"type": EventType(row["type"])})) for row in rows)  # pyright: ignore[reportArgumentType]

    def prune(self, keep_s: float) -> int:
        """Forget what happened more than ``keep_s`` seconds ago, its deliveries included; return how much it was."""
        with self._notes.begin() as db:
            return db.execute(delete(events).where(events.c.created_at < self._now() - keep_s)).rowcount
