"""Videos that start from another one: remixes, edits and extensions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

from server import clips
from server.creation import admit, draft, told
from server.errors import NO_RETRY, InvalidRequest
from server.jobs import MAX_EXTENSIONS, Attempt, Job, JobId, Origin, new_job_id
from server.parameters import DEFAULT_MODEL, VideoEdit, VideoExtension
from server.sources import CLIP, given, keep
from server.validation import validated

if TYPE_CHECKING:
    from server.deps import Caller, Services
    from server.forms import Fields, Value

Kind: TypeAlias = Literal["remix", "edit", "extension"]

MEDIA = {clips.PARAM: CLIP}


def derive(
    fields: Fields,
    kind: Kind,
    caller: Caller,
    services: Services,
    *,
    attempt: Attempt | None = None,
    video: JobId | None = None,
) -> Job:
    """Accept a video that starts from another. When this returns, the job and its source survive a crash.

    Args:
        fields: The request's parameters; taken apart.
        kind: What is to be done with the source.
        caller: Whose it will be, and whose the source must be.
        services: Where it goes.
        attempt: By which a repetition is recognised; the job is then perhaps one that was made before.
        video: The source, if the path of the request names it.

    Raises:
        ApiError: A parameter is unknown, malformed or missing, or the source is none.
        PipelineError: The model is unknown or cannot do this.
        QueueFull: As many videos are waiting as may.
    """
    named: Value = fields.pop(clips.PARAM, None) if video is None else {"id": video}
    media = MEDIA if video is None else {}
    asked = validated(VideoExtension if kind == "extension" else VideoEdit, fields, media)
    origin = given(named, caller, services)
    created_at = services.now()
    job_id = new_job_id(created_at)
    try:
        job = _drafted(asked, kind, origin, services, job_id=job_id, created_at=created_at)
    except BaseException:
        services.assets.delete(job_id)
        raise
    return admit([replace(job, owner=caller.owner)], lambda: None, services, attempt)[0]


def _drafted(
    asked: VideoEdit | VideoExtension,
    kind: Kind,
    origin: Job | BinaryIO,
    services: Services,
    *,
    job_id: JobId,
    created_at: float,
) -> Job:
    """Return the job, whose source is in its folder by then."""
    model = asked.model or (origin.model if isinstance(origin, Job) else DEFAULT_MODEL)
    # Before anything is kept of the source: a name that nobody has needs none.
    services.registry.find(model)
    source = keep(origin, "extend" if kind == "extension" else "edit", job_id, services)
    if kind == "extension":
        _check_count(source.extensions)
    wish = replace(told(asked, services), source=source.clip)
    card, resolved = services.registry.choose(model, wish, services.device())
    job = draft(asked, resolved, job_id, created_at, model=model, card=card)
    extensions = source.extensions + (kind == "extension")
    return replace(job, origin=Origin(kind, source.video, extensions))


def _check_count(extensions: int) -> None:
    if extensions >= MAX_EXTENSIONS:
        message = f"This video has been extended {extensions} times; {MAX_EXTENSIONS} are the most."
        raise InvalidRequest(message, param=clips.PARAM, code="too_many_extensions", headers=NO_RETRY)
