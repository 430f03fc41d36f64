"""The model that ships on a CUDA device: ``scripts/check -m gpu``, or ``scripts/gpu_session.sh small``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from pipelines.card import Wish
from pipelines.engine import generate
from pipelines.errors import OutOfMemory
from pipelines.plan import MemoryPlan
from pipelines.registry import attention_for, load_pipeline, load_registry, probe, release
from pipelines.types import NOTHING_GIVEN, Frames, Given, Step

pytestmark = pytest.mark.gpu
GPU = "cuda:0"
CARD = load_registry().cards["homereel-mini"]
REQUEST = CARD.resolve(Wish("a red ball moves right over a green field", seed=3)).request


def made(plan: MemoryPlan) -> Frames:
    pipeline = load_pipeline(CARD, plan)
    frames = np.concatenate(list(generate(pipeline, REQUEST, lambda _: None).chunks))
    pipeline.close()
    return frames


def psnr(one: Frames, other: Frames) -> float:
    error = ((one.astype(float) - other.astype(float)) / 255) ** 2
    return float(-10 * np.log10(max(error.mean(), 1e-12)))


@pytest.fixture
def limited() -> Iterator[None]:
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2e8 / total, GPU)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0, GPU)


def test_a_seed_gives_the_same_frames_every_time() -> None:
    first, again = (hashlib.sha256(made(MemoryPlan(GPU)).tobytes()).hexdigest() for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("dtype", "decibels"), [("float32", 30), ("bfloat16", 20)])
def test_a_gpu_makes_the_clip_that_a_cpu_makes(dtype: str, decibels: float) -> None:
    """The noise is drawn on the CPU for both; sums differ in their last bits, and in bfloat16 in more."""
    assert psnr(made(MemoryPlan(GPU, dtype)), made(MemoryPlan("cpu"))) >= decibels  # pyright: ignore[reportArgumentType]


def test_a_loop_goes_on_where_it_stopped_to_the_bit() -> None:
    pipeline = load_pipeline(CARD, MemoryPlan(GPU, "bfloat16"))
    kept: list[bytes] = []

    def on_step(step: Step) -> None:
        assert step.snapshot is not None
        kept.append(step.snapshot()())

    whole = pipeline.denoise(REQUEST, pipeline.encode(REQUEST), NOTHING_GIVEN, on_step)
    pipeline.close()
    fresh = load_pipeline(CARD, MemoryPlan(GPU, "bfloat16"))
    for state in (kept[0], kept[len(kept) // 2], kept[-1]):
        resumed = fresh.denoise(REQUEST, fresh.encode(REQUEST), Given(state=state), lambda _: None)
        assert torch.equal(resumed, whole)
    fresh.close()


def test_the_kernel_that_is_chosen_makes_the_clip_too() -> None:
    device = probe(GPU)
    assert device.is_gpu
    kernel = attention_for(GPU, "bfloat16", None)
    assert kernel
    plain, chosen = made(MemoryPlan(GPU, "bfloat16")), made(MemoryPlan(GPU, "bfloat16", attention=kernel))
    assert psnr(plain, chosen) >= 20


@pytest.mark.usefixtures("limited")
def test_memory_that_runs_out_is_said_to_and_comes_back() -> None:
    with pytest.raises(OutOfMemory):
        made(MemoryPlan(GPU))
    torch.cuda.set_per_process_memory_fraction(1.0, GPU)
    release(GPU)
    assert len(made(MemoryPlan(GPU))) == REQUEST.shape.frames
