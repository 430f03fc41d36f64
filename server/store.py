"""The job store: the queue is the table. The only SQL in the project, besides its migrations.

Every transition is one conditional UPDATE; its row count says whether it was still the caller's to make.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Update,
    and_,
    delete,
    func,
    insert,
    select,
    true,
    tuple_,
    update,
)

from server import database, intake, outbox
from server.jobs import Attempt, Job, JobError, JobId, JobProgress, JobResult, JobStatus, Owner, Waiting, WorkerId
from server.outbox import EventType
from server.quota import Quota
from server.selection import NO_FILTER, Change, Filter, due
from server.tables import job as jobs
from server.tables import job_from
from server.tables import worker as workers_table
from server.workers import WorkerInfo

CANCELLED = JobError("cancelled", "The video was cancelled.")
WORKER_LOST = JobError("worker_lost", "The process that made the video ended without a word, every time it was tried.")


class JobNotFound(Exception):
    """There is no such job, or it has been deleted."""

    def __init__(self, job_id: JobId) -> None:
        super().__init__(f"no job {job_id}")
        self.job_id = job_id


class Page(NamedTuple):
    """A part of a list, and whether more follows."""

    jobs: tuple[Job, ...]
    has_more: bool


class Renewal(NamedTuple):
    """Whether the job is still this worker's, and whether somebody wants it stopped."""

    owned: bool
    cancel_requested: bool


