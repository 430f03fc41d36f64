"""The store of batches: which requests they hold, and how far each of these has come.

A request that became a video is what that video is: nothing is copied from it before the batch ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from server import database
from server.batch_types import ACTIVE, Batch, BatchError, BatchId, BatchStatus, Counts, Line, Refusal
from server.files import StoredFile, row_of
from server.jobs import TERMINAL, Job, JobId, JobStatus, Owner
from server.outbox import EventType, emit
from server.quota import Quota
from server.tables import batch as batches
from server.tables import batch_line as lines
from server.tables import file as files
from server.tables import job as jobs
from server.tables import job_from

_ROWS_AT_ONCE = 500
KEPT = 10_000


class BatchNotFound(Exception):
    """There is no such batch."""

    def __init__(self, batch_id: BatchId) -> None:
        super().__init__(f"no batch {batch_id}")
        self.batch_id = batch_id


class BatchPage(NamedTuple):
    """A part of a list, and whether more follows."""

    batches: tuple[Batch, ...]
    has_more: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a line.

    Attributes:
        job: The video that was made of it, or that could not be made; None if it has been deleted since, or never was.
        refusal: Why there never was one.
    """

    line: int
    custom_id: str
    job: Job | None
    refusal: Refusal | None


@dataclass(frozen=True)
class _Ending:
    """What comes with a batch's end, in the same transaction."""

    event: EventType
    owner: Owner
    new_files: tuple[StoredFile, ...] = ()


