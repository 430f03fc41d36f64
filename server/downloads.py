"""Finished files over HTTP, with ranges and conditional requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastapi import Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import Headers

from server.errors import RangeNotSatisfiable, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from server.assets import Variant
    from server.jobs import JobId

_SINGLE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Download(FileResponse):
    """A file that never changes. One range of bytes is served; what else a Range header may say is ignored."""

    @classmethod
    def of(cls, path: Path, variant: Variant, job_id: JobId, request_headers: Headers) -> Response:
        """Return a finished file of a video, or 304 if the client has it."""
        name = f"{job_id}{path.suffix}"
        return cls.named(path, name, variant.media_type, tag=f"{job_id}-{variant}", request_headers=request_headers)

    @classmethod
    def named(cls, path: Path, name: str, media_type: str, *, tag: str, request_headers: Headers) -> Response:
        """Return the file, or 304 if the client has it.

        Args:
            path: A file that never changes.
            name: What it is called on the user's disk.
            media_type: What it is.
            tag: Tells it from all others.
            request_headers: May make the request conditional.
        """
        stat = path.stat()
        headers = {"etag": f'"{tag}-{stat.st_size:x}"', "cache-control": "private, no-cache"}
        if _names(request_headers.get("if-none-match", ""), headers["etag"]):
            return Response(status_code=304, headers=headers)
        return cls(path, headers=headers, media_type=media_type, filename=name, stat_result=stat)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, or the part of it that was asked for."""
        headers = Headers(scope=scope)
        size = int(self.headers["content-length"])
        wanted = _SINGLE_RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
        current = headers.get("if-range") in {None, self.headers["etag"], self.headers["last-modified"]}
        if scope["method"] != "GET" or not current or wanted is None or not _is_range(wanted[1], wanted[2]):
            without = [(name, value) for name, value in scope["headers"] if name != b"range"]
            await super().__call__({**scope, "headers": without}, receive, send)
        elif not _overlaps(wanted[1], wanted[2], size):
            message = f"The file has {size} bytes; no such range of it exists."
            body = envelope(RangeNotSatisfiable.status, message, RangeNotSatisfiable.code)
            answer = JSONResponse(body, RangeNotSatisfiable.status, {"content-range": f"bytes */{size}"})
            await answer(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _names(if_none_match: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags


def _is_range(first: str, last: str) -> bool:
    """Tell whether ``first-last`` means anything: ``5-``, ``-5`` and ``5-9`` do, ``-`` and ``9-5`` do not."""
    return bool(first or last) and not (first and last and int(first) > int(last))


def _overlaps(first: str, last: str, size: int) -> bool:
    return int(first) < size if first else int(last) > 0 and size > 0
