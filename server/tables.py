"""The database's tables, and how a row becomes a job. Migrations lead here; a test compares the two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    REAL,
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    TypeDecorator,
)

from pipelines.types import GenerationRequest
from server.batch_types import BatchError, Counts, Refusal
from server.jobs import Job, JobError, JobProgress, JobResult, JobStatus, Origin
from server.loaded import DeviceMemory, LoadedModel
from server.prompts import Template


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

# STRICT tables know INTEGER only, which in SQLite has 64 bits.
Bytes = BigInteger().with_variant(Integer(), "sqlite")

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
    Column("expires_at", Moment),
    Column("starred", Integer, nullable=False, server_default="0"),
    # Since when its files are gone although its row is there.
    Column("purged_at", Moment),
    # The request's, where its words can be indexed: by SQLite's triggers in prompt_search, by PostgreSQL itself.
    Column("prompt", Text, nullable=False, server_default=""),
    Index("job_by_owner", "owner", "id"),
    Index("job_by_group", "group_id"),
    Index("job_by_digest", "owner", "digest"),
    Index("job_by_age", "created_at", "seq"),
    Index("job_by_status", "status", "deleted_at"),
    Index("job_by_expiry", "purged_at", "expires_at"),
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
    # Why it takes no jobs, if it does not.
    Column("paused", Text),
    Column("models", AsJson(tuple[LoadedModel, ...])),
    Column("memory", AsJson(DeviceMemory)),
    sqlite_strict=True,
)

# What all workers look at: whether they are to make anything.
control = Table(
    "control",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("since", Moment, nullable=False),
    sqlite_strict=True,
)

# Kept apart from the jobs: a key stays used although its video has been deleted.
idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("used_at", Moment, nullable=False),
    Index("idempotency_key_by_age", "used_at"),
    sqlite_strict=True,
)

character = Table(
    "character",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("character_by_owner", "owner", "id"),
    sqlite_strict=True,
)

api_key = Table(
    "api_key",
    metadata,
    # The owner of what is made with the key.
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("requests_per_minute", Integer),
    Column("max_queued", Integer),
    Column("created_at", Moment, nullable=False),
    Column("revoked_at", Moment),
    sqlite_strict=True,
)

timing = Table(
    "timing",
    metadata,
    Column("card", Text, primary_key=True),
    Column("device", Text, primary_key=True),
    Column("use", Text, primary_key=True),
    Column("frames", Integer, primary_key=True),
    Column("height", Integer, primary_key=True),
    Column("width", Integer, primary_key=True),
    Column("steps", Integer, primary_key=True),
    Column("stage_s", AsJson(Mapping[str, float]), nullable=False),
    Column("peak_memory_bytes", Bytes, nullable=False),
    Column("updated_at", Moment, nullable=False),
    sqlite_strict=True,
)

event = Table(
    "event",
    metadata,
    # The order in which events became visible, as SQLite has one writer at a time.
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("event_by_owner", "owner", "seq"),
    Index("event_by_subject", "subject", "seq"),
    Index("event_by_age", "created_at"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", AsJson(tuple[str, ...]), nullable=False),
    # In the clear: what signs cannot be a hash.
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", Moment),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Index("webhook_endpoint_by_owner", "owner", "seq"),
    sqlite_strict=True,
    sqlite_autoincrement=True,
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Text, primary_key=True),
    Column("event", Integer, ForeignKey("event.seq", ondelete="CASCADE"), nullable=False),
    Column("endpoint", Text, ForeignKey("webhook_endpoint.id", ondelete="CASCADE"), nullable=False),
    Column("attempts", Integer, nullable=False),
    # None once it has arrived or has been given up.
    Column("next_at", Moment),
    Column("delivered_at", Moment),
    Column("last_status", Integer),
    Column("last_error", Text),
    Index("delivery_by_endpoint", "endpoint", "next_at"),
    Index("delivery_by_event", "event", "endpoint", unique=True),
    sqlite_strict=True,
)

file = Table(
    "file",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", Bytes, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
    # Hidden from everybody; its content and then the row itself go as soon as no batch reads it.
    Column("deleted_at", Moment),
    Index("file_by_owner", "owner", "id"),
    sqlite_strict=True,
)

batch = Table(
    "batch",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("metadata", AsJson(Mapping[str, str] | None)),
    Column("output_expires_s", Integer),
    Column("expires_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("in_progress_at", Moment),
    Column("finalizing_at", Moment),
    Column("completed_at", Moment),
    Column("failed_at", Moment),
    Column("expired_at", Moment),
    Column("cancelling_at", Moment),
    Column("cancelled_at", Moment),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("errors", AsJson(tuple[BatchError, ...]), nullable=False),
    # Once the batch has ended; before, they are counted from the lines.
    Column("counts", AsJson(Counts)),
    Index("batch_by_owner", "owner", "id"),
    Index("batch_by_status", "status"),
    sqlite_strict=True,
)

batch_line = Table(
    "batch_line",
    metadata,
    Column("batch", Text, ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("custom_id", Text, nullable=False),
    # Where the line is in the input file, in bytes.
    Column("place", Bytes, nullable=False),
    Column("job", Text),
    # Why no job was made of it.
    Column("refusal", AsJson(Refusal)),
    Index("batch_line_by_job", "job"),
    sqlite_strict=True,
)

prompt_template = Table(
    "prompt_template",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("template", AsJson(Template), nullable=False),
    Column("created_at", Moment, nullable=False),
    # Counts its changes from 1: who changes it names the one that was seen.
    Column("revision", Integer, nullable=False, server_default="1"),
    Index("prompt_template_by_owner", "owner", "id"),
    sqlite_strict=True,
)

starred_prompt = Table(
    "starred_prompt",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("starred_prompt_by_owner", "owner", "id"),
    sqlite_strict=True,
)

_STORED_AS_IS = (
    *("id", "model", "card", "priority", "request", "warnings", "created_at", "started_at", "completed_at"),
    *(
        "progress",
        "result",
        "error",
        "attempts",
        "worker",
        "owner",
        "metadata",
        "origin",
        "digest",
        "expires_at",
        "purged_at",
    ),
)


def job_from(row: RowMapping) -> Job:
    """Return the job that a row of ``job`` holds."""
    return Job(
        **{name: row[name] for name in _STORED_AS_IS},
        status=JobStatus(row["status"]),
        cancel_requested=row["cancel_requested_at"] is not None,
        group=row["group_id"],
        starred=bool(row["starred"]),
    )


def row_from(new: Job) -> dict[str, Any]:
    """Return the row of a job that nobody has worked on yet."""
    return {name: getattr(new, name) for name in _STORED_AS_IS} | {
        "status": new.status.value,
        "group_id": new.group,
        "starred": int(new.starred),
        "prompt": new.request.prompt,
    }
