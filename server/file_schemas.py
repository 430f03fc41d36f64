"""Files and batches on the wire: what OpenAI's clients send and expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.batch_types import Batch, BatchStatus
from server.files import StoredFile
from server.parameters import Count, Metadata, Name


class ExpiresAfter(BaseModel):
    """When a file goes by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    anchor: Literal["created_at"]
    seconds: Count = Field(ge=3600, le=2_592_000)


_EXPIRES_AFTER = '{"anchor": "created_at", "seconds": 3600 to 2592000}'


class FileCreate(BaseModel):
    """The parameters of an upload, besides the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    purpose: Literal["vision", "batch", "user_data"] = Field(
        description="vision or user_data for pictures and clips, batch for requests; this server has no use for others"
    )
    expires_after: ExpiresAfter | None = Field(default=None, description=_EXPIRES_AFTER)


class FileObject(BaseModel):
    """A file on the wire."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: StoredFile) -> FileObject:
        """Say a file in OpenAI's words."""
        return cls(
            id=file.id,
            bytes=file.bytes,
            created_at=int(file.created_at),
            expires_at=_second(file.expires_at),
            filename=file.filename,
            purpose=file.purpose,
        )


class FileList(BaseModel):
    """One page. The SDKs go on with ``after``, the id of the last, while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, files: list[FileObject], *, has_more: bool) -> FileList:
        """Wrap a page's files."""
        first, last = (files[0].id, files[-1].id) if files else (None, None)
        return cls(data=files, first_id=first, last_id=last, has_more=has_more)


class FileDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchCreate(BaseModel):
    """The parameters of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_file_id: Name = Field(description="the id of a file that was uploaded with the purpose 'batch'")
    endpoint: Literal["/v1/videos"] = Field(description="/v1/videos, which is all that this server makes in batches")
    completion_window: Literal["24h"] = Field(description="24h")
    metadata: Metadata | None = Field(
        default=None, description="up to 16 pairs of text, keys of up to 64 and values of up to 512 characters"
    )
    output_expires_after: ExpiresAfter | None = Field(default=None, description=_EXPIRES_AFTER)


class BatchErrorItem(BaseModel):
    """Something that is wrong with an input file."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(BaseModel):
    """Everything that is wrong with an input file."""

    object: Literal["list"] = "list"
    data: list[BatchErrorItem]


class BatchCounts(BaseModel):
    """How many requests there are, and how many have ended which way."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch on the wire."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    metadata: Mapping[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> BatchObject:
        """Say a batch in OpenAI's words."""
        errors = [BatchErrorItem(**vars(error)) for error in batch.errors]
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            errors=BatchErrors(data=errors) if errors else None,
            input_file_id=batch.input_file_id,
            completion_window="24h",
            status=batch.status,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            created_at=int(batch.created_at),
            in_progress_at=_second(batch.in_progress_at),
            expires_at=int(batch.expires_at),
            finalizing_at=_second(batch.finalizing_at),
            completed_at=_second(batch.completed_at),
            failed_at=_second(batch.failed_at),
            expired_at=_second(batch.expired_at),
            cancelling_at=_second(batch.cancelling_at),
            cancelled_at=_second(batch.cancelled_at),
            request_counts=BatchCounts(**vars(batch.counts)),
            metadata=batch.metadata,
        )


class BatchList(BaseModel):
    """One page. The SDKs go on with ``after``, the id of the last, while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, batches: list[BatchObject], *, has_more: bool) -> BatchList:
        """Wrap a page's batches."""
        first, last = (batches[0].id, batches[-1].id) if batches else (None, None)
        return cls(data=batches, first_id=first, last_id=last, has_more=has_more)


def _second(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
