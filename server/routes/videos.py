"""Videos: create, look at, list, cancel, delete, download."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse

from server.assets import Variant
from server.creation import create_job
from server.deps import BodyDep, CallerDep, Services, ServicesDep, VideoId, valid_id
from server.downloads import Download
from server.errors import ContentUnavailable, InvalidRequest
from server.jobs import TERMINAL, Job, JobStatus
from server.schemas import DEFAULT_PAGE, MAX_PAGE, Video, VideoDeleted, VideoList, create_body_schema
from server.store import JobNotFound

router = APIRouter(prefix="/v1/videos", tags=["videos"])

# Python's poll helper reads the interval from its first answer only and keeps it to the end.
_SOONEST_POLL_MS, _LATEST_POLL_MS = 250, 5000
_POLLS_PER_VIDEO = 20
_TYPICAL_S = 10.0

_CREATE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": create_body_schema(multipart=False)},
            "multipart/form-data": {"schema": create_body_schema(multipart=True)},
        },
    }
}
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {v.media_type: {"schema": {"type": "string", "format": "binary"}} for v in Variant},
    },
    206: {"description": "The range that was asked for"},
    304: {"description": "The client has it already"},
}


@router.post("", openapi_extra=_CREATE_BODY)
def create_video(body: BodyDep, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Accept a video. It survives a crash of the server from the moment of this answer."""
    return _video(create_job(body.fields(), caller, services), services, response)


@router.get("")
def list_videos(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = DEFAULT_PAGE,
    order: Literal["asc", "desc"] = "desc",
) -> VideoList:
    """List videos by creation, the newest first; go on with ``after=last_id``, also if that video is deleted."""
    try:
        cursor = None if after is None else valid_id(after)
    except JobNotFound as error:
        raise InvalidRequest("'after' must be the last_id of the page before.", param="after") from error
    page = services.store.list(after=cursor, limit=limit, newest_first=order == "desc", owner=caller.owner)
    positions = {waiting.id: position for position, waiting in enumerate(services.store.waiting(), start=1)}
    return VideoList.of([Video.of(job, positions.get(job.id)) for job in page.jobs], has_more=page.has_more)


@router.get("/{video_id}")
def retrieve_video(video_id: VideoId, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Say how a video is doing."""
    return _video(services.store.get(video_id, caller.owner), services, response)


@router.delete("/{video_id}")
def delete_video(video_id: VideoId, caller: CallerDep, services: ServicesDep) -> VideoDeleted:
    """Delete a video and its files, and stop it if it is still being made."""
    services.store.delete(video_id, caller.owner)
    return VideoDeleted(id=video_id)


@router.post("/{video_id}/cancel")
def cancel_video(video_id: VideoId, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Stop a video: at once if it waits, after its current step if it is being made. A finished one stays."""
    return _video(services.store.request_cancel(video_id, caller.owner), services, response)


@router.head("/{video_id}/content", include_in_schema=False)
@router.get("/{video_id}/content", response_class=FileResponse, responses=_BYTES)
def download_content(
    video_id: VideoId, request: Request, caller: CallerDep, services: ServicesDep, variant: Variant = Variant.VIDEO
) -> Response:
    """Send a finished video, its thumbnail or its spritesheet; ranges and conditional requests are honoured."""
    job = services.store.get(video_id, caller.owner)
    if job.status is JobStatus.FAILED:
        reason = job.error.message if job.error else "unknown"
        raise ContentUnavailable(f"This video failed and has no content: {reason}", code="video_failed")
    if job.status is not JobStatus.COMPLETED:
        raise ContentUnavailable(f"This video is {job.status}; wait until its status is 'completed'.")
    return Download.of(services.assets.path(video_id, variant), variant, video_id, request.headers)


def _video(job: Job, services: Services, response: Response) -> Video:
    position = services.store.position(job.id) if job.status is JobStatus.QUEUED else None
    if job.status not in TERMINAL:
        response.headers["openai-poll-after-ms"] = str(_poll_after_ms(job, position or 0))
    return Video.of(job, position)


def _poll_after_ms(job: Job, position: int) -> int:
    """Return a whole number of milliseconds: a fraction would break the client's poll helper."""
    eta_s = job.progress.eta_s if job.progress else None
    remaining_s = eta_s if eta_s is not None else _TYPICAL_S * max(position, 1)
    return int(min(max(remaining_s * 1000 / _POLLS_PER_VIDEO, _SOONEST_POLL_MS), _LATEST_POLL_MS))