class BatchStore:
    """All batches, of everybody. Safe to use from many threads and processes."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._now = now

    def add(self, batch: Batch, quota: Quota | None = None) -> None:
        """Accept a batch. When this returns, it survives a loss of power.

        Of batches that have ended, an owner's latest ``KEPT`` are remembered.

        Raises:
            QuotaExceeded: Its owner has as many under way as may be.
        """
        row = {name: value for name, value in vars(batch).items() if name != "counts"}
        with self._writes.begin() as db:
            if quota is not None:
                quota.check(db, batches, batch.owner, 1, batches.c.status.in_(ACTIVE))
            ended = select(batches.c.id).where(batches.c.owner == batch.owner, batches.c.status.not_in(ACTIVE))
            db.execute(delete(batches).where(batches.c.id.in_(ended.order_by(batches.c.id.desc()).offset(KEPT))))
            db.execute(insert(batches).values(row))

    def get(self, batch_id: BatchId, owner: Owner | None = None) -> Batch:
        """Return the batch, with counts that are true now.

        Here and below, whoever names an ``owner`` finds only what is that owner's.

        Raises:
            BatchNotFound: There is none.
        """
        with self._reads.connect() as db:
            row = db.execute(select(batches).where(batches.c.id == batch_id, _is_of(owner))).mappings().one_or_none()
            if row is None:
                raise BatchNotFound(batch_id)
            return _batch_from(db, row)

    def list(self, *, after: BatchId | None, limit: int, owner: Owner | None) -> BatchPage:
        """Return up to ``limit`` batches, the newest first, those that follow ``after`` if it is given."""
        query = select(batches).where(_is_of(owner)).order_by(batches.c.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(batches.c.id < after)
        with self._reads.connect() as db:
            rows = db.execute(query).mappings().all()
            return BatchPage(tuple(_batch_from(db, row) for row in rows[:limit]), has_more=len(rows) > limit)

    def request_cancel(self, batch_id: BatchId, owner: Owner | None = None) -> Batch:
        """Make no further videos of the batch, and stop those that are being made. One that has ended stays.

        Raises:
            BatchNotFound: There is none.
        """
        early = batches.c.status.in_((BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS))
        stopped = update(batches).where(batches.c.id == batch_id, _is_of(owner), early)
        with self._writes.begin() as db:
            db.execute(stopped.values(status=BatchStatus.CANCELLING, cancelling_at=self._now()))
        return self.get(batch_id, owner)

    def active(self) -> tuple[BatchId, ...]:
        """Return the batches that have not ended, the oldest first."""
        query = select(batches.c.id).where(batches.c.status.in_(ACTIVE)).order_by(batches.c.id)
        with self._reads.connect() as db:
            return tuple(BatchId(batch_id) for batch_id in db.execute(query).scalars())

    def add_lines(self, batch_id: BatchId, new: Sequence[Line]) -> None:
        """Add requests to a batch that is being validated; those that it has already are left alone."""
        with self._writes.begin() as db:
            last = db.execute(select(func.max(lines.c.line)).where(lines.c.batch == batch_id)).scalar_one() or 0
            rows = [{"batch": batch_id, **vars(line)} for line in new if line.line > last]
            if rows:
                db.execute(insert(lines), rows)

    def reject(self, batch: Batch, errors: Sequence[BatchError]) -> bool:
        """End a batch whose input is wrong; False if somebody was faster."""
        ending = _Ending(EventType.BATCH_FAILED, batch.owner)
        changes: dict[str, Any] = {
            "status": BatchStatus.FAILED,
            "failed_at": self._now(),
            "errors": tuple(errors),
            "counts": Counts(),
        }
        return self._move(batch.id, BatchStatus.VALIDATING, changes, ending)

    def start(self, batch_id: BatchId) -> bool:
        """Go from validating to in progress; False if somebody was faster."""
        changes = {"status": BatchStatus.IN_PROGRESS, "in_progress_at": self._now()}
        return self._move(batch_id, BatchStatus.VALIDATING, changes)

    def finalize(self, batch_id: BatchId, *, is_late: bool = False) -> bool:
        """Go from in progress to finalizing, because all requests have ended or the time is over."""
        late: dict[str, Any] = {"expired_at": self._now()} if is_late else {}
        changes = {"status": BatchStatus.FINALIZING, "finalizing_at": self._now()} | late
        return self._move(batch_id, BatchStatus.IN_PROGRESS, changes)

    def next_line(self, batch_id: BatchId) -> Line | None:
        """Return the first request that nothing has become of yet."""
        query = select(lines.c.line, lines.c.custom_id, lines.c.place).where(lines.c.batch == batch_id, _IS_UNTOUCHED)
        with self._reads.connect() as db:
            row = db.execute(query.order_by(lines.c.line).limit(1)).one_or_none()
        return None if row is None else Line(*row)

    def waiting(self) -> int:
        """Return how many videos of batches are queued."""
        query = select(func.count()).select_from(lines.join(jobs, jobs.c.id == lines.c.job))
        with self._reads.connect() as db:
            return db.execute(query.where(jobs.c.status == JobStatus.QUEUED, _IS_SHOWN)).scalar_one()

    def note_job(self, batch_id: BatchId, line: int, job_id: JobId) -> bool:
        """Note which video a request became; False if something else has become of it meanwhile."""
        mine = and_(lines.c.batch == batch_id, lines.c.line == line, or_(_IS_UNTOUCHED, lines.c.job == job_id))
        with self._writes.begin() as db:
            return db.execute(update(lines).where(mine).values(job=job_id)).rowcount == 1

    def refuse(self, batch_id: BatchId, line: int, refusal: Refusal) -> None:
        """Note why a request became no video."""
        mine = and_(lines.c.batch == batch_id, lines.c.line == line, _IS_UNTOUCHED)
        with self._writes.begin() as db:
            db.execute(update(lines).where(mine).values(refusal=refusal))

    def refuse_rest(self, batch_id: BatchId, refusal: Refusal) -> None:
        """Note why nothing becomes of all requests of which nothing has become yet."""
        with self._writes.begin() as db:
            db.execute(update(lines).where(lines.c.batch == batch_id, _IS_UNTOUCHED).values(refusal=refusal))

    def unfinished(self, batch_id: BatchId) -> tuple[JobId, ...]:
        """Return the batch's videos that are queued or being made."""
        query = select(jobs.c.id).select_from(lines.join(jobs, jobs.c.id == lines.c.job))
        live = jobs.c.status.not_in([status.value for status in TERMINAL])
        with self._reads.connect() as db:
            found = db.execute(query.where(lines.c.batch == batch_id, live, _IS_SHOWN)).scalars()
            return tuple(JobId(job_id) for job_id in found)

    def outcomes(self, batch_id: BatchId) -> Iterator[Outcome]:
        """Yield what became of every request, all as of the same moment."""
        query = _with_jobs(select(lines.c.line, lines.c.custom_id, lines.c.refusal, jobs)).order_by(lines.c.line)
        with self._reads.connect() as db:
            rows = db.execution_options(yield_per=_ROWS_AT_ONCE).execute(query.where(lines.c.batch == batch_id))
            for row in rows.mappings():
                made = job_from(row) if row["id"] is not None else None
                yield Outcome(row["line"], row["custom_id"], made, row["refusal"])

    def end(self, batch: Batch, counts: Counts, output: StoredFile | None, errors: StoredFile | None) -> bool:
        """End the batch and give its owner the files, at once; False if somebody was faster."""
        status, moment, kind = _end_of(batch)
        changes: dict[str, Any] = {
            "status": status,
            moment: getattr(batch, moment) or self._now(),
            "counts": counts,
            "output_file_id": output and output.id,
            "error_file_id": errors and errors.id,
        }
        new_files = tuple(file for file in (output, errors) if file is not None)
        return self._move(batch.id, batch.status, changes, _Ending(kind, batch.owner, new_files))

    def _move(
        self, batch_id: BatchId, source: BatchStatus, changes: Mapping[str, Any], ending: _Ending | None = None
    ) -> bool:
        moved = update(batches).where(batches.c.id == batch_id, batches.c.status == source).values(changes)
        with self._writes.begin() as db:
            if db.execute(moved).rowcount == 0:
                return False
            if ending is not None:
                if ending.new_files:
                    db.execute(insert(files), [row_of(file) for file in ending.new_files])
                emit(db, ending.event, batch_id, owner=ending.owner, now=self._now())
        return True


