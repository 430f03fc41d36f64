"""The studio page and its files. They hold nothing of anybody's and need no key; what the page asks for then does."""

from __future__ import annotations

from functools import cache

from fastapi import APIRouter, Request, Response

from server.errors import NotFound
from server.web import PAGE, PREFIX, Site, WebFile

router = APIRouter(include_in_schema=False)

# The page names its version; whatever has a version in its path never changes.
_ASK_AGAIN = "no-cache"
_FOR_EVER = "public, max-age=31536000, immutable"
_site = cache(Site.read)


@router.head(PAGE)
@router.get(PAGE)
def show_page(request: Request) -> Response:
    """Send the page."""
    return _sent(_site().page, request, _ASK_AGAIN)


@router.head(PREFIX + "{version}/{name:path}")
@router.get(PREFIX + "{version}/{name:path}")
def send_file(version: str, name: str, request: Request) -> Response:
    """Send a part of the page.

    Raises:
        NotFound: There is none of this name, or it belongs to a page from before an update.
    """
    site = _site()
    if version != site.version or name not in site.files:
        raise NotFound("There is no such part of the page. Load it anew.", code="page_outdated")
    return _sent(site.files[name], request, _FOR_EVER)


def _sent(file: WebFile, request: Request, cache_control: str) -> Response:
    headers = {"etag": file.etag, "cache-control": cache_control, "vary": "accept-encoding"}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {file.etag, "*"}:
        return Response(status_code=304, headers=headers)
    content = file.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["content-encoding"] = file.packed, "gzip"
    return Response(content, headers=headers, media_type=file.media_type)
