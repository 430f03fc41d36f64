"""The input of a batch: JSON lines, each a request to ``POST /v1/videos``. Read whole before any is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

from server.batch_types import ENDPOINT, BatchError, Line
from server.errors import InvalidRequest, quoted
from server.forms import Fields, parse_object

if TYPE_CHECKING:
    from server.forms import Value

MAX_LINES = 50_000
MAX_ERRORS = 100
MAX_CUSTOM_ID = 512
# A picture of 20 MiB as a data: URL, and room for the rest.
MAX_LINE_BYTES = 32_000_000
_METHOD = "POST"
_BOM = b"\xef\xbb\xbf"


class LineError(Exception):
    """A line is not a request."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def read_input(file: BinaryIO) -> Iterator[Line | BatchError]:
    """Yield the requests of an input file and what is wrong with it, in order. Empty lines are left out.

    What a request asks for is not looked at: that is refused when its turn comes, and the others go on.
    """
    first_use: dict[str, int] = {}
    number = requests = 0
    while True:
        place = file.tell()
        text = file.readline(MAX_LINE_BYTES + 1)
        if not text:
            break
        number += 1
        if len(text) > MAX_LINE_BYTES:
            yield BatchError("line_too_long", f"The line is longer than {MAX_LINE_BYTES // 1_000_000} MB.", line=number)
            return
        if not text.removeprefix(_BOM).strip():
            continue
        requests += 1
        if requests > MAX_LINES:
            yield BatchError("too_many_requests", f"The file has more than {MAX_LINES:,} requests.", line=number)
            return
        try:
            custom_id = _custom_id(_request(text), number, first_use)
        except LineError as error:
            yield BatchError(error.code, error.message, error.param, number)
            continue
        yield Line(number, custom_id, place)
    if not requests:
        yield BatchError("empty_file", "The file holds no requests: one JSON object a line is expected.")


def request_at(file: BinaryIO, place: int) -> Fields:
    """Return the parameters of the request at that place of an input file that has been read before.

    Raises:
        LineError: The file has changed since.
    """
    file.seek(place)
    return cast("Fields", _request(file.readline(MAX_LINE_BYTES + 1))["body"])


def _request(text: bytes) -> Fields:
    try:
        request = parse_object(text.removeprefix(_BOM))
    except InvalidRequest as error:
        message = error.message.replace("The JSON body", "A line").replace("The body", "The line")
        raise LineError("invalid_json_line", message, error.param) from error
    _expect(request, "method", _METHOD)
    _expect(request, "url", ENDPOINT)
    if not isinstance(request.get("body"), dict):
        raise LineError("invalid_request", "'body' must be an object with the parameters of a video.", "body")
    return request


def _expect(request: Fields, name: str, value: str) -> None:
    given: Value = request.get(name)
    if given != value:
        said = "It is missing." if given is None else f"It is {quoted(given)}."
        raise LineError(f"invalid_{name}", f"'{name}' must be '{value}'. {said}", name)


def _custom_id(request: Fields, number: int, first_use: dict[str, int]) -> str:
    """Return what line ``number`` is called, and note that this name is taken."""
    custom_id = request.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        message = f"'custom_id' must be a text of 1 to {MAX_CUSTOM_ID} characters, another one in every line."
        raise LineError("invalid_custom_id", message, "custom_id")
    if "\0" in custom_id or any("\ud800" <= character <= "\udfff" for character in custom_id):
        raise LineError("invalid_custom_id", "'custom_id' contains characters that are not text.", "custom_id")
    earlier = first_use.setdefault(custom_id, number)
    if earlier != number:
        message = f"The custom_id {quoted(custom_id)} is that of line {earlier} too; each must be unique."
        raise LineError("duplicate_custom_id", message, "custom_id")
    return custom_id
