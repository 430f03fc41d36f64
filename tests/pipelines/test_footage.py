"""Frames out of files: as many as were counted on, of the size that was asked for, in their order."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from pipelines import footage, media
from pipelines.errors import BadOutput
from pipelines.types import SourceClip, VideoShape


def video(path: Path, frames: int, rate: str = "8", size: str = "160x96", *options: str) -> Path:
    """Write a clip whose brightness rises from frame to frame."""
    source = f"color=black:s={size}:r={rate},geq=lum='20+200*N/{frames}':cb=128:cr=128"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "lavfi", "-i", source]
    command += ["-frames:v", str(frames), *options, "-pix_fmt", "yuv420p", "-crf", "4", str(path)]
    subprocess.run(command, check=True)
    return path


def source(path: Path) -> SourceClip:
    return SourceClip(path, media.probe(path).shape, "extend")


@pytest.mark.parametrize(
    ("frames", "rate", "kept"),
    [
        (16, "8", 16),
        (60, "30", 16),
        (61, "30000/1001", 16),
        (48, "24", 16),
        (100, "50", 16),
        (3, "60", 1),
        (5, "4", 10),
    ],
)
def test_a_clip_of_any_rate_has_the_frames_that_were_counted_on(
    tmp_path: Path, frames: int, rate: str, kept: int
) -> None:
    clip = source(video(tmp_path / "a.mp4", frames, rate))
    assert clip.frames_at(8) == kept
    found = list(footage.frames(clip.path, footage.retime(clip, 8)))
    assert len(found) == kept
    brightness = [int(frame[48, 80, 0]) for frame in found]
    assert brightness == sorted(brightness)


def test_a_part_is_read_at_the_models_size(tmp_path: Path) -> None:
    clip = source(video(tmp_path / "a.mp4", 16, size="1280x720"))
    whole = footage.read(clip, VideoShape(16, 96, 160, 8))
    part = footage.read(clip, VideoShape(9, 96, 160, 8), start=7)
    assert whole.shape == (16, 96, 160, 3)
    assert (part == whole[7:]).all()
    assert np.diff(whole[:, 48, 80, 0].astype(int)).min() > 3


def test_what_is_heard_comes_at_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    tone = ("-f", "lavfi", "-i", "sine=frequency=100:sample_rate=44100:duration=2", "-c:a", "aac", "-shortest")
    clip = sounding(tmp_path / "a.mp4", *tone)
    heard, less = footage.sound(clip, 8000, 20), footage.sound(clip, 8000, 0.5)
    assert heard is not None
    assert (heard.dtype, heard.shape[0]) == (np.float32, 2)
    assert heard.shape[1] == pytest.approx(16000, rel=0.05)
    assert np.abs(heard).max() <= 1
    loud = np.abs(np.fft.rfft(heard[0, :16000]))
    assert np.argmax(loud) * 8000 / min(16000, heard.shape[1]) == pytest.approx(100, abs=1)
    assert less is not None
    assert less.shape == (2, 4000)
    assert footage.sound(video(tmp_path / "b.mp4", 8), 8000, 20) is None


def sounding(path: Path, *sound: str) -> Path:
    """Write two seconds of black with sound."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "lavfi", "-i"]
    command += ["color=black:s=64x64:r=8:d=2", *sound, str(path)]
    subprocess.run(command, check=True)
    return path


def test_a_clip_that_is_too_short_ends_in_a_still(tmp_path: Path) -> None:
    found = footage.read(source(video(tmp_path / "a.mp4", 5)), VideoShape(17, 96, 160, 8))
    assert len(found) == 17
    assert (found[5:] == found[4]).all()


def test_a_phone_held_upright_makes_upright_clips(tmp_path: Path) -> None:
    flat = video(tmp_path / "flat.mp4", 8)
    upright = tmp_path / "upright.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", "90"]
    subprocess.run([*command, "-i", str(flat), "-c", "copy", str(upright)], check=True)
    shape = media.probe(upright).shape
    assert (shape.width, shape.height) == (96, 160)
    assert next(footage.frames(upright)).shape == (160, 96, 3)


def test_what_is_not_a_video_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"not a video")
    clip = SourceClip(tmp_path / "a.mp4", VideoShape(16, 96, 160, 8), "edit")
    with pytest.raises(BadOutput):
        footage.read(clip, VideoShape(16, 96, 160, 8))
