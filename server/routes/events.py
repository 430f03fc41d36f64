"""What happens to videos, as Server-Sent Events; and what they look like as they form."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from anyio import CancelScope, create_task_group, move_on_after, to_thread
from fastapi import APIRouter, Header, Request, Response

from server.assets import PREVIEW_MEDIA_TYPE, AssetMissing
from server.deps import CallerDep, Services, ServicesDep, VideoId
from server.errors import InvalidRequest, NotFound
from server.event_schemas import stream_content
from server.events import Topic
from server.jobs import TERMINAL

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

router = APIRouter(prefix="/v1", tags=["events"])

# A reader that takes nothing for so long is gone, or as good as gone.
SEND_S = 30.0


class EventStream(Response):
    """A response that goes on until its events end or its reader does; neither leaves anything behind.

    Starlette's own does not close its generator at once when the reader goes away in the middle of a block, and waits
    for ever for one that stays and does not read.
    """

    media_type = "text/event-stream"

    def __init__(self, blocks: AsyncGenerator[bytes]) -> None:
        # X-Accel-Buffering: nginx would keep events back until it has some kilobytes of them.
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        del scope
        async with aclosing(self._blocks) as blocks, create_task_group() as tasks:
            tasks.start_soon(_cancel_at_disconnect, receive, tasks.cancel_scope)
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for block in blocks:
                with move_on_after(SEND_S) as sending:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                if sending.cancelled_caught:
                    break
            else:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            tasks.cancel_scope.cancel()


async def _cancel_at_disconnect(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events for as long as there are any",
        "content": {EventStream.media_type: stream_content()},
    }
}
_NOTHING_MORE: dict[int | str, dict[str, Any]] = {
    204: {"description": "The video has come to its end, and the client has been told: do not come back"}
}
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", description="Resume after the event with this id")]


@router.get("/events", response_class=Response, responses=_STREAM)
async def stream_events(caller: CallerDep, services: ServicesDep, last_event_id: LastEventId = None) -> Response:
    """Stream what happens to all videos, beginning with those that are not done; this goes on until you leave."""
    return EventStream(services.events.stream(Topic(caller.owner), _seq(last_event_id)))


@router.get("/videos/{video_id}/events", response_class=Response, responses=_STREAM | _NOTHING_MORE)
async def stream_video_events(
    video_id: VideoId, caller: CallerDep, services: ServicesDep, last_event_id: LastEventId = None
) -> Response:
    """Stream what has happened and happens to one video, until it is completed, failed or deleted."""
    after = _seq(last_event_id)
    topic = Topic(caller.owner, video_id)
    if await to_thread.run_sync(_has_nothing_to_tell, services, topic, after):
        # This, and only this, keeps a browser from asking again for ever.
        return Response(status_code=204)
    return EventStream(services.events.stream(topic, after))


@router.get(
    "/videos/{video_id}/preview",
    response_class=Response,
    responses={
        200: {
            "description": "A small animation",
            "content": {PREVIEW_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        },
        304: {"description": "The client has it already"},
    },
)
def download_preview(video_id: VideoId, request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    """Send what the video looks like so far, while it is being made; afterwards, its last preview."""
    services.store.get(video_id, caller.owner)
    try:
        # Read at once, as it may be replaced at any moment; it is small.
        content = services.assets.preview_path(video_id).read_bytes()
    except (AssetMissing, FileNotFoundError) as error:
        message = "There is no preview of this video (yet). An event named video.preview tells when there is one."
        raise NotFound(message, param="video_id", code="preview_not_found") from error
    headers = {"etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"', "cache-control": "private, no-cache"}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {headers["etag"], "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=PREVIEW_MEDIA_TYPE)


def _has_nothing_to_tell(services: Services, topic: Topic, after: int | None) -> bool:
    """Tell whether the video is done and the client knows.

    Raises:
        JobNotFound: The caller has no such video.
    """
    assert topic.video is not None  # noqa: S101 - narrows the type
    job = services.store.get(topic.video, topic.owner)
    if after is None or job.status not in TERMINAL:
        return False
    return not services.outbox.since(after, owner=topic.owner, subject=topic.video, limit=1)


def _seq(last_event_id: str | None) -> int | None:
    if last_event_id is None or not last_event_id.strip():
        return None
    text = last_event_id.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest("'Last-Event-ID' must be the id of an event of this stream.", param="Last-Event-ID")
    return int(text)
