"""A clip ends inside a part of the model, not only after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pipelines.accel.interruption import Interruption
from pipelines.card import ModelCard
from pipelines.engine import generate
from pipelines.errors import Cancelled
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline
from pipelines.types import Progress, Stage
from pipelines.wish import Wish


class Part(nn.Module):
    """Two blocks in a row, and something that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.norm = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.blocks[1](self.blocks[0](x)))


def test_somebody_is_asked_before_every_block_until_nobody_is() -> None:
    part, asked = Part(), list[int]()
    interruption = Interruption("cpu", every_s=0)
    interruption.watch(part)
    part(torch.zeros(1))
    assert not asked
    interruption.heed(lambda: asked.append(1))
    part(torch.zeros(1))
    assert len(asked) == 2
    interruption.heed(None)
    part(torch.zeros(1))
    assert len(asked) == 2


def test_nobody_is_asked_all_the_time() -> None:
    part, asked = Part(), list[int]()
    interruption = Interruption("cpu", every_s=3600)
    interruption.watch(part)
    interruption.heed(lambda: asked.append(1))
    part(torch.zeros(1))
    assert not asked


@pytest.mark.parametrize("stage", [Stage.ENCODE, Stage.DECODE])
def test_a_clip_ends_inside_a_stage_and_the_next_one_is_whole(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    pipeline: Any = load_pipeline(card, MemoryPlan("cpu"))
    monkeypatch.setattr(pipeline._host.interruption, "_every_s", 0.0)
    request = card.resolve(Wish("a red ball", num_frames=17, num_inference_steps=2, seed=1)).request

    def made(report: Callable[[Progress], None]) -> bytes:
        return b"".join(chunk.tobytes() for chunk in generate(pipeline, request, report).chunks)

    whole = made(lambda _: None)
    said: list[Progress] = []

    def stop_inside(progress: Progress) -> None:
        said.append(progress)
        if progress.stage is stage and said.count(progress) == 3:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        made(stop_inside)
    assert said[-1] == Progress(stage, 0, said[-1].total)
    assert made(lambda _: None) == whole
    # Steps of denoising are said once each: they stand for states that can be kept.
    assert [p.step for p in said if p.stage is Stage.DENOISE] in ([], [0, 1, 2])
    pipeline.close()
