"""Several videos of one prompt, and what one would be before it is made."""

from __future__ import annotations

from fastapi import APIRouter, Request

from server.answers import positions
from server.creation import MEDIA, create_variations, resolve_only
from server.deps import BodyDep, CallerDep, ServicesDep
from server.forecast import planned, predict
from server.overview import overview
from server.parameters import VideoCreate, VideoVariations
from server.queue_schemas import Estimate, Foreseen
from server.retries import once
from server.schemas import VideoGroup
from server.validation import openapi_body

router = APIRouter(prefix="/v1/videos", tags=["videos"])


@router.post("/variations", openapi_extra=openapi_body(VideoVariations, MEDIA))
def create_video_variations(body: BodyDep, request: Request, caller: CallerDep, services: ServicesDep) -> VideoGroup:
    """Accept a video for every pair of a model and a seed, all or none; ``GET /v1/videos?group=`` lists them."""
    fields = body.fields()
    jobs = once(
        request, fields, caller, services, lambda attempt: create_variations(fields, caller, services, attempt=attempt)
    )
    return VideoGroup.of(jobs, positions(services))


@router.post("/estimate", openapi_extra=openapi_body(VideoCreate, MEDIA))
def estimate_video(body: BodyDep, caller: CallerDep, services: ServicesDep) -> Estimate:
    """Say what a video would be and take, without making it."""
    model, card, resolved = resolve_only(body.fields(), caller, services)
    device = services.device()
    foreseen = Foreseen(
        predict(services.timings.of(card.id), resolved.request),
        None if device is None else planned(card, resolved.request, device),
    )
    return Estimate.of(model, card.id, resolved, foreseen, overview(services).wait_s)
