"""Where the bytes of a picture or a clip are that a request points to: in a part, in a text, or in a stored file."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from starlette.datastructures import UploadFile

from server.errors import InvalidRequest
from server.forms import Value, parse_object
from server.retrieval import at_url, stored
from server.validation import Medium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from server.deps import Caller, Services

_CHUNK = 1 << 20
_WAYS = 'Send the picture as a file part, or as {"file_id": "file-…"} or {"image_url": "https://… or data:…"}.'

_REFERENCE: dict[str, JsonValue] = {
    "type": "object",
    "properties": {
        "file_id": {"type": "string", "description": "Id of a file with the purpose vision or user_data"},
        "image_url": {"type": "string", "description": "An http, https or data: URL"},
    },
    "minProperties": 1,
    "maxProperties": 1,
    "additionalProperties": False,
}
_FIT = "a JPEG, PNG or WebP image; reference_fit says how it is brought to the clip's size"
PICTURE = Medium(f"The first frame: {_FIT}", _REFERENCE)
LAST_FRAME = "last_frame"
LAST_PICTURE = Medium(f"The last frame, for models that take one: {_FIT}", _REFERENCE)


def picture_of(value: Value, caller: Caller, services: Services, param: str) -> BinaryIO | None:
    """Return the bytes of the picture that a parameter means, wherever they are; None if there is none.

    Raises:
        InvalidRequest: It means nothing that can be read.
    """
    match unwrapped(value):
        case None:
            return None
        case UploadFile() as upload:
            return upload.file
        case {"image_url": str(url), **rest} if not rest:
            return at_url(url, f"{param}.image_url", services)
        case {"file_id": str(file_id), **rest} if not rest:
            return stored(file_id, f"{param}.file_id", caller, services)
        case _:
            raise InvalidRequest(f"Invalid type for '{param}'. {_WAYS}", param=param, code="invalid_type")


def unwrapped(value: Value) -> Value:
    """Return what a text holds that is written by hand for curl: an object in a text part."""
    is_object = isinstance(value, str) and value.lstrip().startswith("{")
    return cast("Value", parse_object(cast("str", value))) if is_object else value


def head_of(file: BinaryIO) -> bytes:
    """Return the first bytes of a file, by which its kind is known, and go back to its start."""
    head = file.read(16)
    file.seek(0)
    return head


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is left of a file."""
    while chunk := file.read(_CHUNK):
        yield chunk
