"""Reference images from outside, decoded where they can do no harm: in a process with bounded memory and time.

A picture of the largest size that is taken has more pixels than the API process has memory to spare, and decoders
of image formats have had their share of holes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from pipelines.errors import InvalidImage

if TYPE_CHECKING:
    from pathlib import Path

PARAM = "input_reference"
TIMEOUT_S = 40
_ACCEPTED = "Send a whole JPEG, PNG or WebP picture."


def suffix_of(head: bytes) -> str:
    """Return the file name's suffix for a picture that starts with ``head``; what the client calls it counts nothing.

    Raises:
        InvalidImage: It is no picture of a kind that is taken.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if head.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ".webp"
    raise InvalidImage(f"input_reference is not an image that can be read. {_ACCEPTED}", param=PARAM)


def check(path: Path, max_pixels: int) -> None:
    """Decode the picture once, whole, in a process of its own.

    Raises:
        InvalidImage: It is damaged, incomplete, too large, or takes more than it may.
    """
    # -P: a folder "server" in the current directory must not be taken for ours.
    command = [sys.executable, "-P", "-m", "server.image_worker", str(path), str(max_pixels)]
    try:
        # The arguments are ours: an interpreter, a module, a path that the asset store made, a number.
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise InvalidImage(f"The image took too long to read. {_ACCEPTED}", param=PARAM) from error
    if done.returncode:
        raise InvalidImage(f"The image could not be read within the server's limits. {_ACCEPTED}", param=PARAM)
    if message := json.loads(done.stdout)["message"]:
        raise InvalidImage(f"{message} {_ACCEPTED}", param=PARAM)
