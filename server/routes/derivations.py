"""Videos that start from another one: remix, edit, extend."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.answers import video_answer
from server.deps import BodyDep, Caller, CallerDep, Services, ServicesDep, VideoId
from server.derivation import MEDIA, Kind, derive
from server.forms import Body
from server.jobs import Job, JobId
from server.parameters import VideoEdit, VideoExtension
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
