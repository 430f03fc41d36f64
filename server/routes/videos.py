"""Videos: create, look at, list, cancel, delete, download."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from server.answers import positions, searched, video_answer
from server.assets import Variant
from server.creation import MEDIA, create_job
from server.deps import BodyDep, CallerDep, ServicesDep, VideoId, valid_id
from server.downloads import Download
from server.errors import ContentExpired, ContentUnavailable, InvalidRequest
from server.jobs import JobStatus
from server.parameters import Name, VideoCreate, VideoUpdate
from server.retries import once
from server.schemas import DEFAULT_PAGE, MAX_PAGE, Video, VideoDeleted, VideoList
from server.selection import Change, Filter
from server.store import JobNotFound
from server.validation import openapi_body, validated

router = APIRouter(prefix="/v1/videos", tags=["videos"])

_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {v.media_type: {"schema": {"type": "string", "format": "binary"}} for v in Variant},
    },
    206: {"description": "The range that was asked for"},
    304: {"description": "The client has it already"},
}


class _Selection(BaseModel):
    """Which videos to list, and how."""

    after: str | None = None
    limit: Annotated[int, Field(ge=0, le=MAX_PAGE)] = DEFAULT_PAGE
    order: Literal["asc", "desc"] = "desc"
    group: Annotated[Name | None, Field(description="Only those of these variations or of this batch.")] = None
    status: Annotated[JobStatus | None, Field(description="Only those in this state.")] = None
    model: Annotated[Name | None, Field(description="Only those that this model was asked for.")] = None
    starred: Annotated[bool | None, Field(description="Only those that are starred, or that are not.")] = None
    q: Annotated[
        str | None, Field(max_length=500, description="Words, or beginnings of words, that the prompt has all of.")
    ] = None


@router.post("", openapi_extra=openapi_body(VideoCreate, MEDIA))
def create_video(
    body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep, response: Response
) -> Video:
    """Accept a video. It survives a crash of the server from the moment of this answer."""
    fields = body.fields()
    [job] = once(
        request, fields, caller, services, lambda attempt: (create_job(fields, caller, services, attempt=attempt),)
    )
    return video_answer(job, services, response)


@router.get("")
def list_videos(
    caller: CallerDep,
    services: ServicesDep,
    only: Annotated[_Selection, Query()],
) -> VideoList:
    """List videos by creation, the newest first; go on with ``after=last_id``, also if that video is deleted."""
    try:
        cursor = None if only.after is None else valid_id(only.after)
    except JobNotFound as error:
        raise InvalidRequest("'after' must be the last_id of the page before.", param="after") from error
    words = searched(only.q)
    chosen = Filter(group=only.group, status=only.status, model=only.model, starred=only.starred, words=words)
    page = services.store.list(
        after=cursor, limit=only.limit, newest_first=only.order == "desc", owner=caller.owner, only=chosen
    )
    places = positions(services)
    return VideoList.of([Video.of(job, places.get(job.id)) for job in page.jobs], has_more=page.has_more)


@router.get("/{video_id}")
def retrieve_video(video_id: VideoId, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Say how a video is doing."""
    return video_answer(services.store.get(video_id, caller.owner), services, response)


@router.post("/{video_id}", openapi_extra=openapi_body(VideoUpdate, {}))
def update_video(
    video_id: VideoId, body: BodyDep, caller: CallerDep, services: ServicesDep, response: Response
) -> Video:
    """Star a video, or change its priority or what is remembered of it."""
    wanted = validated(VideoUpdate, body.fields(), {})
    change = Change(wanted.starred, wanted.priority, wanted.metadata)
    return video_answer(services.store.change(video_id, change, caller.owner), services, response)


@router.delete("/{video_id}")
def delete_video(video_id: VideoId, caller: CallerDep, services: ServicesDep) -> VideoDeleted:
    """Delete a video and its files, and stop it if it is still being made."""
    services.store.delete(video_id, caller.owner)
    return VideoDeleted(id=video_id)


@router.post("/{video_id}/cancel")
def cancel_video(video_id: VideoId, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Stop a video: at once if it waits, after its current step if it is being made. A finished one stays."""
    return video_answer(services.store.request_cancel(video_id, caller.owner), services, response)


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
    if job.is_expired(services.now()):
        raise ContentExpired
    return Download.of(services.assets.path(video_id, variant, job.stored(variant)), variant, video_id, request.headers)
