"""How jobs get into the queue: all of a request's or none, and one request's only once. SQL inside the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import Connection, delete, func, insert, select

from server.jobs import Attempt, Job, JobStatus, Owner
from server.quota import Quota
from server.tables import api_key, job_from, row_from
from server.tables import idempotency_key as keys
from server.tables import job as jobs

# A client's library repeats a request within a minute of the first; its user may well mean the same words later.
RETRY_WINDOW_S = 600.0
KEY_LIFETIME_S = 48 * 3600.0


class QueueFull(Exception):
    """As many jobs are waiting as may: of everybody, or with one key."""

    def __init__(self, limit: int, *, of_key: bool = False) -> None:
        super().__init__(f"{limit} jobs are waiting already")
        self.limit = limit
        self.of_key = of_key


class KeyReused(Exception):
    """The idempotency key was used for another request."""


class KeySpent(Exception):
    """What was made under the idempotency key has been deleted since."""


def insert_jobs(db: Connection, new: Sequence[Job], *, max_queued: int, kept: Quota | None = None) -> None:
    """Add jobs, all or none, in the caller's transaction, which holds the write lock. Those that have failed wait not.

    Raises:
        QueueFull: With them, more than ``max_queued`` jobs would be waiting, or more of their owner's than its key
            allows.
        QuotaExceeded: With them, their owner would have more than ``kept`` says.
    """
    queued = [job for job in new if job.status is JobStatus.QUEUED]
    waiting = select(func.count()).where(jobs.c.status == JobStatus.QUEUED, jobs.c.deleted_at.is_(None))
    if db.execute(waiting).scalar_one() + len(queued) > max_queued:
        raise QueueFull(max_queued)
    for owner, count in Counter(job.owner for job in queued).items():
        limit = db.execute(select(api_key.c.max_queued).where(api_key.c.id == owner)).scalar_one_or_none()
        if limit is not None and db.execute(waiting.where(jobs.c.owner == owner)).scalar_one() + count > limit:
            raise QueueFull(limit, of_key=True)
    for owner, count in Counter(job.owner for job in new).items():
        if kept is not None:
            kept.check(db, jobs, owner, count)
    db.execute(insert(jobs), [row_from(job) for job in new])


def made_before(db: Connection, owner: Owner, attempt: Attempt, now: float) -> tuple[Job, ...]:
    """Return the jobs that an earlier attempt at the same request made; none if this is the first.

    Raises:
        KeyReused: The idempotency key belongs to another request.
        KeySpent: What the earlier attempt made has been deleted.
    """
    first = None
    if attempt.idempotency_key is not None:
        mine = (keys.c.owner == owner, keys.c.key == attempt.idempotency_key, keys.c.used_at > now - KEY_LIFETIME_S)
        used = db.execute(select(keys.c.digest, keys.c.job).where(*mine)).one_or_none()
        if used is None:
            return ()
        if used.digest != attempt.digest:
            raise KeyReused
        first = _first(db, jobs.c.id == used.job, jobs.c.owner == owner)
        if first is None:
            raise KeySpent
    elif attempt.is_retry:
        recent = jobs.c.created_at > now - RETRY_WINDOW_S
        first = _first(db, jobs.c.owner == owner, jobs.c.digest == attempt.digest, recent)
    return () if first is None else _all_of(db, first)


def note_key(db: Connection, owner: Owner, attempt: Attempt, first: Job, now: float) -> None:
    """Remember that the attempt's idempotency key, if it has one, stands for the request that made ``first``."""
    if attempt.idempotency_key is None:
        return
    db.execute(delete(keys).where(keys.c.used_at <= now - KEY_LIFETIME_S))
    values = {"owner": owner, "key": attempt.idempotency_key, "digest": attempt.digest}
    db.execute(insert(keys).values(values | {"job": first.id, "used_at": now}))


def _first(db: Connection, *conditions: object) -> Job | None:
    query = select(jobs).where(*conditions, jobs.c.deleted_at.is_(None))  # pyright: ignore[reportArgumentType]
    row = db.execute(query.order_by(jobs.c.seq).limit(1)).mappings().one_or_none()
    return None if row is None else job_from(row)


def _all_of(db: Connection, first: Job) -> tuple[Job, ...]:
    """Return the jobs of the request that made ``first``: it alone, or its group."""
    if first.group is None:
        return (first,)
    query = select(jobs).where(jobs.c.group_id == first.group, jobs.c.digest == first.digest)
    rows = db.execute(query.where(jobs.c.deleted_at.is_(None)).order_by(jobs.c.seq)).mappings()
    return tuple(map(job_from, rows))
