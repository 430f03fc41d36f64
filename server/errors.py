"""From exceptions to answers: every failure leaves in OpenAI's envelope, the framework's own included.

A client may branch on ``code``, which is stable, and shows ``message``, which says what would work instead.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from pipelines.errors import (
    InvalidImage,
    MissingCapability,
    PipelineError,
    UnknownModel,
    UnsupportedOption,
    UnsupportedShape,
    WeightsMissing,
)
from server.assets import AssetDamaged, AssetMissing
from server.batches import BatchNotFound
from server.files import FileNotFound, FilesFull
from server.intake import QueueFull
from server.library import NotInLibrary
from server.quota import QuotaExceeded
from server.slots import Busy
from server.space import Trouble, trouble_of
from server.store import JobNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI, Request
    from pydantic_core import ErrorDetails

_log = logging.getLogger(__name__)

# Both SDKs repeat 408, 409, 429 and 5xx on their own; where that is hopeless, this header stops them.
NO_RETRY = {"x-should-retry": "false"}
QUEUE_RETRY_S = 15
BUSY_HEADERS = {"retry-after": "3"}
# What a client sent may be megabytes long; an answer quotes this much of it.
_QUOTED = 100


class ApiError(Exception):
    """A request that is answered with an error; subclasses fix the status and the code."""

    status = 400
    code = "invalid_value"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.headers = dict(headers or {})


class InvalidRequest(ApiError):
    """The request cannot be understood or carried out; the message says what would work."""


class Unauthorized(ApiError):
    """The request has no key, or one that is not good."""

    status = 401
    code = "invalid_api_key"


class Forbidden(ApiError):
    """Nobody may do this."""

    status = 403
    code = "forbidden"


class RateLimited(ApiError):
    """The key has sent more requests than it may."""

    status = 429
    code = "rate_limit_exceeded"


class PayloadTooLarge(ApiError):
    """The body is larger than the server takes."""

    status = 413
    code = "payload_too_large"


class NotFound(ApiError):
    """There is nothing of this name."""

    status = 404
    code = "not_found"


class ContentExpired(NotFound):
    """The video's files have been removed, as the server's settings or its operator wanted."""

    code = "content_expired"

    def __init__(self, *, param: str | None = None) -> None:
        super().__init__("The files of this video have expired and are gone; its record stays.", param=param)


class ContentUnavailable(ApiError):
    """The video has no content, now or ever."""

    code = "video_not_ready"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, headers=NO_RETRY)


class RangeNotSatisfiable(ApiError):
    """None of the bytes that were asked for exist."""

    status = 416
    code = "range_not_satisfiable"


class DiskFull(ApiError):
    """There is no room for what was sent. Nothing of it has been kept."""

    status = 507
    code = "insufficient_storage"


class StorageUnavailable(ApiError):
    """The disk or the database takes or gives nothing at this moment. Nothing has been kept."""

    status = 503
    code = "storage_unavailable"


class ContentDamaged(ApiError):
    """A file is not what was stored: it is never sent as if it were."""

    status = 500
    code = "content_damaged"


class ServerBusy(ApiError):
    """The server could, but has too much to do at this moment."""

    status = 503
    code = "server_busy"


class NotReady(ApiError):
    """The server is up, its workers are not."""

    status = 503
    code = "not_ready"


# Exceptions from below the web, and the status that each becomes. Their own code and param go out with them.
_STATUS: Mapping[type[PipelineError], int] = {
    UnknownModel: 400,
    WeightsMissing: 400,
    UnsupportedShape: 400,
    UnsupportedOption: 400,
    MissingCapability: 400,
    InvalidImage: 400,
}


def envelope(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error answer; all four keys are always there."""
    kind = {429: "rate_limit_error"}.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": printable(message), "type": kind, "param": param and printable(param), "code": code}}


