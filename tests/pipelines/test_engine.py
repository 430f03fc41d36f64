from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import media
from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.engine import generate
from pipelines.errors import BadOutput, Cancelled
from pipelines.plan import MemoryPlan
from pipelines.shapes import FrameSize, ShapeRules
from pipelines.types import (
    Clip,
    Frames,
    GenerationRequest,
    Given,
    OnStep,
    Progress,
    Sketch,
    SourceClip,
    Stage,
    Step,
    VideoShape,
)

SHAPE = VideoShape(5, 32, 64, 8)
REQUEST = GenerationRequest("a ball", "", SHAPE, SHAPE, seed=1, num_inference_steps=3, guidance_scale=1.0)


class Scripted(VideoPipeline[str, int]):
    """A pipeline whose frames the test chooses."""

    def __init__(self, chunks: list[Frames]) -> None:
        self.chunks = chunks

    @classmethod
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> "Scripted":
        raise NotImplementedError

    def encode(self, request: GenerationRequest) -> str:
        return request.prompt

    def denoise(self, request: GenerationRequest, conditioning: str, given: Given, on_step: OnStep) -> int:
        for step in range(request.num_inference_steps):
            on_step(Step(step + 1, request.num_inference_steps, lambda: None))
        return len(conditioning)

    def decode(self, request: GenerationRequest, latents: int) -> Iterator[Frames]:
        yield from self.chunks

    @property
    def facts(self) -> Mapping[str, str]:
        return {"device": "none"}

    def close(self) -> None: ...


def picture(frames: int) -> Frames:
    return np.random.default_rng(0).integers(0, 256, (frames, 32, 64, 3), dtype=np.uint8)


def test_every_stage_reports_its_start_and_each_step() -> None:
    seen: list[Progress] = []
    clip = generate(Scripted([picture(1), picture(4)]), REQUEST, seen.append)
    assert clip.facts == {"device": "none"}
    assert [p for p in seen if p.stage is Stage.DECODE] == []
    assert sum(len(c) for c in clip.chunks) == 5
    assert seen == [
        Progress(Stage.ENCODE, 0, 1),
        Progress(Stage.ENCODE, 1, 1),
        *(Progress(Stage.DENOISE, step, 3) for step in range(4)),
        *(Progress(Stage.DECODE, step, 5) for step in (0, 1, 5)),
    ]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_raising_from_the_report_stops_before_the_next_step(step: int) -> None:
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress == Progress(Stage.DENOISE, step, 3):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        generate(Scripted([picture(5)]), REQUEST, report)
    assert seen[-1] == Progress(Stage.DENOISE, step, 3)


@pytest.mark.parametrize("value", [0, 17, 255])
def test_a_flat_clip_is_an_error_with_a_cause(value: int) -> None:
    flat = np.full((5, 32, 64, 3), value, dtype=np.uint8)
    clip = generate(Scripted([flat]), REQUEST, lambda _: None)
    with pytest.raises(BadOutput, match="flat"):
        list(clip.chunks)


@pytest.mark.parametrize("frames", [4, 6])
def test_a_wrong_number_of_frames_is_an_error(frames: int) -> None:
    clip = generate(Scripted([picture(frames)]), REQUEST, lambda _: None)
    with pytest.raises(BadOutput, match="instead of 5"):
        list(clip.chunks)


