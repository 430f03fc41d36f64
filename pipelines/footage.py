"""Frames out of video files: all of them, or those at a model's size and rate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from pipelines.errors import BadOutput
from pipelines.types import Frames, SourceClip, VideoShape

# The package has no type information.
_ffmpeg: Any = imageio_ffmpeg


def frames(video: Path, filters: str | None = None) -> Iterator[Frames]:
    """Yield the frames of a video one by one, each ``(height, width, 3)``, after ffmpeg's ``filters``."""
    # Not imageio's own reader, which leaves its pipes open. Every PPM picture says how large it is.
    command = [_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-i", str(video), "-map", "0:v:0"]
    command += ["-vf", filters] if filters else []
    command += ["-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "pipe:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own program
        assert process.stdout is not None  # noqa: S101 - for the type checker
        while process.stdout.readline() == b"P6\n":
            width, height = (int(side) for side in process.stdout.readline().split())
            process.stdout.readline()
            raw = process.stdout.read(3 * width * height)
            yield np.frombuffer(raw, dtype=np.uint8).reshape(height, width, 3)


def sound(video: Path, rate: int, seconds: float) -> NDArray[np.float32] | None:
    """Return what is heard of a video's first seconds, float32, ``(2, samples)`` at ``rate``; None if nothing is."""
    command = [_ffmpeg.get_ffmpeg_exe(), "-loglevel", "quiet", "-nostdin", "-i", str(video), "-map", "0:a:0"]
    # It can be far longer than the pictures that were looked at when the file came.
    command += ["-t", f"{seconds:.6f}", "-ac", "2", "-ar", str(rate), "-f", "f32le", "pipe:1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own program
    heard = np.frombuffer(done.stdout[: len(done.stdout) // 8 * 8], dtype="<f4").reshape(-1, 2).T
    return heard.astype(np.float32) if heard.size else None


def retime(source: SourceClip, fps: int) -> str:
    """Return the filters after which a source has exactly ``source.frames_at(fps)`` frames at that rate."""
    rate = "" if source.shape.fps == fps else f"fps={fps},"
    # What the file's header says of its length may be a frame off: its last picture then stands a little longer.
    count = source.frames_at(fps)
    return f"setpts=PTS-STARTPTS,tpad=stop=-1:stop_mode=clone,{rate}trim=end_frame={count},setpts=N/({fps}*TB)"


def cover(width: int, height: int, *, to_rgb: bool) -> str:
    """Return the filters that scale to cover ``width`` x ``height`` and crop the overhang."""
    colours = "out_range=full" if to_rgb else "out_range=tv:out_color_matrix=bt709"
    return (
        f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=bicubic+accurate_rnd+full_chroma_int"
        f":{colours},crop={width}:{height}:exact=1"
    )


def read(source: SourceClip, shape: VideoShape, *, start: int = 0) -> Frames:
    """Return ``shape.frames`` frames of a source from frame ``start`` on, at the shape's size and rate.

    Returns:
        ``(frames, height, width, 3)``. Where the source is too short, its last frame is repeated.

    Raises:
        BadOutput: The file is not a video.
    """
    part = f"trim=start_frame={start}:end_frame={start + shape.frames}"
    found = list(
        frames(source.path, f"{retime(source, shape.fps)},{part},{cover(shape.width, shape.height, to_rgb=True)}")
    )
    if not found:
        raise BadOutput(f"{source.path.name} is not a video")
    return np.stack(found + [found[-1]] * (shape.frames - len(found)))
