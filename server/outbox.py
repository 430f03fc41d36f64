"""What happened, written in the transaction in which it happened: nothing is told twice or never.

Webhooks deliver from here, and event streams are resumed from here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, RowMapping, and_, delete, func, insert, select

from server import database
from server.jobs import TERMINAL, JobError, JobId, JobProgress, JobStatus, Owner
from server.tables import delivery as deliveries
from server.tables import event as events
from server.tables import job as jobs
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

PAGE = 500
"""How many events are read at a time."""


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


@dataclass(frozen=True)
class State:
    """How a video is doing, as far as streams tell."""

    id: JobId
    owner: Owner
    status: JobStatus
    progress: JobProgress | None = None
    error: JobError | None = None

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.status is JobStatus.QUEUED

    @property
    def is_done(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in TERMINAL

    @property
    def previews(self) -> int:
        """How many previews there have been."""
        return 0 if self.progress is None else self.progress.preview


@dataclass(frozen=True)
class Reading:
    """What happened since an event, and how things stand after it, all at one moment.

    Attributes:
        events: In order.
        is_whole: Whether there are no more up to that moment; if there are, ``states`` is empty.
        last: Number of the last event that had happened, whomever it concerns.
        states: How the videos that were asked for are doing.
    """

    events: tuple[Event, ...]
    is_whole: bool
    last: int
    states: tuple[State, ...]


class Outbox:
    """Reads what happened."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._notes = database.hasty(engine)
        self._now = now

    def last(self) -> int:
        """Return the number of the newest event, 0 if there has been none."""
        with self._reads.connect() as db:
            return db.execute(_LAST).scalar_one()

    def since(
        self, seq: int, *, owner: Owner | None = None, subject: str | None = None, limit: int = PAGE
    ) -> tuple[Event, ...]:
        """Return up to ``limit`` events after ``seq``, in order; the owner's only, the subject's only, if given."""
        with self._reads.connect() as db:
            return _since(db, seq, owner, subject, limit)

    def read_running(self, seq: int, limit: int = PAGE) -> Reading:
        """Return what happened to anybody's things since ``seq``, and how the videos being made are doing."""
        running = jobs.c.status == JobStatus.IN_PROGRESS
        with self._reads.connect() as db:
            return _read(db, _since(db, seq, None, None, limit), running, limit)

    def read_own(self, seq: int | None, owner: Owner, video: JobId | None = None, limit: int = PAGE) -> Reading:
        """Return what happened to the owner's things since ``seq``, and how the videos that are not done are doing.

        Args:
            seq: None for no events.
            owner: Whose they are.
            video: Only this one; then its state is there also when it is done.
            limit: How many events to return.
        """
        unfinished = jobs.c.status.in_((JobStatus.QUEUED, JobStatus.IN_PROGRESS))
        mine = and_(jobs.c.owner == owner, unfinished if video is None else jobs.c.id == video)
        with self._reads.connect() as db:
            found = () if seq is None else _since(db, seq, owner, video, limit)
            return _read(db, found, mine, limit)

    def errors(self, videos: Iterable[str]) -> Mapping[str, JobError]:
        """Return why those of the videos failed that have."""
        query = select(jobs.c.id, jobs.c.error).where(jobs.c.id.in_(list(videos)), jobs.c.error.is_not(None))
        with self._reads.connect() as db:
            return {row.id: row.error for row in db.execute(query)}

    def prune(self, keep_s: float) -> int:
        """Forget what happened more than ``keep_s`` seconds ago, its deliveries included; return how much it was."""
        with self._notes.begin() as db:
            return db.execute(delete(events).where(events.c.created_at < self._now() - keep_s)).rowcount


_LAST = select(func.coalesce(func.max(events.c.seq), 0))


def _since(db: Connection, seq: int, owner: Owner | None, subject: str | None, limit: int) -> tuple[Event, ...]:
    query = select(events).where(events.c.seq > seq).order_by(events.c.seq).limit(limit)
    if owner is not None:
        query = query.where(events.c.owner == owner)
    if subject is not None:
        query = query.where(events.c.subject == subject)
    return tuple(map(_event_from, db.execute(query).mappings()))


def _event_from(row: RowMapping) -> Event:
    values: dict[str, Any] = {**row, "type": EventType(row["type"])}
    return Event(**values)


def _read(db: Connection, found: tuple[Event, ...], which: ColumnElement[bool], limit: int) -> Reading:
    last = db.execute(_LAST).scalar_one()
    if len(found) == limit:
        return Reading(found, is_whole=False, last=last, states=())
    columns = (jobs.c.id, jobs.c.owner, jobs.c.status, jobs.c.progress, jobs.c.error)
    query = select(*columns).where(which, jobs.c.deleted_at.is_(None)).order_by(jobs.c.seq)
    states = tuple(
        State(id_, owner, JobStatus(status), progress, error)
        for id_, owner, status, progress, error in db.execute(query)
    )
    return Reading(found, is_whole=True, last=last, states=states)