_IS_UNTOUCHED = and_(lines.c.job.is_(None), lines.c.refusal.is_(None))
_IS_SHOWN = jobs.c.deleted_at.is_(None)


def _with_jobs(query: Select[*tuple[object, ...]]) -> Select[*tuple[object, ...]]:
    return query.select_from(lines.outerjoin(jobs, and_(jobs.c.id == lines.c.job, _IS_SHOWN)))


def _counted(db: Connection, batch_id: BatchId) -> Counts:
    has_made = jobs.c.status == JobStatus.COMPLETED
    # The video of a line that has one, and that is not there, has been deleted.
    has_failed = or_(
        lines.c.refusal.is_not(None),
        jobs.c.status == JobStatus.FAILED,
        and_(lines.c.job.is_not(None), jobs.c.id.is_(None)),
    )
    sums = (func.sum(case((condition, 1), else_=0)) for condition in (has_made, has_failed))
    row = db.execute(_with_jobs(select(func.count(), *sums)).where(lines.c.batch == batch_id)).one()
    total, completed, failed = (int(count or 0) for count in row)
    return Counts(total, completed, failed)


def _batch_from(db: Connection, row: RowMapping) -> Batch:
    values: dict[str, Any] = dict(row)
    counts = values.pop("counts") or _counted(db, row["id"])
    values |= {"status": BatchStatus(row["status"]), "counts": counts}
    return Batch(**values)


def _end_of(batch: Batch) -> tuple[BatchStatus, str, EventType]:
    """Return how the batch ends, what the moment is called, and what has happened then."""
    if batch.cancelling_at is not None:
        return BatchStatus.CANCELLED, "cancelled_at", EventType.BATCH_CANCELLED
    if batch.expired_at is not None:
        return BatchStatus.EXPIRED, "expired_at", EventType.BATCH_EXPIRED
    return BatchStatus.COMPLETED, "completed_at", EventType.BATCH_COMPLETED


def _is_of(owner: Owner | None) -> ColumnElement[bool]:
    return true() if owner is None else batches.c.owner == owner
