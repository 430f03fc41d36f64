"""MP4s that lie about themselves: refused in the envelope, quickly, and nothing of them is kept."""

from __future__ import annotations

import functools
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg
import pytest
from fastapi.testclient import TestClient

from pipelines import footage
from pipelines.types import VideoShape
from server import clips
from tests.server.routes.conftest import movie, refused, send_movie

FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]


def stream(folder: Path, name: str, size: str) -> bytes:
    """Return a raw H.264 stream of eight frames."""
    path = folder / name
    encode = ["-frames:v", "8", "-c:v", "libx264", "-bf", "0", "-pix_fmt", "yuv420p"]
    subprocess.run([*FFMPEG, "-f", "lavfi", "-i", f"testsrc2=size={size}:rate=8", *encode, str(path)], check=True)
    return path.read_bytes()


@functools.cache
def growing() -> bytes:
    """An MP4 whose header says 160x96, and whose second half has 150 times as many pixels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        joined, path = folder / "joined.h264", folder / "growing.mp4"
        joined.write_bytes(stream(folder, "a.h264", "160x96") + stream(folder, "b.h264", "2048x1152"))
        repeat = ["-c", "copy", "-bsf:v", "dump_extra=freq=keyframe"]
        subprocess.run([*FFMPEG, "-r", "8", "-f", "h264", "-i", str(joined), *repeat, str(path)], check=True)
        return path.read_bytes()


def with_field(kind: bytes, offset: int, value: bytes) -> bytes:
    """Return a movie with something else in a box of its header, ``offset`` bytes after the box's name."""
    content = bytearray(movie())
    start = content.index(kind) + 4 + offset
    content[start : start + len(value)] = value
    return bytes(content)


def pointing_at(path: str) -> bytes:
    """A well-formed MP4 that says that its frames are in another file."""
    name = path.encode() + b"\0"
    own, other = b"\0\0\0\x0curl \0\0\0\x01", struct.pack(">I", 12 + len(name)) + b"url \0\0\0\0" + name
    content = bytearray(movie())
    assert content.count(own) == 1
    table = content.index(b"stco") + 8
    chunks = [table + 4 * number for number in range(1, struct.unpack_from(">I", content, table)[0] + 1)]
    sizes = [content.index(box) - 4 for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")]
    for at in (*sizes, *chunks):
        content[at : at + 4] = struct.pack(">I", struct.unpack_from(">I", content, at)[0] + len(other) - len(own))
    return bytes(content).replace(own, other)


def plain(size: str) -> bytes:
    """Return a movie of one frame of one colour."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.mp4"
        encode = ["-frames:v", "1", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)]
        subprocess.run([*FFMPEG, "-f", "lavfi", "-i", f"color=size={size}:rate=8", *encode], check=True)
        return path.read_bytes()


HARMFUL: dict[str, Callable[[], bytes]] = {
    "frames that outgrow the header": growing,
    "header cut off from its frames": lambda: movie()[: movie().index(b"mdat") + 40],
    "frames without a header": lambda: movie()[:8] + movie()[movie().index(b"mdat") - 4 :],
    "4 billion samples": lambda: with_field(b"stsz", 8, b"\xff\xff\xff\xff"),
    "4 billion kinds of sample": lambda: with_field(b"stsd", 4, b"\xff\xff\xff\xff"),
    "frames outside of the file": lambda: with_field(b"stco", 8, b"\x7f\xff\xff\xff"),
    "a box smaller than itself": lambda: with_field(b"trak", -8, b"\0\0\0\x01"),
    "boxes in boxes in boxes": lambda: movie()[:32] + b"\0\0\x27\x10moov" * 1250,
    "too many pixels": lambda: plain("4128x2160"),
    "one pixel": lambda: movie(frames=2, size="2x2"),
    "a playlist behind the signature": lambda: b"\0\0\0\x18ftypisom" + b"\n#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a list of files behind it": lambda: b"\0\0\0\x18ftypisom" + b"\nffconcat version 1.0\nfile /etc/passwd\n",
    "a playlist": lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n",
    "a script of subtitles": lambda: b"[Script Info]\nTitle: x\n",
    "noise": lambda: b"\0\0\0\x18ftypisom" + bytes(range(256)) * 40,
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("attack", HARMFUL)
def test_a_clip_that_lies_is_refused_and_not_kept(client: TestClient, attack: str) -> None:
    answer = send_movie(client, "/v1/videos/edits", HARMFUL[attack](), prompt="a red ball")
    error = refused(answer)
    assert (error["param"], error["code"]) == ("video", "invalid_video")
    assert "passwd" not in answer.text


def test_the_attack_with_growing_frames_is_a_real_one(tmp_path: Path) -> None:
    """Its header is believed by whoever looks at nothing else, and its frames do decode."""
    path = tmp_path / "growing.mp4"
    path.write_bytes(growing())
    assert len(list(footage.frames(path))) == 16


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_file_that_a_clip_points_at_is_never_opened(tmp_path: Path, scheme: str) -> None:
    # Whoever opens it for reading is kept waiting until somebody writes.
    trap = tmp_path / "trap"
    os.mkfifo(trap)
    path = tmp_path / "pointing.mp4"
    path.write_bytes(pointing_at(f"{scheme}{trap}"))
    assert clips.inspect(path, max_pixels=10**6, max_seconds=20).shape.frames == 16


LIES = {
    "4 billion chunks": lambda: with_field(b"stco", 4, b"\xff\xff\xff\xff"),
    "a box larger than the file": lambda: with_field(b"moov", -8, b"\x7f\xff\xff\xff"),
    "hours of it": lambda: with_field(b"mvhd", 16, b"\x7f\xff\xff\xff"),
    "a picture of another size": lambda: with_field(b"tkhd", 76, b"\x40\0\0\0\x40\0\0\0"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_header_says_beside_the_frames_is_not_believed(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "lying.mp4"
    path.write_bytes(LIES[lie]())
    assert clips.inspect(path, max_pixels=10**6, max_seconds=20).shape == VideoShape(16, 96, 160, 8)
