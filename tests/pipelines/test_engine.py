from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.engine import generate
from pipelines.errors import BadOutput, Cancelled
from pipelines.types import Frames, GenerationRequest, Given, OnStep, Progress, Stage, Step, VideoShape

SHAPE = VideoShape(5, 32, 64, 8)
REQUEST = GenerationRequest("a ball", "", SHAPE, SHAPE, seed=1, num_inference_steps=3, guidance_scale=1.0)


class Scripted(VideoPipeline[str, int]):
    """A pipeline whose frames the test chooses."""

    def __init__(self, chunks: list[Frames]) -> None:
        self.chunks = chunks

    @classmethod
    def load(cls, card: ModelCard, weights: Path, device: str) -> "Scripted":
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
