"""Pictures from outside, decoded in the sandbox.

A picture of the largest size that is taken has more pixels than the API process has memory to spare, and decoders
of image formats have had their share of holes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.errors import InvalidImage
from server import sandbox

if TYPE_CHECKING:
    from pathlib import Path

PARAM = "input_reference"
_ACCEPTED = "Send a whole JPEG, PNG or WebP picture."


def kind_of(head: bytes) -> str | None:
    """Return the file name's suffix for a picture that starts with ``head``, or None if it is no picture."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if head.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    return None


def suffix_of(head: bytes, param: str = PARAM) -> str:
    """Return the file name's suffix for a picture that starts with ``head``; what the client calls it counts nothing.

    Raises:
        InvalidImage: It is no picture of a kind that is taken.
    """
    suffix = kind_of(head)
    if suffix is None:
        raise InvalidImage(f"{param} is not an image that can be read. {_ACCEPTED}", param=param)
    return suffix


def check(path: Path, max_pixels: int, param: str = PARAM) -> tuple[int, int]:
    """Decode the picture once, whole, in a process of its own, and return its width and height.

    Raises:
        InvalidImage: It is damaged, incomplete, too large, or takes more than it may.
    """
    try:
        found = sandbox.run("server.image_worker", str(path), str(max_pixels))
    except sandbox.Overrun as error:
        message = "The image could not be read within the server's limits."
        raise InvalidImage(f"{message} {_ACCEPTED}", param=param) from error
    if found["message"]:
        raise InvalidImage(f"{found['message']} {_ACCEPTED}", param=param)
    return found["width"], found["height"]