def printable(text: str) -> str:
    """Return ``text`` without the lone surrogates that JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def quoted(value: object) -> str:
    """Return what a client sent, short enough to be shown to it again."""
    text = value if isinstance(value, str) else repr(value)
    return f"'{text if len(text) <= _QUOTED else text[:_QUOTED] + '…'}'"


def internal_error() -> JSONResponse:
    """Return the answer to a fault of ours. It says nothing of the cause, which is in the log."""
    message = "The server made a mistake. Its log has the details under this answer's x-request-id."
    return JSONResponse(envelope(500, message, "internal_error"), 500)


def install(app: FastAPI) -> None:
    """Register the handlers of everything that a request can cause."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(PipelineError, _pipeline_error)
    app.add_exception_handler(JobNotFound, _job_not_found)
    app.add_exception_handler(AssetMissing, _asset_missing)
    app.add_exception_handler(AssetDamaged, _asset_damaged)
    app.add_exception_handler(QueueFull, _queue_full)
    app.add_exception_handler(QuotaExceeded, _quota_exceeded)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(FileNotFound, _file_not_found)
    app.add_exception_handler(FilesFull, _files_full)
    app.add_exception_handler(NotInLibrary, _not_in_library)
    app.add_exception_handler(BatchNotFound, _batch_not_found)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnect, _client_disconnect)
    app.add_exception_handler(OSError, _storage_error)
    app.add_exception_handler(SQLAlchemyError, _storage_error)


def from_validation(details: ErrorDetails, descriptions: Mapping[str, str]) -> InvalidRequest:
    """Turn pydantic's first complaint into one sentence.

    Args:
        details: One entry of ``ValidationError.errors()``; its ``loc`` starts with the parameter's name.
        descriptions: What each parameter is, ending without a full stop: it completes "Expected …".
    """
    if details["type"] == "conflict":
        return InvalidRequest(details["msg"], param=details.get("ctx", {}).get("param"), code="conflicting_parameters")
    name = str(details["loc"][0]) if details["loc"] else "body"
    value = details["input"]
    expected = f" Expected {descriptions[name]}." if name in descriptions else ""
    kind = details["type"]
    if kind == "missing":
        return InvalidRequest(f"Missing required parameter: '{name}'.{expected}", param=name, code="missing_parameter")
    if kind == "string_type" or (kind.endswith("_type") and not isinstance(value, str)):
        return InvalidRequest(f"Invalid type for '{name}'.{expected}", param=name, code="invalid_type")
    if kind == "value_error":
        return InvalidRequest(f"{details['msg'].removeprefix('Value error, ')}{expected}", param=name)
    if kind.startswith("string_too"):
        return InvalidRequest(f"Invalid length of '{name}': {len(value)} characters.{expected}", param=name)
    expected = expected or f" {details['msg']}."
    return InvalidRequest(f"Invalid value for '{name}': {quoted(value)}.{expected}", param=name)


def answer(error: ApiError) -> JSONResponse:
    """Return what the client gets to see of an error."""
    body = envelope(error.status, error.message, error.code, error.param)
    return JSONResponse(body, error.status, error.headers)


def _api_error(_: Request, error: Exception) -> JSONResponse:
    return answer(cast("ApiError", error))


def answer_to(error: Exception) -> JSONResponse | None:
    """Return what the client gets whose request for a video fails with ``error``; None for a fault of ours."""
    if isinstance(error, ApiError):
        return answer(error)
    status = _STATUS.get(type(error)) if isinstance(error, PipelineError) else None
    if status is None:
        return None
    error = cast("PipelineError", error)
    return JSONResponse(envelope(status, error.message, error.code, error.param), status)


def _pipeline_error(_: Request, error: Exception) -> JSONResponse:
    answered = answer_to(error)
    if answered is None:
        _log.error("unexpected_pipeline_error code=%s", cast("PipelineError", error).code, exc_info=error)
        return internal_error()
    return answered


def _job_not_found(_: Request, error: Exception) -> JSONResponse:
    job_id = cast("JobNotFound", error).job_id
    return answer(NotFound(f"There is no video {quoted(job_id)}.", param="video_id", code="video_not_found"))


def _asset_missing(_: Request, error: Exception) -> JSONResponse:
    del error
    return answer(NotFound("This video has no such file (any more).", code="content_not_found"))


