import io
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pipelines import media
from pipelines.card import Wish
from pipelines.errors import BadOutput, Cancelled
from pipelines.registry import load_registry
from pipelines.types import Audio, Clip, Frames, GenerationRequest, Progress, SourceClip, VideoShape

NATIVE = VideoShape(33, 96, 160, 8)


def pictures(shape: VideoShape) -> Frames:
    """Four still quarters of known colours."""
    frame = np.zeros((shape.height, shape.width, 3), dtype=np.uint8)
    half_h, half_w = shape.height // 2, shape.width // 2
    frame[:half_h, :half_w] = (220, 40, 40)
    frame[:half_h, half_w:] = (40, 200, 60)
    frame[half_h:, :half_w] = (40, 60, 210)
    frame[half_h:, half_w:] = (230, 220, 60)
    return np.repeat(frame[None], shape.frames, axis=0)


def request(delivery: VideoShape) -> GenerationRequest:
    return GenerationRequest("a ball", "", NATIVE, delivery, seed=1, num_inference_steps=3, guidance_scale=1.0)


def clip(audio: Audio | None = None) -> Clip:
    every = pictures(NATIVE)
    return Clip(NATIVE, iter([every[:1], every[1:20], every[20:]]), audio)


def ffprobe(path: Path) -> dict[str, Any]:
    program = shutil.which("ffprobe")
    assert program, "the suite needs ffprobe; scripts/test.sh installs it"
    command = [program, "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("size", [(1280, 720), (160, 96), (720, 1280), (1792, 1024), (226, 130)])
def test_the_file_is_what_players_and_editors_expect(tmp_path: Path, size: tuple[int, int]) -> None:
    delivery = VideoShape(32, size[1], size[0], 8)
    path = tmp_path / "a.mp4"
    media.write_clip(clip(), request(delivery), path, metadata=None, report=lambda _: None)
    facts = ffprobe(path)
    [stream] = facts["streams"]
    assert (stream["codec_name"], stream["profile"], stream["pix_fmt"]) == ("h264", "High", "yuv420p")
    assert (stream["width"], stream["height"]) == size
    assert {stream["color_space"], stream["color_transfer"], stream["color_primaries"]} == {"bt709"}
    assert stream["color_range"] == "tv"
    assert stream["nb_read_frames"] == "32"
    assert stream["r_frame_rate"] == stream["avg_frame_rate"] == "8/1"
    assert float(facts["format"]["duration"]) == 4.0
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat"), "the index must come first"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_colours_survive_the_way_through_bt709(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    media.write_clip(clip(), request(NATIVE), path, metadata=None, report=lambda _: None)
    first = next(media.frames(path)).astype(int)
    wanted = pictures(NATIVE)[0].astype(int)
    for y in (20, 70):
        for x in (30, 120):
            assert np.abs(first[y, x] - wanted[y, x]).max() <= 4


def test_scaling_covers_and_crops_and_never_stretches(tmp_path: Path) -> None:
    shape = VideoShape(3, 96, 160, 8)
    frames = np.full((3, 96, 160, 3), 30, dtype=np.uint8)
    frames[:, 28:68, 60:100] = 220
    made = Clip(shape, iter([frames]))
    wanted = GenerationRequest("", "", shape, VideoShape(3, 720, 1280, 8), 1, 1, 1.0)
    media.write_clip(made, wanted, tmp_path / "a.mp4", metadata=None, report=lambda _: None)
    bright = next(media.frames(tmp_path / "a.mp4"))[..., 0] > 125
    assert bright.any(0).sum() == pytest.approx(bright.any(1).sum(), abs=2)
    assert bright.any(0).sum() == pytest.approx(40 * 8, abs=3)


@pytest.mark.parametrize("prompt", ["plain", 'quotes " and \\ and = ; # [x]', "two\nlines", "日本語 🎬", "x" * 32_000])
def test_provenance_comes_back_out_of_the_file(tmp_path: Path, prompt: str) -> None:
    path = tmp_path / "a.mp4"
    metadata = {"prompt": prompt, "seed": 7}
    media.write_clip(clip(), request(NATIVE), path, metadata=metadata, report=lambda _: None)
    facts = media.probe(path)
    assert facts.provenance == metadata
    assert facts.shape == NATIVE
    assert facts.codec == "h264"


def test_nothing_is_stored_when_provenance_is_off(tmp_path: Path) -> None:
    media.write_clip(clip(), request(NATIVE), tmp_path / "a.mp4", metadata=None, report=lambda _: None)
    assert media.probe(tmp_path / "a.mp4").provenance is None


def test_sound_becomes_aac(tmp_path: Path) -> None:
    time = np.arange(4 * 48_000) / 48_000
    tone = np.stack([np.sin(2 * np.pi * 440 * time)] * 2).astype(np.float32)
    media.write_clip(
        clip(Audio(tone, 48_000)), request(NATIVE._replace(frames=32)), tmp_path / "a.mp4", metadata=None,
        report=lambda _: None,
    )  # fmt: skip
    video, audio = ffprobe(tmp_path / "a.mp4")["streams"]
    assert (audio["codec_name"], audio["channels"], audio["sample_rate"]) == ("aac", 2, "48000")
    assert abs(float(audio["duration"]) - float(video["duration"])) <= 1 / 8


def test_cancelling_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[Frames]:
        yield pictures(NATIVE)[:5]
        raise Cancelled("enough")

    with pytest.raises(Cancelled):
        media.write_clip(
            Clip(NATIVE, chunks()), request(NATIVE), tmp_path / "a.mp4", metadata=None, report=lambda _: None
        )
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_fails_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    odd = request(VideoShape(33, 97, 161, 8))
    with pytest.raises(BadOutput, match="ffmpeg"):
        media.write_clip(clip(), odd, tmp_path / "a.mp4", metadata=None, report=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_muxing_is_reported(tmp_path: Path) -> None:
    seen: list[Progress] = []
    media.write_clip(clip(), request(NATIVE), tmp_path / "a.mp4", metadata=None, report=seen.append)
    assert [(p.step, p.total) for p in seen] == [(0, 1), (1, 1)]


def test_thumbnail_and_spritesheet(tmp_path: Path) -> None:
    delivery = VideoShape(33, 720, 1280, 8)
    video = tmp_path / "a.mp4"
    media.write_clip(clip(), request(delivery), video, metadata=None, report=lambda _: None)
    media.thumbnail(video, tmp_path / "a.webp")
    media.spritesheet(video, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.webp") as thumbnail, Image.open(tmp_path / "a.jpg") as sheet:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (640, 360))
        assert (sheet.format, sheet.size) == ("JPEG", (1280, 720))


@pytest.mark.parametrize("data", [b"", b"not a video", bytes(5000)])
def test_probing_something_else_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(BadOutput):
        media.probe(path)


def test_a_file_says_what_it_was_made_of(tmp_path: Path) -> None:
    card = load_registry().cards["homereel-mini"]
    source = SourceClip(tmp_path / "old.mp4", NATIVE, "edit", prompt="a cube")
    request = card.resolve(Wish("a ball", source=source, strength=0.5)).request
    notes = media.provenance(request, card, {})
    assert notes["source"] == {
        "file": "old.mp4", "use": "edit", "strength": 0.5, "prompt": "a cube", "num_frames": 33,
    }  # fmt: skip
    assert notes["windows"] == [{"frames": 33, "overlap": 0}]
    shown = card.resolve(Wish("a ball", references=(tmp_path / "mossy.png",))).request
    assert media.provenance(shown, card, {})["references"] == ["mossy.png"]


@pytest.mark.parametrize("size", [(160, 96), (640, 360)])
@pytest.mark.parametrize("audio", [False, True])
def test_an_extension_begins_with_its_source_unharmed(
    tmp_path: Path,
    size: tuple[int, int],
    audio: bool,
) -> None:
    shape = VideoShape(33, size[1], size[0], 8)
    first = request(shape)
    media.write_clip(clip(), first, tmp_path / "a.mp4", metadata=None, report=lambda _: None)
    source = SourceClip(tmp_path / "a.mp4", shape, "extend")
    longer = replace(first, source=source, delivery=shape._replace(frames=53))
    sound = Audio(np.zeros((2, 16000), dtype=np.float32), 16000) if audio else None
    grey = np.full((33, 96, 160, 3), 128, dtype=np.uint8)
    grey[:, :4] = 250
    path = tmp_path / "b.mp4"
    media.write_clip(Clip(NATIVE, iter([grey]), sound), longer, path, metadata={"a": 1}, report=lambda _: None)
    assert media.probe(path).shape == shape._replace(frames=53)
    assert media.probe(path).provenance == {"a": 1}
    old, new = (np.stack(list(media.frames(p))).astype(np.int16) for p in (tmp_path / "a.mp4", path))
    assert np.abs(new[:33] - old).mean() < 1.5
    assert np.abs(new[33:, size[1] // 2] - 128).max() <= 3


def test_a_still_is_a_sharp_frame_of_the_middle(tmp_path: Path) -> None:
    frames = pictures(NATIVE).astype(float)
    blur = np.repeat(frames.mean((1, 2), keepdims=True), 96, 1).repeat(160, 2)
    softened = [frames[i] if i in (0, 15) else 0.7 * blur[i] + 0.3 * frames[i] for i in range(33)]
    made = Clip(NATIVE, iter([np.stack(softened).astype(np.uint8)]))
    media.write_clip(made, request(NATIVE), tmp_path / "a.mp4", metadata=None, report=lambda _: None)
    media.still(tmp_path / "a.mp4", tmp_path / "still.png")
    with Image.open(tmp_path / "still.png") as picture:
        assert picture.format == "PNG"
        assert np.abs(np.asarray(picture).astype(float) - frames[15]).mean() < 4


def test_a_preview_plays_in_real_time_and_stays_small() -> None:
    rough = np.random.default_rng(0).integers(0, 256, (121, 24, 40, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(media.preview(rough, 24))) as picture:
        assert picture.size == (160, 96)
        durations: list[int] = []
        for frame in ImageSequence.Iterator(picture):
            frame.load()
            durations.append(frame.info["duration"])
    assert len(durations) <= 24
    assert sum(durations) == pytest.approx(121 / 24 * 1000, rel=0.05)
