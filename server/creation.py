"""From a request's parameters to an accepted job: validate, check the reference image, commit the row."""

from __future__ import annotations

import base64
import binascii
import difflib
import io
from typing import TYPE_CHECKING, BinaryIO, cast

from pydantic import ValidationError
from starlette.datastructures import UploadFile

from pipelines.errors import UnsupportedOption
from pipelines.types import ImageCondition
from server import images
from server.errors import InvalidRequest, from_validation, quoted
from server.forms import Fields, Value, parse_object
from server.jobs import Job, JobStatus, new_job_id
from server.schemas import DEFAULT_MODEL, FOREIGN_PARAMETERS, VideoCreate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from server.deps import Caller, Services

_DESCRIPTIONS = {name: field.description or "" for name, field in VideoCreate.model_fields.items()}
_CHUNK = 1 << 20
_WAYS = 'Send the picture as a file part, or as {"image_url": "data:image/png;base64,…"}.'


def create_job(fields: Fields, caller: Caller, services: Services) -> Job:
    """Accept a video. When this returns, the job survives a crash; when it raises, nothing has been stored.

    Raises:
        InvalidRequest: A parameter is unknown, malformed or missing.
        PipelineError: The model is unknown or cannot make what was asked for, or the image cannot be read.
        QueueFull: As many videos are waiting as may.
    """
    reference = _reference(fields.pop(images.PARAM, None))
    create = _validated(fields)
    card = services.registry.find(create.model)
    created_at = services.now()
    job_id = new_job_id(created_at)
    picture = None
    if reference is not None:
        name = f"{images.PARAM}{images.suffix_of(_head(reference))}"
        picture = services.assets.input_path(job_id, name)
    resolved = card.resolve(create.wish((ImageCondition(picture),) if picture else ()))
    job = Job(
        id=job_id,
        model=create.model,
        card=card.id,
        status=JobStatus.QUEUED,
        request=resolved.request,
        created_at=created_at,
        warnings=resolved.warnings,
        owner=caller.owner,
    )
    try:
        if reference is not None and picture is not None:
            services.assets.save_input(job_id, picture.name, _chunks(reference))
            images.check(picture, services.settings.max_image_pixels)
        services.store.add(job, max_queued=services.settings.max_queued)
    except BaseException:
        services.assets.delete(job_id)
        raise
    return job


def _validated(fields: Fields) -> VideoCreate:
    for name, value in fields.items():
        if isinstance(value, UploadFile):
            raise InvalidRequest(
                f"{quoted(name)} is not a file parameter; send it as text.", param=name, code="invalid_type"
            )
        if name not in _DESCRIPTIONS:
            raise _unknown(name, fields.get("model") or DEFAULT_MODEL)
    try:
        return VideoCreate.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False)[0], _DESCRIPTIONS) from error


def _unknown(name: str, model: Value) -> Exception:
    if name in FOREIGN_PARAMETERS:
        return UnsupportedOption(f"The model {quoted(model)} does not honour '{name}'; leave it out.", param=name)
    close = difflib.get_close_matches(name[:40], [*_DESCRIPTIONS, images.PARAM], n=1)
    advice = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join([*_DESCRIPTIONS, images.PARAM])}."
    return InvalidRequest(f"Unknown parameter: {quoted(name)}. {advice}", param=name, code="unknown_parameter")


def _reference(value: Value) -> BinaryIO | None:
    """Return the picture's bytes, wherever they are in the request."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        # Written by hand for curl: an object in a text part.
        value = cast("Value", parse_object(value))
    match value:
        case None:
            return None
        case UploadFile():
            return value.file
        case {"image_url": str(url), **rest} if not rest:
            return io.BytesIO(_from_data_url(url))
        case {"file_id": _}:
            message = f"This server has no stored files yet. {_WAYS}"
            raise InvalidRequest(message, param="input_reference.file_id", code="unsupported_option")
        case _:
            message = f"Invalid type for 'input_reference'. {_WAYS}"
            raise InvalidRequest(message, param=images.PARAM, code="invalid_type")


def _from_data_url(url: str) -> bytes:
    comma = url.find(",")
    head = url[: max(comma, 0)]
    if not (head.startswith("data:") and head.endswith(";base64")):
        message = f"This server fetches no addresses yet; image_url must be a base64 data: URL. {_WAYS}"
        raise InvalidRequest(message, param="input_reference.image_url")
    try:
        # A view: the picture may be tens of megabytes, and every copy counts.
        return base64.b64decode(memoryview(url.encode("ascii"))[comma + 1 :], validate=True)
    except (binascii.Error, ValueError) as error:
        message = "The data: URL in image_url is not valid base64."
        raise InvalidRequest(message, param="input_reference.image_url") from error


def _head(file: BinaryIO) -> bytes:
    head = file.read(16)
    file.seek(0)
    return head


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
