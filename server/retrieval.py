"""Content that a request points to instead of carrying it: a file of the caller's, a ``data:`` URL, an address."""

from __future__ import annotations

import base64
import binascii
import io
import os
import tempfile
from typing import TYPE_CHECKING, BinaryIO, cast

from server import fetch
from server.errors import InvalidRequest, NotFound, quoted
from server.files import FileId, FileNotFound

if TYPE_CHECKING:
    from server.deps import Caller, Services

# What a file must have been uploaded for.
PURPOSES = frozenset({"vision", "user_data"})
# The hosted service's limit on the text of a data: URL.
MAX_DATA_URL = 20 * 1024 * 1024


class _Content(io.FileIO):
    """An opened file that is closed once nobody needs it: it lives as long as the request that it is a part of."""

    def __del__(self) -> None:
        self.close()


def stored(file_id: str, param: str, caller: Caller, services: Services) -> BinaryIO:
    """Return the content of one of the caller's files.

    Raises:
        NotFound: There is none of this id.
        InvalidRequest: It was uploaded for something else.
    """
    try:
        file = services.files.get(FileId(file_id), caller.owner)
        path = services.files.content(file.id, caller.owner)
    except FileNotFound as error:
        message = f"There is no file {quoted(file_id)}. Upload one with POST /v1/files and the purpose 'vision'."
        raise NotFound(message, param=param, code="file_not_found") from error
    if file.purpose not in PURPOSES:
        message = f"The purpose of file {file.id} is '{file.purpose}'; it must be 'vision' or 'user_data'."
        raise InvalidRequest(message, param=param, code="invalid_purpose")
    return cast("BinaryIO", _Content(path))


def at_url(url: str, param: str, services: Services) -> BinaryIO:
    """Return what is in a ``data:`` URL or at an http or https URL, which is fetched.

    Raises:
        InvalidRequest: It cannot be read, must not be asked, or does not answer within the server's limits.
    """
    if url[:5].lower() == "data:":
        return io.BytesIO(_decoded(url, param))
    content = _scratch()
    max_bytes = services.settings.max_upload_mb * 1_000_000
    try:
        with services.fetches.taken():
            fetch.fetch(url, content, services.settings, max_bytes=max_bytes)
    except fetch.FetchError as error:
        raise InvalidRequest(error.message, param=param, code=error.code) from error
    content.seek(0)
    return content


def _scratch() -> BinaryIO:
    """Return an empty file that has no name and vanishes when it is closed."""
    descriptor, name = tempfile.mkstemp(prefix="homereel-")
    os.unlink(name)  # noqa: PTH108 - mkstemp's own counterpart
    return cast("BinaryIO", _Content(descriptor, "r+"))


def _decoded(url: str, param: str) -> bytes:
    if len(url) > MAX_DATA_URL:
        message = f"The data: URL has {len(url):,} characters; at most {MAX_DATA_URL:,} are read."
        raise InvalidRequest(message, param=param, code="string_above_max_length")
    comma = url.find(",")
    if not url[: max(comma, 0)].lower().endswith(";base64"):
        message = "A data: URL must be base64, such as 'data:image/png;base64,…'."
        raise InvalidRequest(message, param=param)
    try:
        # A view: the picture may be tens of megabytes, and every copy counts.
        return base64.b64decode(memoryview(url.encode("ascii"))[comma + 1 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest("The data: URL is not valid base64.", param=param) from error