class Painter(VideoPipeline[str, Frames]):
    """Paints every frame in a grey of its own, by its place in the clip, and remembers what it was given."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self.pieces: list[GenerationRequest] = []
        self.encoded = 0

    @classmethod
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> "Painter":
        raise NotImplementedError

    def encode(self, request: GenerationRequest) -> str:
        self.encoded += 1
        return request.prompt

    def denoise(self, request: GenerationRequest, conditioning: str, given: Given, on_step: OnStep) -> Frames:
        self.given.append(given)
        self.pieces.append(request)
        greys = np.arange(request.shape.frames)
        if given.before is not None:
            greys += int(given.before[0, 0, 0, 0])
        clip = np.broadcast_to(greys[:, None, None, None], (len(greys), 32, 64, 3)).astype(np.uint8)
        for step in range(request.num_inference_steps):
            on_step(Step(step + 1, request.num_inference_steps, lambda: clip))
        return clip

    def decode(self, request: GenerationRequest, latents: Frames) -> Iterator[Frames]:
        yield latents[:1]
        yield latents[1:]

    @property
    def facts(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None: ...


RULES = ShapeRules(
    sizes=(FrameSize(width=64, height=32),), fps=8, frame_stride=4, min_frames=17, max_frames=33, overlap=9,
    pixels_per_token=32,
)  # fmt: skip


def long(wanted: int, **changes: object) -> GenerationRequest:
    windows = RULES.windows_for(wanted)
    shape = VideoShape(sum(window.new for window in windows), 32, 64, 8)
    return replace(REQUEST, shape=shape, delivery=shape._replace(frames=wanted), windows=windows, **changes)


@pytest.mark.parametrize("wanted", [17, 32, 33, 34, 41, 57, 64, 65, 100, 160])
def test_windows_join_without_a_frame_too_many_or_too_few(wanted: int) -> None:
    painter, request = Painter(), long(wanted)
    clip = np.concatenate(list(generate(painter, request, lambda _: None).chunks))
    assert [int(frame[0, 0, 0]) for frame in clip] == list(range(request.shape.frames))
    assert painter.encoded == 1
    for given, window in zip(painter.given, request.windows, strict=True):
        assert (0 if given.before is None else len(given.before)) == window.overlap


def test_progress_counts_over_all_windows() -> None:
    seen: list[Progress] = []
    request = long(64)
    list(generate(Painter(), request, seen.append).chunks)
    denoising = [p for p in seen if p.stage is Stage.DENOISE]
    assert denoising == [Progress(Stage.DENOISE, step, 9) for step in range(10)]
    decoding = [p for p in seen if p.stage is Stage.DECODE]
    assert {p.total for p in decoding} == {request.shape.frames}
    assert [p.step for p in decoding] == sorted(p.step for p in decoding)
    assert decoding[-1].step == request.shape.frames


@pytest.mark.parametrize("stop", range(1, 10))
def test_cancelling_stops_at_any_step_of_any_window(stop: int) -> None:
    painter, seen = Painter(), list[Progress]()

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress == Progress(Stage.DENOISE, stop, 9):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        list(generate(painter, long(64), report).chunks)
    assert seen[-1] == Progress(Stage.DENOISE, stop, 9)
    assert len(painter.pieces) == (stop + 2) // 3


def test_every_step_can_be_looked_at() -> None:
    sketches: list[Sketch] = []
    list(generate(Painter(), long(64), lambda _: None, sketches.append).chunks)
    assert len(sketches) == 9
    painted = [sketch() for sketch in sketches]
    assert [None if p is None else len(p) for p in painted] == [33] * 6 + [17] * 3


def rising(path: Path, frames: int) -> SourceClip:
    """A file whose frame n is of grey 20 + 2n."""
    shape = VideoShape(frames, 32, 64, 8)
    greys = (20 + 2 * np.arange(frames))[:, None, None, None]
    clip = np.broadcast_to(greys, (frames, 32, 64, 3)).astype(np.uint8).copy()
    clip[:, ::8] = 250
    request = replace(REQUEST, shape=shape, delivery=shape)
    media.write_clip(Clip(shape, iter([clip])), request, path, metadata=None, report=lambda _: None)
    return SourceClip(path, shape, "extend")


def greys(frames: Frames) -> list[int]:
    return [int(frame[4, 40, 0]) for frame in frames]


def test_an_extension_goes_on_from_the_last_frames_of_its_source(tmp_path: Path) -> None:
    source, painter = rising(tmp_path / "a.mp4", 20), Painter()
    windows = RULES.windows_for(30, before=20)
    made = sum(window.new for window in windows)
    request = replace(
        REQUEST, source=source, windows=windows, shape=VideoShape(made, 32, 64, 8), delivery=VideoShape(50, 32, 64, 8)
    )
    clip = generate(painter, request, lambda _: None)
    assert painter.given[0].before is not None
    assert greys(painter.given[0].before) == pytest.approx([20 + 2 * n for n in range(11, 20)], abs=2)
    media.write_clip(clip, request, tmp_path / "b.mp4", metadata=None, report=lambda _: None)
    result = np.stack(list(media.frames(tmp_path / "b.mp4")))
    assert len(result) == 50
    assert greys(result[:20]) == pytest.approx([20 + 2 * n for n in range(20)], abs=3)
    assert media.probe(tmp_path / "b.mp4").shape == VideoShape(50, 32, 64, 8)


def test_every_window_of_an_edit_gets_its_part_of_the_source(tmp_path: Path) -> None:
    source, painter = replace(rising(tmp_path / "a.mp4", 60), use="edit"), Painter()
    list(generate(painter, long(60, source=source), lambda _: None).chunks)
    parts = [given.edited for given in painter.given]
    starts = [0, 24, 48]
    for part, start, window in zip(parts, starts, RULES.windows_for(60), strict=True):
        assert part is not None
        assert len(part) == window.frames
        there = [min(start + n, 59) for n in range(window.frames)]
        assert greys(part) == pytest.approx([20 + 2 * n for n in there], abs=3)
