"""Clips in two stages: made at half the size, brought to twice that as latents, and refined for a few steps.

The second stage is the same loop again at the full size, begun from what the first one left. Its steps are counted on
from the first one's, so that what was saved after any of them says by itself in which stage it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import diffusers
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from pipelines.accel.host import Host
from pipelines.accel.resume import Point
from pipelines.card import ModelCard
from pipelines.errors import WeightsMissing
from pipelines.holdings import borrowed
from pipelines.plan import MemoryPlan
from pipelines.shapes import halved
from pipelines.types import GenerationRequest, VideoShape
from pipelines.weights import UPSAMPLER

P = TypeVar("P", bound=diffusers.DiffusionPipeline)
_Share = Annotated[float, Field(ge=0, le=1)]


class Refinement(BaseModel):
    """How a card's second stage goes.

    Attributes:
        levels: Noise levels that the checkpoint was distilled to refine through, without the last, 0. Of the first
            of them there is as much noise as is added to what comes from the first stage.
        of_steps: Steps of the schedule that the second stage takes the end of, for cards that name no levels.
        adain: How far doubled latents are brought back to mean and spread of those before.
        tone_mapping: How far the largest of them are pressed together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    levels: tuple[PositiveFloat, ...] | None = None
    of_steps: PositiveInt = 10
    adain: _Share = 0.0
    tone_mapping: _Share = 0.0

    def check(self, card: ModelCard) -> None:
        """Compare with the number of steps that the card names.

        Raises:
            ValueError: It cannot be made from these levels.
        """
        steps = card.sampling.refine_steps
        if steps is None:
            return
        if steps >= self.of_steps if self.levels is None else steps != len(self.levels):
            raise ValueError(f"{card.id} cannot refine in {steps} steps by its options")


class Pass(NamedTuple):
    """A loop over all of a clip, which is the only one or one of two.

    Attributes:
        shape: What is denoised; what is given is brought to its size.
        steps: How many there are.
        before: Steps of the pass before it.
        point: Where it goes on; None at the beginning.
        arguments: What the pipeline is told in this one.
    """

    shape: VideoShape
    steps: int
    before: int
    point: Point | None
    arguments: Mapping[str, Any]

    @classmethod
    def first(cls, request: GenerationRequest, point: Point | None, arguments: Mapping[str, Any]) -> Pass:
        """Return the one that begins with noise."""
        shape = halved(request.shape) if request.refine_steps else request.shape
        return cls(shape, request.num_inference_steps, 0, point, arguments)

    @classmethod
    def second(cls, request: GenerationRequest, point: Point | None, arguments: Mapping[str, Any]) -> Pass:
        """Return the one that refines."""
        return cls(request.shape, request.refine_steps, request.num_inference_steps, point, arguments)


def upsampling(kind: type[P]) -> type[P]:
    """Return a kind of pipeline with one part more, the one that doubles latents; it comes and goes as others do."""
    stock: Any = kind

    class Upsampling(stock):
        def __init__(self, **parts: Any) -> None:
            doubling = parts.pop(UPSAMPLER)
            super().__init__(**parts)
            self.register_modules(**{UPSAMPLER: doubling})

    # By its signature a pipeline knows its parts.
    own = inspect.signature(stock.__init__)
    more = inspect.Parameter(UPSAMPLER, inspect.Parameter.KEYWORD_ONLY)
    init: Any = Upsampling.__init__
    init.__signature__ = own.replace(parameters=[*own.parameters.values(), more])
    Upsampling.__name__ = kind.__name__
    return Upsampling


def load_host(kind: type[P], upsampler: Any, card: ModelCard, weights: Path, plan: MemoryPlan) -> Host[P]:
    """Load a checkpoint as ``Host.load`` does, with what doubles its latents if the card has sizes in two stages.

    Args:
        kind: The pipeline to load.
        upsampler: Class of what doubles latents, which the card borrows.
        card: The model's card.
        weights: Folder with ``model_index.json``.
        plan: How it is to run.

    Raises:
        WeightsMissing: A part is not there or cannot be read.
        OutOfMemory: The device cannot hold it.
    """
    if not card.shape.has_two_stages:
        return Host.load(kind, card, weights, plan)
    doubling = _loaded(upsampler, borrowed(card, UPSAMPLER), card, plan)
    return Host.load(upsampling(kind), card, weights, plan, **{UPSAMPLER: doubling})


def _loaded(kind: Any, folder: Path, card: ModelCard, plan: MemoryPlan) -> nn.Module:
    try:
        dtype = getattr(torch, plan.dtype)
        return kind.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsMissing(f"What brings clips of {card.id} to their size cannot be read: {error}") from error


def begun(request: GenerationRequest, state: bytes | None, device: str) -> tuple[Point | None, Point | None]:
    """Return where an earlier attempt was in the first stage and where in the second; at most one of the two.

    Steps of the second one are counted from its own beginning. A point at the very end of the first stage is in it:
    what follows needs what that stage made.
    """
    if state is None:
        return None, None
    point = Point.thaw(state, device)
    if point.step <= request.num_inference_steps:
        return point, None
    return None, replace(point, step=point.step - request.num_inference_steps)


def doubled(upsample: Any, latents: Tensor, refinement: Refinement) -> Tensor:
    """Return latents of twice the height and width, of the kind that they are, float32 as loops keep them.

    Args:
        upsample: diffusers' pipeline for it.
        latents: ``(1, channels, f, h, w)``.
        refinement: The card's.
    """
    return upsample(
        latents=latents,
        adain_factor=refinement.adain,
        tone_map_compression_ratio=refinement.tone_mapping,
        output_type="latent",
    ).frames.float()
