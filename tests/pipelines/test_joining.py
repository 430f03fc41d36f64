"""Joining on real files: no frame lost, none twice, none visibly changed, the sound where it belongs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest

from pipelines import joining, media
from pipelines.errors import Cancelled
from pipelines.footage import frames
from pipelines.types import Audio, Clip, Frames, GenerationRequest, Part, Progress, Stage, VideoShape

SHAPE = VideoShape(16, 96, 160, 8)
RATE = 16_000
MakeRequest = Callable[..., GenerationRequest]


def silently(progress: Progress) -> None:
    pass


def moving(first: int) -> Iterator[Frames]:
    """Frames with texture that moves, each unlike any other of any clip."""
    rows, columns = np.mgrid[0 : SHAPE.height, 0 : SHAPE.width]
    for number in range(first, first + SHAPE.frames):
        grey = 128 + 80 * np.sin((columns + 3 * number) / 7) * np.cos((rows - number) / 5)
        yield np.stack([grey, grey[::-1], 20 + 3.0 * number + 0 * grey], -1).clip(0, 255).astype(np.uint8)[None]


def tone(hertz: float) -> Audio:
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)
    return Audio(wave.astype(np.float32)[None], RATE)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two clips of 16 frames and two seconds, the first with a low tone and the second with a high one."""
    folder = tmp_path_factory.mktemp("clips")
    request = GenerationRequest("a ball", "", SHAPE, SHAPE, 7, 4, 1.0, sound=True)
    made: list[Path] = []
    for number, hertz in enumerate((300.0, 2000.0)):
        made.append(folder / f"{number}.mp4")
        clip = Clip(SHAPE, moving(number * SHAPE.frames), tone(hertz))
        media.write_clip(clip, request, made[-1], metadata={"prompt": f"clip {number}"}, report=silently)
    return made


@pytest.fixture
def joined(clips: list[Path], tmp_path: Path, make_request: MakeRequest) -> Callable[..., Path]:
    def join(*taken: tuple[int, int, int], sound: bool = True, report: Any = silently) -> Path:
        parts = tuple(Part(clips[clip], SHAPE, start, end, f"video_{clip}") for clip, start, end in taken)
        shape = SHAPE._replace(frames=sum(part.frames for part in parts))
        request = make_request(shape=shape, delivery=shape, conditions=(), parts=parts, sound=sound)
        path = tmp_path / "joined.mp4"
        joining.join(request, path, metadata=joining.provenance(request, "mini"), report=report)
        return path

    return join


def nearness(one: Frames, other: Frames) -> float:
    """Peak signal-to-noise ratio in decibels."""
    error = float(np.square(one.astype(np.float32) - other.astype(np.float32)).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def samples_of(path: Path) -> Any:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path), "-map", "0:a:0", "-ac", "1"]
    done = subprocess.run([*command, "-ar", str(RATE), "-f", "s16le", "pipe:1"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, dtype="<i2").astype(np.float32)


def pitch(samples: Any) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum) * RATE / len(samples))


def test_every_frame_is_there_once_and_looks_as_before(clips: list[Path], joined: Callable[..., Path]) -> None:
    path = joined((0, 0, 16), (1, 3, 11), (0, 5, 6))
    before = [list(frames(clip)) for clip in clips]
    wanted = [*before[0], *before[1][3:11], before[0][5]]
    found = list(frames(path))
    assert len(found) == len(wanted) == 25
    assert min(nearness(*pair) for pair in zip(found, wanted, strict=True)) > 42
    facts = media.probe(path)
    assert facts.shape == SHAPE._replace(frames=25)
    assert facts.codec == "h264"


def test_the_sound_stays_with_its_pictures(joined: Callable[..., Path]) -> None:
    # A second of the low tone, two of the high one, half of the low one.
    heard = samples_of(joined((0, 8, 16), (1, 0, 16), (0, 0, 4)))
    assert abs(len(heard) / RATE - 3.5) < 1 / SHAPE.fps
    spans = ((0.1, 0.9, 300), (1.1, 2.9, 2000), (3.1, 3.4, 300))
    assert [round(pitch(heard[int(a * RATE) : int(b * RATE)]), -2) for a, b, _ in spans] == [hz for _, _, hz in spans]


def test_it_is_silent_if_it_is_to_be(joined: Callable[..., Path]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        samples_of(joined((0, 0, 4), (1, 0, 4), sound=False))


def test_the_file_lists_its_pieces_also_those_of_a_joined_part(
    joined: Callable[..., Path], make_request: MakeRequest, tmp_path: Path
) -> None:
    once = joined((0, 0, 10), (1, 4, 16))
    kept = tmp_path / "part.mp4"
    once.rename(kept)
    shape = SHAPE._replace(frames=22)
    parts = (Part(kept, shape, 8, 14, "video_j"), Part(kept, shape, 0, 2, "video_j"))
    total = shape._replace(frames=8)
    again = make_request(shape=total, delivery=total, conditions=(), parts=parts)
    pieces = joining.pieces_of(joining.provenance(again, "mini"))
    assert [(piece.video, piece.start_frame, piece.end_frame) for piece in pieces] == [
        ("video_0", 8, 10),
        ("video_1", 4, 8),
        ("video_0", 0, 2),
    ]
    assert pieces[1].made == {"prompt": "clip 1"}


def test_cancelling_leaves_no_file(joined: Callable[..., Path], tmp_path: Path) -> None:
    def cancel(progress: Progress) -> None:
        assert progress.stage is Stage.MUX
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        joined((0, 0, 16), (1, 0, 16), report=cancel)
    assert list(tmp_path.iterdir()) == []
