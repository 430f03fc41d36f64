"""Videos that are joined from others: checked, linked, and put into the queue like those that a model makes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.card import MAX_PROMPT
from pipelines.types import Part
from server.assets import Variant
from server.creation import admit
from server.errors import InvalidRequest
from server.jobs import Attempt, Job, JobId, JobStatus, Origin, new_job_id
from server.parameters import JoinPart, VideoJoin
from server.sources import completed
from server.validation import validated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.types import GenerationRequest
    from server.deps import Caller, Services
    from server.forms import Fields

MAX_JOINED_S = 600.0
_SILENT = "not all of these have sound: the joined video is silent"


def join(fields: Fields, caller: Caller, services: Services, *, attempt: Attempt | None = None) -> Job:
    """Accept a video that is joined from others. When this returns, it survives a crash, whatever becomes of them.

    Args:
        fields: The request's parameters; taken apart.
        caller: Whose it will be, and whose the others must be.
        services: Where it goes.
        attempt: By which a repetition is recognised; the job is then perhaps one that was made before.

    Raises:
        ApiError: A parameter is unknown, malformed or missing, or the videos do not go together.
        QueueFull: As many videos are waiting as may.
    """
    asked = validated(VideoJoin, fields, {})
    origins = [completed(part.id, caller, services, f"videos[{number}].id") for number, part in enumerate(asked.videos)]
    created_at = services.now()
    job_id = new_job_id(created_at)
    parts = tuple(
        _part(number, wanted, origin, job_id, services)
        for number, (wanted, origin) in enumerate(zip(asked.videos, origins, strict=True))
    )
    request = _request(parts, origins)
    last = origins[-1]
    is_silent = not request.sound and any(origin.request.sound for origin in origins)
    job = Job(
        id=job_id,
        # Whoever extends the joined video goes on from its last part, with the model that made it.
        model=last.model,
        card=last.card,
        status=JobStatus.QUEUED,
        request=request,
        created_at=created_at,
        warnings=(_SILENT,) if is_silent else (),
        priority=asked.priority or 0,
        metadata=asked.metadata or {},
        owner=caller.owner,
        origin=Origin("join", extensions=0, videos=tuple(origin.id for origin in origins)),
    )
    return admit([job], lambda: _keep(parts, origins, job_id, services), services, attempt)[0]


def _part(number: int, wanted: JoinPart, origin: Job, job_id: JobId, services: Services) -> Part:
    shape = origin.request.delivery
    end = shape.frames if wanted.end_frame is None else wanted.end_frame
    if end > shape.frames or wanted.start_frame >= end:
        param = f"videos[{number}].{'end_frame' if end > shape.frames else 'start_frame'}"
        message = f"{origin.id} has frames 0 to {shape.frames - 1}: start_frame has to be less than end_frame, and that"
        raise InvalidRequest(f"{message} at most {shape.frames}.", param=param, code="invalid_range")
    return Part(services.assets.input_path(job_id, f"part_{number:02d}.mp4"), shape, wanted.start_frame, end, origin.id)


def _request(parts: Sequence[Part], origins: Sequence[Job]) -> GenerationRequest:
    """Return the request of the joined video.

    Raises:
        InvalidRequest: The parts differ in size or rate, or are too long together.
    """
    shape = parts[0].shape
    for number, part in enumerate(parts):
        if part.shape[1:] != shape[1:]:
            message = (
                f"Videos that are joined need one size and frame rate: {parts[0].video} has {shape.size} at "
                f"{shape.fps}, {part.video} {part.shape.size} at {part.shape.fps}."
            )
            raise InvalidRequest(message, param=f"videos[{number}].id", code="different_shapes")
    joined = shape._replace(frames=sum(part.frames for part in parts))
    if joined.seconds > MAX_JOINED_S:
        message = f"Together these have {joined.seconds:.1f} seconds; a joined video has at most {MAX_JOINED_S:g}."
        raise InvalidRequest(message, param="videos", code="too_long")
    prompts = dict.fromkeys(origin.request.prompt for origin in origins)
    return replace(
        origins[-1].request,
        prompt="\n".join(prompts)[:MAX_PROMPT],
        shape=joined,
        delivery=joined,
        conditions=(),
        source=None,
        references=(),
        windows=(),
        sound=all(origin.request.sound for origin in origins),
        parts=tuple(parts),
    )


def _keep(parts: Sequence[Part], origins: Sequence[Job], job_id: JobId, services: Services) -> None:
    for part, origin in zip(parts, origins, strict=True):
        services.assets.link_input(
            job_id, part.path.name, services.assets.path(origin.id, Variant.VIDEO, origin.stored(Variant.VIDEO))
        )
