"""The database's tables, and how a row becomes a job. Migrations lead here; a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import REAL, Column, Dialect, Double, Index, Integer, MetaData, RowMapping, Table, Text, TypeDecorator

from pipelines.types import GenerationRequest
from server.jobs import Attempt, Job, JobError, JobProgress, JobResult, JobStatus, Origin


class AsJson(TypeDecorator[Any]):
    """An immutable object in a text column, validated on its way in and out."""

    impl = Text
    cache_ok = True

    def __init__(self, contents: Any) -> None:
        super().__init__()
        self.contents = contents
        self._adapter: TypeAdapter[Any] = TypeAdapter(contents)

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Return the JSON to store."""
        del dialect
        return None if value is None else self._adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Return the object that was stored."""
        del dialect
        return None if value is None else self._adapter.validate_json(value)


# Unix seconds. STRICT tables of SQLite know REAL only, which on other databases is too coarse by two minutes.
Moment = Double[float]().with_variant(REAL(), "sqlite")

metadata = MetaData()

job = Table(
    "job",
    metadata,
    # Insertion order, which breaks ties of created_at.
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("card", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("request", AsJson(GenerationRequest), nullable=False),
    Column("warnings", AsJson(tuple[str, ...]), nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("started_at", Moment),
    Column("completed_at", Moment),
    Column("progress", AsJson(JobProgress)),
    Column("result", AsJson(JobResult)),
    Column("error", AsJson(JobError)),
    Column("attempts", Integer, nullable=False),
    Column("worker", Text),
    Column("lease_until", Moment),
    Column("cancel_requested_at", Moment),
    # Hidden from everybody; its files and then the row itself go as soon as no worker holds it.
    Column("deleted_at", Moment),
    Column("owner", Text, nullable=False, server_default=""),
    Column("group_id", Text),
    Column("metadata", AsJson(Mapping[str, str]), nullable=False, server_default="{}"),
    Column("origin", AsJson(Origin)),
    Column("digest", Text),
    Column("idempotency_key", Text),
    Column("expires_at", Moment),
    Column("starred", Integer, nullable=False, server_default="0"),
    Index("job_by_owner", "owner", "id"),
    Index("job_by_group", "group_id"),
    Index("job_by_digest", "owner", "digest"),
    Index("job_by_idempotency_key", "owner", "idempotency_key", unique=True),
    Index("job_by_age", "created_at", "seq"),
    Index("job_by_status", "status", "deleted_at"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

worker = Table(
    "worker",
    metadata,
    Column("id", Text, primary_key=True),
    Column("device", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("card", Text),
    Column("job", Text),
    Column("seen_at", Moment, nullable=False),
    sqlite_strict=True,
)

_STORED_AS_IS = (
    *("id", "model", "card", "priority", "request", "warnings", "created_at", "started_at", "completed_at"),
    *("progress", "result", "error", "attempts", "worker", "owner", "metadata", "origin", "expires_at"),
)


def job_from(row: RowMapping) -> Job:
    """Return the job that a row of ``job`` holds."""
    return Job(
        **{name: row[name] for name in _STORED_AS_IS},
        status=JobStatus(row["status"]),
        cancel_requested=row["cancel_requested_at"] is not None,
        group=row["group_id"],
        attempt=None if row["digest"] is None else Attempt(row["digest"], row["idempotency_key"]),
        starred=bool(row["starred"]),
    )


def row_from(new: Job) -> dict[str, Any]:
    """Return the row of a job that nobody has worked on yet."""
    attempt = new.attempt
    return {name: getattr(new, name) for name in _STORED_AS_IS} | {
        "status": new.status.value,
        "group_id": new.group,
        "digest": attempt and attempt.digest,
        "idempotency_key": attempt and attempt.idempotency_key,
        "starred": int(new.starred),
    }
