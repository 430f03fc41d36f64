"""The clip that an edit or an extension starts from: one of the caller's videos, or a file that comes along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from starlette.datastructures import UploadFile

from pipelines.card import MAX_TOTAL_SECONDS
from pipelines.types import SourceClip, SourceUse
from server import clips
from server.assets import Variant
from server.errors import NO_RETRY, ContentExpired, InvalidRequest, NotFound, quoted
from server.forms import Value
from server.jobs import JOB_ID, Job, JobId, JobStatus
from server.references import chunks, head_of, unwrapped
from server.retrieval import stored
from server.store import JobNotFound
from server.validation import Medium

if TYPE_CHECKING:
    from pathlib import Path

    from server.deps import Caller, Services

CLIP = Medium(
    "The clip to start from: a completed video, or an MP4 file",
    {
        "type": "object",
        "properties": {"id": {"type": "string", "description": "Id of a completed video"}},
        "required": ["id"],
        "additionalProperties": False,
    },
    is_required=True,
)
_NAME = "source.mp4"
_WAYS = 'Send {"id": "video_…"} of a completed video, or an MP4 as a file part.'


@dataclass(frozen=True)
class Source:
    """A clip to start from.

    Attributes:
        clip: The file, in the folder of the job that needs it.
        video: The video that it is, if it is one.
        model: What made it, if that is known.
        extensions: How often it has been extended.
    """

    clip: SourceClip
    video: JobId | None
    model: str | None
    extensions: int


def given(value: Value, caller: Caller, services: Services) -> Job | BinaryIO:
    """Return the completed video or the file that ``video`` means. Nothing is kept of it yet.

    Raises:
        InvalidRequest: It means nothing that can be read, or the video is not completed.
        NotFound: It is no video of the caller's.
    """
    match unwrapped(value):
        case UploadFile() as upload:
            return _checked(upload.file)
        case {"id": str(video_id), **rest} if not rest:
            return completed(video_id, caller, services)
        case {"file_id": str(file_id), **rest} if not rest:
            return _checked(stored(file_id, f"{clips.PARAM}.file_id", caller, services))
        case str(video_id) if JOB_ID.fullmatch(video_id):
            return completed(video_id, caller, services)
        case None:
            message = f"Missing required parameter: 'video'. {_WAYS}"
            raise InvalidRequest(message, param=clips.PARAM, code="missing_parameter")
        case _:
            raise InvalidRequest(f"Invalid type for 'video'. {_WAYS}", param=clips.PARAM, code="invalid_type")


def keep(origin: Job | BinaryIO, use: SourceUse, job_id: JobId, services: Services) -> Source:
    """Put the clip into the folder of the job that needs it, so that nothing that happens to the origin matters.

    Raises:
        AssetMissing: The video has been deleted or pruned meanwhile.
        InvalidRequest: The file is not a sound video within the limits.
    """
    if isinstance(origin, Job):
        path = services.assets.link_input(
            job_id, _NAME, services.assets.path(origin.id, Variant.VIDEO, origin.stored(Variant.VIDEO))
        )
        clip = SourceClip(path, origin.request.delivery, use, origin.request.prompt)
        return Source(clip, origin.id, origin.model, origin.origin.extensions if origin.origin else 0)
    path = services.assets.save_input(job_id, _NAME, chunks(origin))
    return _inspected(path, use, services)


def _inspected(path: Path, use: SourceUse, services: Services) -> Source:
    with services.decoders.taken():
        facts = clips.inspect(path, max_pixels=services.settings.max_video_pixels, max_seconds=MAX_TOTAL_SECONDS)
    prompt, extensions = facts.provenance.get("prompt"), facts.provenance.get("extensions")
    clip = SourceClip(path, facts.shape, use, prompt if isinstance(prompt, str) else "")
    return Source(clip, None, None, extensions if isinstance(extensions, int) else 0)


def completed(video_id: str, caller: Caller, services: Services, param: str = clips.PARAM) -> Job:
    """Return a video of the caller's whose content is there.

    Raises:
        InvalidRequest: It is not completed.
        NotFound: The caller has none of this id, or its content is gone.
    """
    job = _found(video_id, caller, services, param)
    if job.is_expired(services.now()):
        raise ContentExpired(param=param)
    if job.status is JobStatus.COMPLETED:
        return job
    if job.status is JobStatus.FAILED:
        message, code = "The video that this is to start from failed: it has no content.", "video_failed"
    else:
        message = f"The video that this is to start from is {job.status}; wait until its status is 'completed'."
        code = "video_not_ready"
    raise InvalidRequest(message, param=param, code=code, headers=NO_RETRY)


def _found(video_id: str, caller: Caller, services: Services, param: str) -> Job:
    try:
        if JOB_ID.fullmatch(video_id):
            return services.store.get(JobId(video_id), caller.owner)
    except JobNotFound:
        pass
    raise NotFound(f"There is no video {quoted(video_id)}.", param=param, code="video_not_found")


def _checked(file: BinaryIO) -> BinaryIO:
    clips.refuse(head_of(file))
    return file
