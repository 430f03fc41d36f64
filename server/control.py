"""What an operator, or a more urgent video, wants of the one that is being made: that it waits, and goes on later."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, and_, delete, insert, select

from server import database
from server.jobs import PRIORITY_STEP_S, JobId, JobStatus
from server.scheduler import LOADED_HEADSTART_S
from server.tables import control
from server.tables import job as jobs

PAUSED = "paused"
# An idle worker takes it before that; one that is busy gives way only then.
NOTICED_S = 2.0


class Control:
    """The switches of all workers that share a database. Safe to use from many threads."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._now = now

    def pause(self, reason: str) -> None:
        """Have no video begun, and those that are being made given back after their next steps."""
        with self._writes.begin() as db:
            db.execute(delete(control).where(control.c.name == PAUSED))
            db.execute(insert(control).values(name=PAUSED, value=reason, since=self._now()))

    def resume(self) -> bool:
        """Go on; False if nothing was paused."""
        with self._writes.begin() as db:
            return db.execute(delete(control).where(control.c.name == PAUSED)).rowcount == 1

    def reason(self) -> str | None:
        """Return the sentence that says why nothing is begun, or None."""
        with self._reads.connect() as db:
            reason = db.execute(select(control.c.value).where(control.c.name == PAUSED)).scalar_one_or_none()
        if reason is None:
            return None
        return f"The queue is paused by its operator: {reason}" if reason else "The queue is paused by its operator."

    def gives_way(self, job_id: JobId) -> bool:
        """Tell whether a video that is being made has to wait: for the operator, or for one that is more urgent.

        More urgent is what has a higher priority and would be chosen before it, whatever is loaded: two videos never
        take turns.
        """
        with self._reads.connect() as db:
            if db.execute(select(control.c.name).where(control.c.name == PAUSED)).one_or_none() is not None:
                return True
            mine = db.execute(select(jobs.c.created_at, jobs.c.priority).where(jobs.c.id == job_id)).one_or_none()
            if mine is None:
                return False
            due = mine.created_at - mine.priority * PRIORITY_STEP_S - LOADED_HEADSTART_S
            urgent = and_(
                jobs.c.status == JobStatus.QUEUED,
                jobs.c.deleted_at.is_(None),
                jobs.c.priority > mine.priority,
                jobs.c.created_at - jobs.c.priority * PRIORITY_STEP_S < due,
                jobs.c.created_at < self._now() - NOTICED_S,
            )
            return db.execute(select(jobs.c.id).where(urgent).limit(1)).one_or_none() is not None
