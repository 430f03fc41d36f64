"""Events of videos on the wire, which is ours: the hosted service had no streams."""

from __future__ import annotations

from typing import Any, Literal

from fastapi.sse import format_sse_event
from pydantic import BaseModel, Field

from server.jobs import JobError, JobProgress, JobStatus
from server.outbox import Event, EventType, State
from server.schemas import VideoError

PROGRESS, PREVIEW = "video.progress", "video.preview"
RETRY_MS = 2000

VideoEventType = Literal[
    "video.created",
    "video.started",
    "video.requeued",
    "video.progress",
    "video.preview",
    "video.completed",
    "video.failed",
    "video.deleted",
]

_STATUS_AFTER = {
    EventType.VIDEO_CREATED: JobStatus.QUEUED,
    EventType.VIDEO_STARTED: JobStatus.IN_PROGRESS,
    EventType.VIDEO_REQUEUED: JobStatus.QUEUED,
    EventType.VIDEO_COMPLETED: JobStatus.COMPLETED,
    EventType.VIDEO_FAILED: JobStatus.FAILED,
}


class VideoState(BaseModel):
    """How the video is doing after the event. The names are those of the video object."""

    id: str
    status: JobStatus | None = Field(description="null for a video that has been deleted")
    progress: int | None = Field(default=None, description="Percent; null where the event does not tell.")
    stage: str | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_s: float | None = None
    queue_position: int | None = None
    preview: int = Field(default=0, description="How many previews there have been; GET …/preview sends the latest.")
    error: VideoError | None = None


class VideoEvent(BaseModel):
    """One event, in the envelope of the webhooks'; ``video.progress`` and ``video.preview`` have no id of their own."""

    id: str | None
    object: Literal["event"] = "event"
    created_at: int
    type: VideoEventType
    data: VideoState


def stream_content() -> dict[str, Any]:
    """Describe the body of a stream, for the one media type of a route's response."""
    event = VideoEvent.model_json_schema(ref_template="#/components/schemas/{model}")
    event["properties"]["data"] = event.pop("$defs")[VideoState.__name__]
    fields = {
        "id": {"type": "string", "description": "To go on from: the Last-Event-ID of the next request"},
        "event": {"type": "string", "description": "The type in data"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": event},
    }
    return {"itemSchema": {"type": "object", "properties": fields, "required": ["data"]}}


def of_event(event: Event, error: JobError | None) -> bytes:
    """Return the block of something that happened; ``error`` is why the video failed, if it did."""
    status = _STATUS_AFTER.get(event.type)
    state = VideoState(id=event.subject, status=status, progress=_percent(status), error=_error(error))
    return _block(event.type, event.seq, event.id, event.created_at, state)


def of_state(state: State, cursor: int, now: float, *, kind: str = PROGRESS, position: int | None = None) -> bytes:
    """Return the block of how a video is doing.

    Args:
        state: How it is doing.
        cursor: Number of the last event that happened before; a stream is resumed from it.
        now: When it was doing so, in Unix seconds.
        kind: What the block is called.
        position: Place in the queue, if it waits.
    """
    progress = state.progress if state.status is JobStatus.IN_PROGRESS else None
    data = VideoState(
        id=state.id,
        status=state.status,
        progress=_percent(state.status) if progress is None else min(progress.percent, 99),
        queue_position=position if state.status is JobStatus.QUEUED else None,
        preview=0 if state.progress is None else state.progress.preview,
        error=_error(state.error),
    )
    return _block(kind, cursor, None, now, data.model_copy(update=_steps(progress)))


def of_end(state: State, cursor: int, now: float) -> bytes:
    """Return the block of how a video ended of whose end no event is left."""
    kind = EventType.VIDEO_COMPLETED if state.status is JobStatus.COMPLETED else EventType.VIDEO_FAILED
    return of_state(state, cursor, now, kind=kind)


def opening(cursor: int) -> bytes:
    """Return what a stream begins with: where to resume, should nothing happen, and how soon."""
    return format_sse_event(comment="homereel", id=str(cursor), retry=RETRY_MS)


def _percent(status: JobStatus | None) -> int | None:
    """Return what the status alone says."""
    match status:
        case JobStatus.QUEUED | JobStatus.IN_PROGRESS:
            return 0
        case JobStatus.COMPLETED:
            return 100
        case JobStatus.FAILED | None:
            return None


def _steps(progress: JobProgress | None) -> dict[str, object]:
    if progress is None:
        return {}
    return {
        "stage": progress.stage.value,
        "step": progress.step,
        "total_steps": progress.total,
        "eta_s": progress.eta_s,
    }


def _error(error: JobError | None) -> VideoError | None:
    return error and VideoError(code=error.code, message=error.message)


def _block(kind: str, cursor: int, event_id: str | None, at: float, state: VideoState) -> bytes:
    event = VideoEvent.model_validate({"id": event_id, "created_at": int(at), "type": kind, "data": state})
    return format_sse_event(event=kind, id=str(cursor), data_str=event.model_dump_json())
