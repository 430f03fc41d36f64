"""Batches: what they are and which ways they can go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType

from server.ids import new_id, shape_of
from server.jobs import Owner

BatchId = NewType("BatchId", str)

BATCH_ID = shape_of("batch_")
ENDPOINT = "/v1/videos"
WINDOW, WINDOW_S = "24h", 86_400.0


class BatchStatus(StrEnum):
    """A batch's life, in the hosted service's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


ACTIVE = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)
"""A batch in any other status stays as it is."""


@dataclass(frozen=True)
class BatchError:
    """What is wrong with an input file; ``line`` counts from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Counts:
    """How many requests a batch has, and how many have ended which way."""

    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Refusal:
    """Why a line became no video: what ``POST /v1/videos`` would have answered, or else why it was never asked.

    Attributes:
        code: Stable.
        message: A sentence.
        status: Of the answer; None if it was never asked.
        body: Of the answer.
    """

    code: str
    message: str
    status: int | None = None
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Batch:
    """Requests for videos in a file. Times are Unix seconds: when the batch came into the status of that name.

    Attributes:
        output_expires_s: How long its results are kept; None for ever.
        expires_at: When what has not ended by then is given up.
        errors: Why it failed.
        counts: Of its requests, as far as they have got.
    """

    id: BatchId
    owner: Owner
    input_file_id: str
    status: BatchStatus
    created_at: float
    expires_at: float
    endpoint: str = ENDPOINT
    metadata: Mapping[str, str] | None = None
    output_expires_s: int | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    expired_at: float | None = None
    cancelling_at: float | None = None
    cancelled_at: float | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: tuple[BatchError, ...] = ()
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True)
class Line:
    """A request of a batch: where it is in the input file, and what its sender calls it."""

    line: int
    custom_id: str
    place: int


def new_batch(
    owner: Owner,
    input_file_id: str,
    created_at: float,
    *,
    metadata: Mapping[str, str] | None = None,
    output_expires_s: int | None = None,
) -> Batch:
    """Return a batch that is to be validated."""
    return Batch(
        id=BatchId(new_id("batch_", created_at)),
        owner=owner,
        input_file_id=input_file_id,
        status=BatchStatus.VALIDATING,
        created_at=created_at,
        expires_at=created_at + WINDOW_S,
        metadata=metadata,
        output_expires_s=output_expires_s,
    )
