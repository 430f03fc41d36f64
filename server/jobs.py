"""Jobs: what they are and which ways they can go. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple, NewType

from pipelines.types import GenerationRequest, Stage
from server.ids import new_id, shape_of

JobId = NewType("JobId", str)
WorkerId = NewType("WorkerId", str)
Owner = NewType("Owner", str)
"""Id of the API key that something belongs to; what is made while no key exists belongs to ``NOBODY``."""

NOBODY = Owner("")


class JobStatus(StrEnum):
    """A job's life. ``cancelled`` is not a status: a cancelled job has failed, and its error code says so."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


MAX_EXTENSIONS = 6
"""How often a clip can be extended, as on the hosted service."""

TERMINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


@dataclass(frozen=True)
class JobError:
    """Why a job failed: a stable code and a sentence."""

    code: str
    message: str


@dataclass(frozen=True)
class JobProgress:
    """Where a running job is.

    Attributes:
        stage: What it is at.
        step: How many of the stage's ``total`` steps are done.
        total: Steps of the stage.
        percent: 0 to 100 over all stages.
        eta_s: Seconds to completion, or None if nobody can tell.
        preview: How many previews there have been; a new number means that there is a newer one to look at.
    """

    stage: Stage
    step: int
    total: int
    percent: int
    eta_s: float | None = None
    preview: int = 0


@dataclass(frozen=True)
class JobResult:
    """What a finished job took and made.

    Attributes:
        stage_s: Seconds per stage.
        peak_memory_bytes: Highest memory of the device (or of the process, on a CPU).
        facts: Versions, device and dtype, as the family reports them.
        warnings: What happened on the way that whoever asked should know, a sentence each.
        sizes: Bytes of each stored file, by the name of its variant.
    """

    stage_s: Mapping[str, float]
    peak_memory_bytes: int
    facts: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class Origin:
    """What a job was made from.

    Attributes:
        kind: The call that made it.
        video: The video that it started from; None for an uploaded file.
        extensions: How many times the clip has been extended in all, this time included.
        videos: The videos that it was joined from, in order.
    """

    kind: Literal["remix", "edit", "extension", "join"]
    video: JobId | None = None
    extensions: int = 0
    videos: tuple[JobId, ...] = ()


@dataclass(frozen=True)
class Attempt:
    """How a repeated request is recognised.

    Attributes:
        digest: Of the path and the parameters, uploaded files included.
        idempotency_key: The client's own name for the request, if it sent one.
        is_retry: Whether the client says that it has sent the same before.
    """

    digest: str
    idempotency_key: str | None = None
    is_retry: bool = False


@dataclass(frozen=True)
class Job:
    """One video, from acceptance to its end. Times are Unix seconds.

    Attributes:
        model: The name that was asked for, alias or card id; echoed on the wire.
        card: Id of the card that makes it.
        attempts: How often a worker has started it.
        cancel_requested: Somebody wants it stopped; the worker looks after every step.
        priority: Larger goes first.
        owner: Whose it is; nobody else sees it.
        group: Id of the variations or the batch that it belongs to.
        metadata: What the client wants to remember of it.
        digest: That of the request that made it.
        expires_at: When its files go unless it is starred; None for never. Clients are shown ``expiry``.
        starred: Its files are kept.
        purged_at: Since when its files are gone although it is still there.
    """

    id: JobId
    model: str
    card: str
    status: JobStatus
    request: GenerationRequest
    created_at: float
    warnings: tuple[str, ...] = ()
    started_at: float | None = None
    completed_at: float | None = None
    progress: JobProgress | None = None
    result: JobResult | None = None
    error: JobError | None = None
    attempts: int = 0
    worker: WorkerId | None = None
    cancel_requested: bool = False
    priority: int = 0
    owner: Owner = NOBODY
    group: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    origin: Origin | None = None
    digest: str | None = None
    expires_at: float | None = None
    starred: bool = False
    purged_at: float | None = None

    @property
    def expiry(self) -> float | None:
        """When the files of the finished video go, or went; None if they stay."""
        is_kept = self.starred and self.purged_at is None
        return None if self.status is not JobStatus.COMPLETED or is_kept else self.expires_at

    def stored(self, variant: str) -> int | None:
        """Return how many bytes of a file were stored; None if nobody knows."""
        return self.result.sizes.get(variant) if self.result else None

    def is_expired(self, now: float) -> bool:
        """Tell whether the finished video's files are gone, or about to."""
        return self.expiry is not None and self.expiry <= now


PRIORITY_STEP_S = 600.0
"""One step of priority is worth this much waiting: urgent jobs pass others, but never keep them out for good."""

JOB_ID = shape_of("video_")
"""The shape of every job's id."""


class Waiting(NamedTuple):
    """What a scheduler needs to know of a queued job."""

    id: JobId
    card: str
    created_at: float
    priority: int


def new_job_id(created_at: float) -> JobId:
    """Return an id that sorts by creation."""
    return JobId(new_id("video_", created_at))
