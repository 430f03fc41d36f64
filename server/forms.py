"""Request bodies: JSON and bracketed multipart, read within bounds, become the same tree of parameters."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, NoReturn, TypeAlias, cast

from anyio import Semaphore
from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from server.errors import BUSY_HEADERS, InvalidRequest, PayloadTooLarge, ServerBusy, quoted

Value: TypeAlias = "str | int | float | bool | UploadFile | list[Value] | dict[str, Value] | None"
Fields: TypeAlias = dict[str, Value]
"""Parameters by name. Multipart knows only text and files, JSON everything but files."""

MAX_FIELDS, MAX_FILES = 64, 8
MAX_DEPTH = 8
LARGE_BYTES, LARGE_AT_ONCE = 1 << 20, 1
# All bodies that are on their way or at work, together; a single one may always be as large as its limit.
ARRIVING_BYTES = 2_000_000_000
_CHUNK = 1 << 16
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_KEY = re.compile(r"\[([^\[\]]*)\]")
# The closing boundary is looked for in this many last bytes; what follows it is ignored by multipart's own rules.
_TAIL = 4096


@dataclass(frozen=True)
class Body:
    """A request body that has arrived whole: the file of a JSON document, or the parts of a form."""

    content: BinaryIO | FormData

    def fields(self) -> Fields:
        """Return the parameters.

        Raises:
            InvalidRequest: The body is not a JSON object, or a form that names a parameter twice.
        """
        if isinstance(self.content, FormData):
            return nest(self.content.multi_items())
        return parse_object(self.content.read())


class Landing:
    """Where bodies arrive: on disk, so many bytes at a time. Belongs to the event loop.

    Attributes:
        large: Lets so many large bodies be parsed at a time.
    """

    def __init__(self, max_bytes: int = ARRIVING_BYTES, *, large_at_once: int = LARGE_AT_ONCE) -> None:
        self._max_bytes = max_bytes
        self._here = 0
        self.large = Semaphore(large_at_once)

    @contextmanager
    def arriving(self) -> Generator[Callable[[int], None]]:
        """Yield what has to be told how many bytes have come; they count until the block ends.

        The first body of all is let through whatever its size; it raises ``ServerBusy`` where others have to come back.
        """
        mine = 0

        def add(size: int) -> None:
            nonlocal mine
            if self._here + size > self._max_bytes and self._here > mine:
                message = "Too much is being uploaded at this moment. Try again in a few seconds."
                raise ServerBusy(message, headers={**BUSY_HEADERS, "connection": "close"})
            self._here += size
            mine += size

        try:
            yield add
        finally:
            self._here -= mine


@asynccontextmanager
async def open_body(
    request: Request, max_bytes: int, landing: Landing, *, max_text_bytes: int | None = None
) -> AsyncGenerator[Body]:
    """Read a body of at most ``max_bytes``. Uploaded files live as long as the context.

    Parsing takes several times a body's size in memory. So one that is large arrives on disk, however slowly, and
    then waits for the turn that ``landing`` gives it, which it holds as long as the context. What is text in a form is
    kept in memory: at most ``max_text_bytes`` a part, if they are given.

    Raises:
        PayloadTooLarge: It is longer. Whether that is announced or found out, no more than the limit is kept.
        InvalidRequest: It is neither JSON nor a whole multipart form.
        ServerBusy: Too much else is arriving.
    """
    content_type, options = parse_options_header(request.headers.get("content-type", ""))
    is_form = content_type == b"multipart/form-data"
    if not (is_form or content_type in {b"", b"application/json"} or content_type.endswith(b"+json")):
        kind = quoted(content_type.decode("latin-1"))
        raise InvalidRequest(
            f"Content-Type {kind} is not understood. Send application/json or multipart/form-data.", code=_BAD_BODY
        )
    bounded = _BoundedReceive(request.receive, max_bytes, options.get(b"boundary") if is_form else None)
    bounded.refuse_announced(request.headers.get("content-length"))
    with SpooledTemporaryFile(max_size=LARGE_BYTES) as file, landing.arriving() as add:
        # It writes and reads in a thread once the file is on disk.
        arrived = UploadFile(cast("BinaryIO", file), size=0)
        async for chunk in Request(request.scope, bounded).stream():
            add(len(chunk))
            await arrived.write(chunk)
        await arrived.seek(0)
        async with landing.large if (arrived.size or 0) > LARGE_BYTES else nullcontext():
            if not is_form:
                yield Body(arrived.file)
                return
            form = await _read_form(Request(request.scope, _replayed(arrived)), max_text_bytes or max_bytes)
            try:
                yield Body(form)
            finally:
                await form.close()


def _replayed(arrived: UploadFile) -> Receive:
    """Return an ASGI ``receive`` of a body that has arrived before."""

    async def receive() -> Message:
        chunk = await arrived.read(_CHUNK)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return receive


_BAD_BODY = "invalid_body"


class _BoundedReceive:
    """An ASGI ``receive`` that fails once too much has come, or when a form ends without its closing boundary."""

    def __init__(self, receive: Receive, max_bytes: int, boundary: bytes | None) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._closing = None if boundary is None else b"\r\n--" + boundary + b"--"
        self._seen = 0
        # An empty form begins with what otherwise follows a line end.
        self._tail = b"\r\n"

    async def __call__(self) -> Message:
        message = await self._receive()
        chunk: bytes = message.get("body", b"")
        self._seen += len(chunk)
        if self._seen > self._max_bytes:
            self._refuse()
        self._tail = (self._tail + chunk[-_TAIL:])[-_TAIL:]
        # The parser takes a form that is cut short for a shorter form.
        is_last = message["type"] == "http.request" and not message.get("more_body", False)
        if is_last and self._closing is not None and self._closing not in self._tail:
            raise InvalidRequest("The form is cut short: its closing boundary is missing.", code=_BAD_BODY)
        return message

    def refuse_announced(self, length: str | None) -> None:
        if length is not None and length.isdecimal() and int(length[:20]) > self._max_bytes:
            self._refuse()

    def _refuse(self) -> NoReturn:
        message = f"The request is larger than {self._max_bytes // 1_000_000} MB."
        # Otherwise the connection stays open, and the rest of the body is read only to be thrown away.
        raise PayloadTooLarge(message, headers={"connection": "close"})


async def _read_form(request: Request, max_text_bytes: int) -> FormData:
    try:
        return await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=max_text_bytes)
    except HTTPException as error:
        raise InvalidRequest(f"The multipart body cannot be read: {error.detail}", code=_BAD_BODY) from error


def parse_object(text: bytes | str) -> Fields:
    """Parse a JSON object strictly: no name twice, no NaN or infinity.

    Raises:
        InvalidRequest: It is not one.
    """
    if not text.strip():
        raise InvalidRequest(
            "The body is empty. Send JSON or multipart/form-data with at least 'prompt'.", code=_BAD_BODY
        )
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        # Among them: not UTF-8, integers of thousands of digits, arrays nested thousands deep.
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is malformed"
        raise InvalidRequest(f"The body is not valid JSON: {reason}.", code=_BAD_BODY) from error
    if not isinstance(value, dict):
        raise InvalidRequest('The JSON body must be an object such as {"prompt": "…"}.', code=_BAD_BODY)
    return cast("Fields", value)


def _unique(pairs: list[tuple[str, Value]]) -> Fields:
    fields: Fields = {}
    for name, value in pairs:
        if name in fields:
            raise _duplicate(name)
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The body is not valid JSON: {name} is not a number.", code=_BAD_BODY)


def _duplicate(name: str) -> InvalidRequest:
    return InvalidRequest(f"{quoted(name)} is given more than once.", param=name, code="duplicate_parameter")


def nest(parts: Iterable[tuple[str, str | UploadFile]]) -> Fields:
    """Undo the SDKs' flattening: ``a[b]`` is a key, ``a[]`` an element, ``a[][b]`` a key of an element.

    A repeated key of ``a[][b]`` starts the next element. File parts without a name and content, as browsers send
    them for an empty file field, are left out.

    Raises:
        InvalidRequest: A name cannot be read, is given twice, or is used for different things.
    """
    fields: Fields = {}
    for name, value in parts:
        if isinstance(value, UploadFile) and not value.filename and not value.size:
            continue
        found = _NAME.fullmatch(name)
        keys = _KEY.findall(found[2]) if found else []
        if found is None or len(keys) > MAX_DEPTH:
            raise InvalidRequest(f"The parameter name {quoted(name)} cannot be read.", param=name)
        _put(fields, [found[1], *keys], value, name)
    return fields


def _put(fields: Fields, keys: list[str], value: Value, name: str) -> None:
    """Store ``value`` at the path ``keys``, making objects and lists on the way."""
    place: Value = fields
    for depth, key in enumerate(keys, start=1):
        rest = keys[depth:]
        inner: Value = value if not rest else [] if rest[0] == "" else {}
        if isinstance(place, list) and key == "":
            place = _element(cast("list[Value]", place), inner, rest)
        elif isinstance(place, dict) and key != "":
            if key in place and not rest:
                raise _duplicate(name)
            place = cast("Fields", place).setdefault(key, inner)
        else:
            raise InvalidRequest(f"{quoted(name)} contradicts another parameter of that name.", param=name)


def _element(items: list[Value], inner: Value, rest: list[str]) -> Value:
    """Return the list's element that the rest of the path belongs to: the last, unless it has a value there."""
    if items and rest and not _has(items[-1], rest):
        return items[-1]
    items.append(inner)
    return inner


def _has(place: Value, path: list[str]) -> bool:
    for key in path:
        if not isinstance(place, dict) or key not in place:
            return False
        place = place[key]
    return True
