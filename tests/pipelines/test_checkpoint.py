"""What an attempt leaves behind, and who may go on from it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.checkpoint import Checkpoints
from pipelines.engine import generate
from pipelines.errors import Cancelled
from pipelines.plan import MemoryPlan
from pipelines.shapes import FrameSize, ShapeRules
from pipelines.types import Frames, GenerationRequest, Given, OnStep, Progress, Stage, Step, VideoShape

STEPS = 6
RULES = ShapeRules(
    sizes=(FrameSize(width=64, height=32),), fps=8, frame_stride=4, min_frames=17, max_frames=33, overlap=9,
    pixels_per_token=32,
)  # fmt: skip


def wish(seconds: int = 4, seed: int = 1) -> GenerationRequest:
    windows = RULES.windows_for(8 * seconds)
    shape = VideoShape(sum(window.new for window in windows), 32, 64, 8)
    return GenerationRequest("a ball", "", shape, shape._replace(frames=8 * seconds), seed, STEPS, 3.0, windows=windows)


class Adder(VideoPipeline[str, Frames]):
    """Every step adds the seed to a picture; counts the steps that it had to do itself."""

    def __init__(self, version: str = "1", device: str = "cpu") -> None:
        self.worked: list[tuple[int, int]] = []
        self._facts = {"version": version, "device": device}

    @classmethod
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> "Adder":
        raise NotImplementedError

    def encode(self, request: GenerationRequest) -> str:
        return request.prompt

    def denoise(self, request: GenerationRequest, conditioning: str, given: Given, on_step: OnStep) -> Frames:
        done, value = map(int, given.state.split()) if given.state else (0, 0)
        for step in range(done + 1, STEPS + 1):
            value = (value + request.seed) % 200
            self.worked.append((request.shape.frames, step))
            state = f"{step} {value}".encode()
            on_step(Step(step, STEPS, lambda: None, lambda state=state: lambda: state))
        ramp = np.arange(request.shape.frames) + value
        return np.broadcast_to(ramp[:, None, None, None], (len(ramp), 32, 64, 3)).astype(np.uint8)

    def freeze(self, latents: Frames) -> Callable[[], bytes]:
        return latents[:, 0, 0, 0].tobytes

    def thaw(self, content: bytes) -> Frames:
        ramp = np.frombuffer(content, dtype=np.uint8)
        return np.broadcast_to(ramp[:, None, None, None], (len(ramp), 32, 64, 3))

    def decode(self, request: GenerationRequest, latents: Frames) -> Iterator[Frames]:
        yield latents

    @property
    def facts(self) -> Mapping[str, str]:
        return self._facts

    def close(self) -> None: ...


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def keeping(folder: Path, owner: str = "adder 1", interval_s: float = 0.0) -> Checkpoints:
    return Checkpoints(folder, owner, interval_s=interval_s, now=Clock())


def stopped_after(step: int, stage: Stage = Stage.DENOISE) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.stage is stage and progress.step >= step:
            raise Cancelled("killed")

    return report


def frames(pipeline: Adder, request: GenerationRequest, checkpoints: Checkpoints) -> Frames:
    with checkpoints:
        clip = generate(pipeline, request, lambda _: None, checkpoints=checkpoints)
        return np.concatenate(list(clip.chunks))


def killed(
    request: GenerationRequest, folder: Path, step: int, stage: Stage = Stage.DENOISE, interval_s: float = 0.0
) -> Adder:
    """Let an attempt come as far as a step and no further."""
    pipeline = Adder()
    with keeping(folder, interval_s=interval_s) as checkpoints, suppress(Cancelled):
        clip = generate(pipeline, request, stopped_after(step, stage), checkpoints=checkpoints)
        list(clip.chunks)
        pytest.fail("nothing stopped it")
    return pipeline


@pytest.mark.parametrize("step", range(1, STEPS))
def test_no_step_is_done_twice_and_the_clip_is_the_same(tmp_path: Path, step: int) -> None:
    whole = frames(Adder(), wish(), keeping(tmp_path / "other"))
    first, second = killed(wish(), tmp_path, step), Adder()
    assert (frames(second, wish(), keeping(tmp_path)) == whole).all()
    assert [number for _, number in first.worked + second.worked] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("step", [0, 20])
def test_a_clip_whose_decoding_failed_is_not_denoised_again(tmp_path: Path, step: int) -> None:
    killed(wish(), tmp_path, step, Stage.DECODE)
    second = Adder()
    frames(second, wish(), keeping(tmp_path))
    assert second.worked == []


def test_windows_that_are_done_stay_done(tmp_path: Path) -> None:
    request = wish(seconds=8)
    whole = frames(Adder(), request, keeping(tmp_path / "other"))
    assert len(request.windows) == 3
    first, second = killed(request, tmp_path, STEPS + 2), Adder()
    assert (frames(second, request, keeping(tmp_path)) == whole).all()
    assert len(first.worked) + len(second.worked) == 3 * STEPS
    assert second.worked[0] == (request.windows[1].frames, 3)


@pytest.mark.parametrize(
    ("pipeline", "request_", "owner"),
    [
        (Adder(version="2"), wish(), "adder 1"),
        (Adder(), wish(seed=2), "adder 1"),
        (Adder(), replace(wish(), prompt="a cube"), "adder 1"),
        (Adder(), wish(), "adder 2"),
    ],
    ids=["version", "seed", "prompt", "model"],
)
def test_what_belongs_to_something_else_is_not_used(
    tmp_path: Path, pipeline: Adder, request_: GenerationRequest, owner: str
) -> None:
    killed(wish(), tmp_path, 4)
    pipeline.worked.clear()
    frames(pipeline, request_, keeping(tmp_path, owner))
    assert [number for _, number in pipeline.worked] == list(range(1, STEPS + 1))


def test_another_device_of_the_same_kind_goes_on(tmp_path: Path) -> None:
    killed(wish(), tmp_path, 4)
    other = Adder(device="cuda:1")
    frames(other, wish(), keeping(tmp_path))
    assert [number for _, number in other.worked] == [5, 6]


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "no header"])
def test_what_is_damaged_is_not_used(tmp_path: Path, damage: str) -> None:
    killed(wish(), tmp_path, 4)
    path = tmp_path / "window-0.state"
    content = path.read_bytes()
    path.write_bytes(
        {
            "flipped": content[:-1] + bytes([content[-1] ^ 1]),
            "short": content[:-1],
            "empty": b"",
            "no header": content.split(b"\n", 1)[1],
        }[damage]
    )
    second = Adder()
    frames(second, wish(), keeping(tmp_path))
    assert len(second.worked) == STEPS


def test_a_state_is_kept_once_an_interval(tmp_path: Path) -> None:
    # The clock moves on a second whenever somebody looks, which is once a step.
    killed(wish(), tmp_path, STEPS - 1, interval_s=3.0)
    second = Adder()
    frames(second, wish(), keeping(tmp_path))
    assert [number for _, number in second.worked] == [4, 5, 6]


def test_in_a_hurry_every_step_is_kept(tmp_path: Path) -> None:
    with keeping(tmp_path, interval_s=1e9) as checkpoints, suppress(Cancelled):
        checkpoints.hurry()
        generate(Adder(), wish(), stopped_after(3), checkpoints=checkpoints)
    second = Adder()
    frames(second, wish(), keeping(tmp_path))
    assert [number for _, number in second.worked] == [4, 5, 6]


def test_a_disk_that_takes_nothing_costs_no_clip(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder would be")
    assert len(frames(Adder(), wish(), keeping(tmp_path / "taken"))) == 33


@pytest.mark.skipif(os.name != "posix", reason="names of partial files are looked for")
def test_nothing_half_written_stays(tmp_path: Path) -> None:
    frames(Adder(), wish(), keeping(tmp_path))
    assert not list(tmp_path.glob(".*"))