class JobStore:
    """All jobs, shared by every process that opens the same database. Safe to use from many threads."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._notes = database.hasty(engine)
        self._now = now

    @classmethod
    def open(cls, url: str, now: Callable[[], float] = time.time) -> Self:
        """Open the database at ``url`` and bring its tables up to date."""
        return cls(database.connect(url), now)

    def close(self) -> None:
        """Close every connection."""
        self._reads.dispose()

    @property
    def engine(self) -> Engine:
        """The database, for the stores of other things; ``database.durable`` makes it writable."""
        return self._reads

    def add(
        self, *new: Job, max_queued: int, attempt: Attempt | None = None, kept: Quota | None = None
    ) -> tuple[Job, ...]:
        """Accept the jobs of one request, all or none. When this returns, they survive a loss of power.

        Returns:
            The same jobs; or, if an earlier attempt at the same request has been accepted, those that it made.

        Raises:
            QueueFull: More than ``max_queued`` jobs would be waiting.
            QuotaExceeded: Their owner would have more jobs than ``kept`` says, those that have ended included.
            KeyReused: The attempt's idempotency key belongs to another request.
            KeySpent: What was made under that key has been deleted since.
        """
        now = self._now()
        with self._writes.begin() as db:
            if attempt is not None:
                earlier = intake.made_before(db, new[0].owner, attempt, now)
                if earlier:
                    return earlier
                intake.note_key(db, new[0].owner, attempt, new[0], now)
            intake.insert_jobs(db, new, max_queued=max_queued, kept=kept)
            for job in new:
                outbox.emit(db, EventType.VIDEO_CREATED, job.id, owner=job.owner, now=now)
                if job.status is JobStatus.FAILED:
                    outbox.emit(db, EventType.VIDEO_FAILED, job.id, owner=job.owner, now=now)
        return new

    def made_before(self, owner: Owner, attempt: Attempt) -> tuple[Job, ...]:
        """Return what ``add`` would because of an earlier attempt; empty if there was none. Raises as it does."""
        with self._reads.connect() as db:
            return intake.made_before(db, owner, attempt, self._now())

    def get(self, job_id: JobId, owner: Owner | None = None) -> Job:
        """Return the job.

        Here and below, whoever names an ``owner`` finds only what is that owner's.

        Raises:
            JobNotFound: It does not exist, or has been deleted.
        """
        with self._reads.connect() as db:
            return _get(db, job_id, owner)

    def list(
        self,
        *,
        after: JobId | None,
        limit: int,
        newest_first: bool,
        owner: Owner | None = None,
        only: Filter = NO_FILTER,
    ) -> Page:
        """Return up to ``limit`` jobs in order of creation, those that follow ``after`` if it is given.

        Ids sort by creation, so ``after`` need not exist: clients delete what they list while they list it.
        """
        wanted = only.conditions(self._reads.dialect.name)
        query = select(jobs).where(_IS_SHOWN, _is_of(owner), *wanted).limit(limit + 1)
        query = query.order_by(jobs.c.id.desc() if newest_first else jobs.c.id.asc())
        if after is not None:
            query = query.where(jobs.c.id < after if newest_first else jobs.c.id > after)
        with self._reads.connect() as db:
            found = [job_from(row) for row in db.execute(query).mappings()]
        return Page(tuple(found[:limit]), has_more=len(found) > limit)

    def delete(self, job_id: JobId, owner: Owner | None = None) -> None:
        """Hide the job from everybody at once, and stop it. Its files go when no worker holds it any more.

        Raises:
            JobNotFound: It does not exist, or has been deleted before.
        """
        now = self._now()
        with self._writes.begin() as db:
            hidden = update(jobs).where(jobs.c.id == job_id, _IS_SHOWN, _is_of(owner)).values(deleted_at=now)
            row = db.execute(hidden.returning(jobs.c.owner)).one_or_none()
            if row is None:
                raise JobNotFound(job_id)
            self._cancel(db, job_id)
            outbox.emit(db, EventType.VIDEO_DELETED, job_id, owner=Owner(row.owner), now=now)

    def change(self, job_id: JobId, change: Change, owner: Owner | None = None) -> Job:
        """Change what a client may change of an accepted job, and return it.

        Raises:
            JobNotFound: It does not exist, or has been deleted.
        """
        changed = update(jobs).where(jobs.c.id == job_id, _IS_SHOWN, _is_of(owner))
        with self._writes.begin() as db:
            if values := change.values():
                db.execute(changed.values(values))
            return _get(db, job_id, owner)

    def request_cancel(self, job_id: JobId, owner: Owner | None = None) -> Job:
        """Stop the job: at once if it waits, after its current step if it runs. A finished one stays as it is.

        Raises:
            JobNotFound: It does not exist, or has been deleted.
        """
        with self._writes.begin() as db:
            _get(db, job_id, owner)
            self._cancel(db, job_id)
            return _get(db, job_id)

    def waiting(self) -> tuple[Waiting, ...]:
        """Return the queued jobs, those first whose turn is next as long as no model is loaded."""
        query = (
            select(jobs.c.id, jobs.c.card, jobs.c.created_at, jobs.c.priority)
            .where(_IS_WAITING)
            .order_by(due(jobs.c), jobs.c.seq)
        )
        with self._reads.connect() as db:
            return tuple(Waiting(*row) for row in db.execute(query))

    def position(self, job_id: JobId) -> int | None:
        """Return the job's place in the queue, counted from 1, or None if it does not wait."""
        me = jobs.alias()
        ahead = tuple_(due(jobs.c), jobs.c.seq) <= tuple_(due(me.c), me.c.seq)
        waits = and_(me.c.id == job_id, me.c.status == JobStatus.QUEUED, me.c.deleted_at.is_(None))
        query = select(func.count()).select_from(jobs.join(me, ahead)).where(waits, _IS_WAITING)
        with self._reads.connect() as db:
            return db.execute(query).scalar_one() or None

    def counts(self) -> Mapping[JobStatus, int]:
        """Return how many jobs there are in every status."""
        query = select(jobs.c.status, func.count()).where(_IS_SHOWN).group_by(jobs.c.status)
        with self._reads.connect() as db:
            counted = {JobStatus(status): count for status, count in db.execute(query)}
        return {status: counted.get(status, 0) for status in JobStatus}

    def claim(self, job_id: JobId, worker: WorkerId, lease_s: float) -> Job | None:
        """Take a waiting job for ``lease_s`` seconds; None if somebody else was faster."""
        now = self._now()
        taken = (
            update(jobs)
            .where(jobs.c.id == job_id, _IS_WAITING)
            .values(
                status=JobStatus.IN_PROGRESS,
                worker=worker,
                lease_until=now + lease_s,
                started_at=now,
                attempts=jobs.c.attempts + 1,
                progress=None,
            )
        )
        with self._writes.begin() as db:
            return _get(db, job_id) if self._make(db, taken, EventType.VIDEO_STARTED) else None

    def renew(self, job_id: JobId, worker: WorkerId, lease_s: float, progress: JobProgress | None) -> Renewal:
        """Hold the job for another ``lease_s`` seconds and note its progress, unless it is None."""
        noted = {} if progress is None else {"progress": progress}
        extended = update(jobs).where(_is_held(job_id, worker)).values(lease_until=self._now() + lease_s, **noted)
        with self._notes.begin() as db:
            row = db.execute(extended.returning(jobs.c.cancel_requested_at)).one_or_none()
        return _renewal(row)

    def watch(self, job_id: JobId, worker: WorkerId) -> Renewal:
        """Return what ``renew`` would, without writing anything."""
        with self._reads.connect() as db:
            return _renewal(
                db.execute(select(jobs.c.cancel_requested_at).where(_is_held(job_id, worker))).one_or_none()
            )

    def finish(self, job_id: JobId, worker: WorkerId, result: JobResult, *, retention_s: float | None = None) -> bool:
        """Complete the job; False if it is not this worker's any more. Its files go ``retention_s`` seconds later."""
        expires_at = None if retention_s is None else self._now() + retention_s
        return self._end(job_id, worker, status=JobStatus.COMPLETED, result=result, expires_at=expires_at)

    def fail(self, job_id: JobId, worker: WorkerId, error: JobError) -> bool:
        """End the job with an error; False if it is not this worker's any more."""
        return self._end(job_id, worker, status=JobStatus.FAILED, error=error)

    def release(self, job_id: JobId, worker: WorkerId) -> bool:
        """Give the job back to the queue as if it had not been claimed; False if it is not this worker's any more."""
        returned = update(jobs).where(_is_held(job_id, worker)).values(**_QUEUED, attempts=jobs.c.attempts - 1)
        with self._writes.begin() as db:
            return self._make(db, returned, EventType.VIDEO_REQUEUED) == 1

    def requeue_lost(self, *, max_attempts: int) -> int:
        """Free the jobs whose lease has run out, and return how many there were.

        They wait again, unless somebody wants them stopped or they have been lost ``max_attempts`` times.
        """
        return self._free(jobs.c.lease_until < self._now(), max_attempts)

    def abandon(self, worker: WorkerId, *, max_attempts: int) -> int:
        """Free the jobs of a worker that is known to be dead, without waiting for the lease to run out."""
        with self._notes.begin() as db:
            db.execute(delete(workers_table).where(workers_table.c.id == worker))
        return self._free(jobs.c.worker == worker, max_attempts)

    def has_made_any(self, worker: WorkerId) -> bool:
        """Return whether the worker has completed a job."""
        made = select(jobs.c.id).where(jobs.c.worker == worker, jobs.c.status == JobStatus.COMPLETED).limit(1)
        with self._reads.connect() as db:
            return db.execute(made).one_or_none() is not None

    def deleted(self) -> tuple[JobId, ...]:
        """Return the jobs that have been deleted and that no worker holds."""
        query = select(jobs.c.id).where(jobs.c.deleted_at.is_not(None), jobs.c.status != JobStatus.IN_PROGRESS)
        with self._reads.connect() as db:
            return tuple(db.execute(query).scalars())

    def forget(self, job_id: JobId) -> None:
        """Remove the last trace of a deleted job, once its files are gone."""
        with self._writes.begin() as db:
            db.execute(delete(jobs).where(jobs.c.id == job_id, jobs.c.deleted_at.is_not(None)))

    def exists(self, job_id: JobId) -> bool:
        """Return whether there is any trace of the job, also of a deleted one."""
        with self._reads.connect() as db:
            return db.execute(select(jobs.c.id).where(jobs.c.id == job_id)).one_or_none() is not None

    def announce(self, worker: WorkerInfo) -> None:
        """Note a worker's sign of life."""
        values = {column.name: getattr(worker, column.name) for column in workers_table.columns}
        with self._notes.begin() as db:
            if db.execute(update(workers_table).where(workers_table.c.id == worker.id).values(values)).rowcount == 0:
                db.execute(insert(workers_table).values(values))

    def dismiss(self, worker: WorkerId) -> None:
        """Forget a worker that ends."""
        with self._notes.begin() as db:
            db.execute(delete(workers_table).where(workers_table.c.id == worker))

    def dismiss_silent(self, silence_s: float) -> int:
        """Forget the workers that have given no sign of life for so long, and return how many there were."""
        with self._notes.begin() as db:
            silent = workers_table.c.seen_at < self._now() - silence_s
            return db.execute(delete(workers_table).where(silent)).rowcount

    def workers(self, *, fresh_s: float = 10) -> tuple[WorkerInfo, ...]:
        """Return the workers that have given a sign of life within the last ``fresh_s`` seconds, by device."""
        query = select(workers_table).where(workers_table.c.seen_at >= self._now() - fresh_s)
        with self._reads.connect() as db:
            rows = db.execute(query.order_by(workers_table.c.device, workers_table.c.id)).mappings()
            return tuple(WorkerInfo(**row) for row in rows)

    def _cancel(self, db: Connection, job_id: JobId) -> None:
        now = self._now()
        ended = {"status": JobStatus.FAILED, "error": CANCELLED, "completed_at": now, "cancel_requested_at": now}
        mine = jobs.c.id == job_id
        stopped = update(jobs).where(mine, jobs.c.status == JobStatus.QUEUED).values(ended)
        self._make(db, stopped, EventType.VIDEO_FAILED)
        running = and_(mine, jobs.c.status == JobStatus.IN_PROGRESS, jobs.c.cancel_requested_at.is_(None))
        db.execute(update(jobs).where(running).values(cancel_requested_at=now))

    def _end(self, job_id: JobId, worker: WorkerId, **values: object) -> bool:
        ended = update(jobs).where(_is_held(job_id, worker))
        ended = ended.values(completed_at=self._now(), lease_until=None, **values)
        kind = EventType.VIDEO_COMPLETED if values["status"] is JobStatus.COMPLETED else EventType.VIDEO_FAILED
        with self._writes.begin() as db:
            return self._make(db, ended, kind) == 1

    def _free(self, is_lost: ColumnElement[bool], max_attempts: int) -> int:
        lost = and_(jobs.c.status == JobStatus.IN_PROGRESS, is_lost)
        with self._reads.connect() as db:
            # Called several times a minute with nothing to do: leave the write lock alone then.
            if db.execute(select(jobs.c.id).where(lost).limit(1)).one_or_none() is None:
                return 0
        failed = {"status": JobStatus.FAILED, "completed_at": self._now(), "lease_until": None}
        stopped = update(jobs).where(lost, jobs.c.cancel_requested_at.is_not(None)).values(**failed, error=CANCELLED)
        used_up = update(jobs).where(lost, jobs.c.attempts >= max_attempts).values(**failed, error=WORKER_LOST)
        again = update(jobs).where(lost).values(**_QUEUED)
        with self._writes.begin() as db:
            ended = sum(self._make(db, transition, EventType.VIDEO_FAILED) for transition in (stopped, used_up))
            return ended + self._make(db, again, EventType.VIDEO_REQUEUED)

    def _make(self, db: Connection, transition: Update, kind: EventType) -> int:
        """Make a transition and write down that it happened; return how many jobs it was made by."""
        rows = db.execute(transition.returning(jobs.c.id, jobs.c.owner, jobs.c.deleted_at)).all()
        for row in rows:
            # Who deleted a video has been told of its end.
            if row.deleted_at is None:
                outbox.emit(db, kind, row.id, owner=Owner(row.owner), now=self._now())
        return len(rows)


_IS_SHOWN = jobs.c.deleted_at.is_(None)
_IS_WAITING = and_(jobs.c.status == JobStatus.QUEUED, _IS_SHOWN)
_QUEUED = {"status": JobStatus.QUEUED, "worker": None, "lease_until": None, "started_at": None, "progress": None}


def _is_held(job_id: JobId, worker: WorkerId) -> ColumnElement[bool]:
    return and_(jobs.c.id == job_id, jobs.c.worker == worker, jobs.c.status == JobStatus.IN_PROGRESS)


def _is_of(owner: Owner | None) -> ColumnElement[bool]:
    return true() if owner is None else jobs.c.owner == owner


def _get(db: Connection, job_id: JobId, owner: Owner | None = None) -> Job:
    row = db.execute(select(jobs).where(jobs.c.id == job_id, _IS_SHOWN, _is_of(owner))).mappings().one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_from(row)


def _renewal(row: Row[float | None] | None) -> Renewal:
    """Interpret the row of the job if the worker holds it, which is the time when it was asked to stop."""
    return Renewal(owned=row is not None, cancel_requested=row is not None and row[0] is not None)
