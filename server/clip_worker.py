"""Reads one video and says what it is. A process of its own, started by ``clips.py``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg

from pipelines import media
from pipelines.errors import BadOutput
from server import sandbox

if TYPE_CHECKING:
    from pipelines.types import VideoShape

MIN_SIDE = 16
MAX_FPS = 240
# The package has no type information.
_ffmpeg: Any = imageio_ffmpeg


def main(path: str, max_pixels: str, max_seconds: str, still: str = "") -> None:
    """Tell ``{"message": …, "shape": …, "provenance": …}``; an empty message means that the video is sound.

    A picture of a sound video is written to ``still``, unless that is empty.
    """
    sandbox.confine()
    video = Path(path)
    try:
        facts = media.probe(video)
        message = _complaint(facts.shape, int(max_pixels), float(max_seconds)) or _damage(video, facts.shape)
        if still and not message:
            media.still(video, Path(still))
        known = facts.provenance and dict(facts.provenance)
        sandbox.tell({"message": message, "shape": list(facts.shape), "provenance": known})
    except BadOutput:
        sandbox.tell({"message": "The video is damaged, incomplete or of a kind that cannot be read."})


def _complaint(shape: VideoShape, max_pixels: int, max_seconds: float) -> str:
    """Say what is wrong with a video of this shape, before any of it is decoded."""
    if not 1 <= shape.fps <= MAX_FPS:
        return f"The video's frame rate must be 1 to {MAX_FPS} per second."
    if shape.seconds > max_seconds:
        return f"The video is {shape.seconds:.1f} seconds long; at most {max_seconds:g} are taken."
    if min(shape.width, shape.height) < MIN_SIDE:
        return f"The video is {shape.size} pixels; each side must have at least {MIN_SIDE}."
    if shape.width * shape.height > max_pixels:
        return f"The video is {shape.size} pixels; at most {max_pixels / 1e6:g} million a frame are taken."
    return ""


def _damage(video: Path, claimed: VideoShape) -> str:
    """Decode the whole video and say whether something is missing or broken in it."""
    # The header speaks for the first frame only: a later one may be a thousand times as large.
    pixels = _padded(claimed.width) * _padded(claimed.height)
    command = [_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-xerror", "-err_detect", "explode"]
    command += ["-max_pixels", str(pixels), "-i", str(video), "-map", "0:v:0", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - our own program
    # A file that is cut short decodes to its end with no more than a remark.
    return "The video is damaged or incomplete." if done.returncode or done.stderr else ""


def _padded(side: int) -> int:
    """Return a side as decoders count it: in whole blocks, of which the largest have 128 pixels."""
    return -(-side // 128) * 128


if __name__ == "__main__":
    main(*sys.argv[1:])
