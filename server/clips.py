"""Videos from outside, looked at in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.types import VideoShape
from server import sandbox
from server.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

PARAM = "video"
CODE = "invalid_video"
_ACCEPTED = "Send a whole MP4 file."


@dataclass(frozen=True)
class ClipFacts:
    """What a sound video is. ``provenance`` is what we wrote into it, if we made it."""

    shape: VideoShape
    provenance: Mapping[str, JsonValue]


def is_mp4(head: bytes) -> bool:
    """Tell whether a file that starts with ``head`` calls itself an MP4; what the client calls it counts nothing."""
    # No demuxer that follows references into other files begins like this.
    return head[4:8] == b"ftyp"


def refuse(head: bytes) -> None:
    """Refuse a file that starts with ``head`` unless it is an MP4.

    Raises:
        InvalidRequest: It is something else.
    """
    if not is_mp4(head):
        raise InvalidRequest(f"{PARAM} is not a video that can be read. {_ACCEPTED}", param=PARAM, code=CODE)


def inspect(path: Path, *, max_pixels: int, max_seconds: float, still: Path | None = None) -> ClipFacts:
    """Decode the video once, whole, in a process of its own.

    Args:
        path: The file.
        max_pixels: Largest frame.
        max_seconds: Longest clip.
        still: Where to put a picture of it.

    Raises:
        InvalidRequest: It is damaged, incomplete, too large, too long, or takes more than it may.
    """
    arguments = [str(path), str(max_pixels), str(max_seconds), *([str(still)] if still else [])]
    try:
        found = sandbox.run("server.clip_worker", *arguments)
    except sandbox.Overrun as error:
        message = "The video could not be read within the server's limits."
        raise InvalidRequest(f"{message} {_ACCEPTED}", param=PARAM, code=CODE) from error
    if found["message"]:
        raise InvalidRequest(f"{found['message']} {_ACCEPTED}", param=PARAM, code=CODE)
    return ClipFacts(VideoShape(*found["shape"]), found["provenance"] or {})
