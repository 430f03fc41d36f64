"""Which videos' files go, and when: after their time, or oldest first when there are too many. Records stay.

A video is marked in the database before its files are touched, and marked again when they are gone: whoever is
interrupted in between, the next look goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sqlalchemy import Engine, and_, or_, select, update

from server import database
from server.assets import AssetStore
from server.jobs import TERMINAL, JobId, JobStatus
from server.tables import job as jobs

_log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """A finished video whose files are there, and how many bytes they take."""

    id: JobId
    completed_at: float
    size: int


class Pruner:
    """Removes files of finished videos. Any number of processes may do so at a time."""

    def __init__(
        self,
        engine: Engine,
        assets: AssetStore,
        *,
        retention_s: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._assets = assets
        self._retention_s = retention_s
        self._now = now

    def remove_expired(self) -> int:
        """Remove the files of every video whose time is over, and return how many there were."""
        over = jobs.c.expires_at <= self._now()
        if self._retention_s is not None:
            # Failed ones expire on no client's screen, but what was uploaded for them is of no more use.
            ended_before = jobs.c.completed_at <= self._now() - self._retention_s
            over = or_(over, and_(jobs.c.status == JobStatus.FAILED, ended_before))
        with self._reads.connect() as db:
            due = tuple(db.execute(select(jobs.c.id).where(_MAY_GO, over)).scalars())
        return len(self.remove(due))

    def oldest(self) -> tuple[Ended, ...]:
        """Return the videos whose files may go, in the order in which they would: what is starred may not."""
        sizes = self._assets.sizes()
        query = select(jobs.c.id, jobs.c.completed_at).where(_MAY_GO).order_by(jobs.c.completed_at, jobs.c.seq)
        with self._reads.connect() as db:
            rows = db.execute(query).all()
        return tuple(Ended(row.id, row.completed_at, sizes[row.id]) for row in rows if row.id in sizes)

    def over_budget(self, budget: float) -> tuple[Ended, ...]:
        """Return the videos that have to go, the oldest first, for all files to take ``budget`` bytes at most."""
        excess = sum(self._assets.sizes().values()) - budget
        chosen: list[Ended] = []
        for video in self.oldest():
            if excess <= 0:
                break
            chosen.append(video)
            excess -= video.size
        return tuple(chosen)

    def remove(self, job_ids: Iterable[JobId]) -> tuple[JobId, ...]:
        """Remove the files of finished videos, and return whose: those that have been starred meanwhile stay."""
        gone = tuple(job_id for job_id in job_ids if self._end(job_id))
        for job_id in gone:
            self._assets.delete(job_id)
            with self._writes.begin() as db:
                db.execute(update(jobs).where(jobs.c.id == job_id).values(purged_at=self._now()))
            _log.info("files_removed id=%s", job_id)
        return gone

    def _end(self, job_id: JobId) -> bool:
        """Have the video expire now, unless it has before. From then on nobody is given its files."""
        now = self._now()
        mine = and_(jobs.c.id == job_id, _MAY_GO)
        with self._writes.begin() as db:
            row = db.execute(select(jobs.c.expires_at).where(mine)).one_or_none()
            if row is None:
                return False
            at = now if row.expires_at is None else min(now, row.expires_at)
            db.execute(update(jobs).where(mine).values(expires_at=at))
        return True


_MAY_GO = and_(
    jobs.c.purged_at.is_(None),
    jobs.c.status.in_(sorted(TERMINAL)),
    jobs.c.starred == 0,
    jobs.c.deleted_at.is_(None),
)
