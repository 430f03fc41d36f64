"""Videos that start from others: remix, edit, extend, join."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.answers import video_answer
from server.deps import BodyDep, Caller, CallerDep, Services, ServicesDep, VideoId
from server.derivation import MEDIA, Kind, derive
from server.forms import Body
from server.jobs import Job, JobId
from server.joining import join
from server.parameters import VideoEdit, VideoExtension, VideoJoin
from server.restoring import MEDIA as RESTORED_FROM
from server.restoring import Restored, RestoreRequest, restore
from server.retries import once
from server.schemas import Video
from server.validation import openapi_body

router = APIRouter(prefix="/v1/videos", tags=["videos"])


@router.post("/edits", openapi_extra=openapi_body(VideoEdit, MEDIA))
def edit_video(body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Accept a video that shows another one anew, as the prompt says."""
    return video_answer(_derived(body, "edit", request, caller, services), services, response)


@router.post("/extensions", openapi_extra=openapi_body(VideoExtension, MEDIA))
def extend_video(
    body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep, response: Response
) -> Video:
    """Accept a video that goes on where another one ends, and holds both."""
    return video_answer(_derived(body, "extension", request, caller, services), services, response)


@router.post("/join", openapi_extra=openapi_body(VideoJoin, {}))
def join_videos(body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep, response: Response) -> Video:
    """Accept a video that shows others, or parts of them, one after the other."""
    fields = body.fields()
    [job] = once(request, fields, caller, services, lambda attempt: (join(fields, caller, services, attempt=attempt),))
    return video_answer(job, services, response)


@router.post("/restore", openapi_extra=openapi_body(RestoreRequest, RESTORED_FROM))
def restore_video(body: BodyDep, caller: CallerDep, services: ServicesDep) -> Restored:
    """Say what a downloaded MP4 was made of, as parameters that can be sent again. Nothing is kept of it."""
    return restore(body.fields(), caller, services)


@router.post("/{video_id}/remix", openapi_extra=openapi_body(VideoEdit, {}))
def remix_video(
    video_id: VideoId, body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep, response: Response
) -> Video:
    """Accept a video that shows this one anew, as the prompt says."""
    return video_answer(_derived(body, "remix", request, caller, services, video_id), services, response)


@router.post("/{video_id}/edits", openapi_extra=openapi_body(VideoEdit, {}))
def edit_this_video(
    video_id: VideoId, body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep, response: Response
) -> Video:
    """Accept a video that shows this one anew; the path that OpenAI's cookbook once named."""
    return video_answer(_derived(body, "edit", request, caller, services, video_id), services, response)


def _derived(
    body: Body, kind: Kind, request: Request, caller: Caller, services: Services, video: JobId | None = None
) -> Job:
    fields = body.fields()
    [job] = once(
        request,
        fields,
        caller,
        services,
        lambda attempt: (derive(fields, kind, caller, services, attempt=attempt, video=video),),
    )
    return job