def _asset_damaged(_: Request, error: Exception) -> JSONResponse:
    _log.error("asset_damaged reason=%s", error)
    message = "This video's file has been damaged on the server's disk. Make it again: its seed gives the same clip."
    return answer(ContentDamaged(message, headers=NO_RETRY))


def _queue_full(_: Request, error: Exception) -> JSONResponse:
    full = cast("QueueFull", error)
    whose = "this key's" if full.of_key else "this server's"
    message = f"{full.limit} videos are waiting, which is {whose} limit. Try again in {QUEUE_RETRY_S} seconds."
    return JSONResponse(envelope(429, message, "queue_full"), 429, {"retry-after": str(QUEUE_RETRY_S)})


def _quota_exceeded(_: Request, error: Exception) -> JSONResponse:
    quota = cast("QuotaExceeded", error).quota
    message = f"You have {quota.limit:,} {quota.what}, which is the limit. {quota.advice}, or raise {quota.setting}."
    return JSONResponse(envelope(429, message, "quota_exceeded"), 429, NO_RETRY)


def _busy(_: Request, error: Exception) -> JSONResponse:
    del error
    message = "Too many pictures and clips are being looked at at this moment. Try again in a few seconds."
    return answer(ServerBusy(message, headers=BUSY_HEADERS))


def _file_not_found(_: Request, error: Exception) -> JSONResponse:
    file_id = cast("FileNotFound", error).file_id
    return answer(NotFound(f"There is no file {quoted(file_id)}.", param="file_id", code="file_not_found"))


def _not_in_library(_: Request, error: Exception) -> JSONResponse:
    missing = cast("NotInLibrary", error)
    code = f"{missing.what.replace(' ', '_')}_not_found"
    return answer(NotFound(f"There is no {missing.what} {quoted(missing.thing_id)}.", code=code))


def _files_full(_: Request, error: Exception) -> JSONResponse:
    error = cast("FilesFull", error)
    message = (
        f"All files together may take {error.max_bytes / 1e9:g} GB, of which {error.used_bytes / 1e9:g} GB are taken. "
        "Delete some, or raise HOMEREEL_MAX_FILES_GB."
    )
    return answer(PayloadTooLarge(message, code="files_full"))


def _batch_not_found(_: Request, error: Exception) -> JSONResponse:
    batch_id = cast("BatchNotFound", error).batch_id
    return answer(NotFound(f"There is no batch {quoted(batch_id)}.", param="batch_id", code="batch_not_found"))


def _validation_error(_: Request, error: Exception) -> JSONResponse:
    details = cast("ErrorDetails", cast("RequestValidationError", error).errors()[0])
    # The framework's location starts with the part of the request: ("query", "limit").
    return answer(from_validation({**details, "loc": details["loc"][1:]}, {}))


def _http_exception(request: Request, error: Exception) -> JSONResponse:
    error = cast("HTTPException", error)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    at = f"{request.method} {request.url.path[:_QUOTED]}"
    message, code = {
        404: (f"There is nothing at {at}.", "not_found"),
        405: (f"{at} is not possible; this address takes {headers.get('Allow')}.", "not_allowed"),
    }.get(error.status_code, (str(error.detail), "invalid_request"))
    return JSONResponse(envelope(error.status_code, message, code), error.status_code, headers)


def _allowed(request: Request) -> list[str]:
    """Return the methods that any route takes at this address. The framework names those of the first route alone."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT") if takes(method)]


def _storage_error(_: Request, error: Exception) -> JSONResponse:
    trouble = trouble_of(error)
    if trouble is None:
        raise error
    _log.error("storage_in_trouble trouble=%s reason=%s", trouble, error)
    if trouble is Trouble.FULL:
        return answer(DiskFull(trouble.refused, headers=NO_RETRY))
    return answer(StorageUnavailable(trouble.refused, headers={"retry-after": "5"}))


def _client_disconnect(_: Request, error: Exception) -> JSONResponse:
    # Nobody reads this; it keeps a client that went away from looking like a fault of ours.
    del error
    return JSONResponse(envelope(400, "The request ended before its body did.", "incomplete_body"), 400)
