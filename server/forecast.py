"""How long videos will take and wait, from what others took. Pure; None wherever nothing has been measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipelines.errors import DoesNotFit
from pipelines.fitting import fit, rungs
from pipelines.needs import Demand
from pipelines.types import Stage
from server.timings import Timing, use_of

if TYPE_CHECKING:
    from pipelines.card import ModelCard
    from pipelines.plan import Device
    from pipelines.types import GenerationRequest, VideoShape

# Stages whose time grows with what is made; the others' hardly does.
_GROWING = frozenset({Stage.DENOISE, Stage.DECODE, Stage.MUX})


class Prediction(NamedTuple):
    """What a video should take, once its model is loaded."""

    seconds: float
    peak_memory_bytes: int


class Planned(NamedTuple):
    """What a video should need of the device's memory, and if it has too little, what is missing."""

    peak_memory_bytes: int
    refusal: str | None


class Span(NamedTuple):
    """When a waiting video should start and end, in seconds from now."""

    start_s: float
    end_s: float


def predict(timings: Sequence[Timing], request: GenerationRequest) -> Prediction | None:
    """Return what the request should take, going by the timings of its card, the latest first.

    The same kind of video counts before one that is nearest in size; from that the time is extrapolated, linearly in
    pixels and steps. Peak memory is that of the nearest, whose model is the same and the larger part of it.
    """
    if not timings:
        return None
    alike = [timing for timing in timings if timing.use == use_of(request)] or list(timings)
    nearest = min(alike, key=lambda timing: _distance(timing, request))
    volume = _volume(request.shape) / _volume(nearest.shape)
    steps = request.whole_steps / nearest.steps
    seconds = 0.0
    for stage, stage_s in nearest.stage_s.items():
        if stage is not Stage.LOAD:
            grown = stage_s * volume if stage in _GROWING else stage_s
            seconds += grown * steps if stage is Stage.DENOISE else grown
    return Prediction(seconds, nearest.peak_memory_bytes)


def planned(card: ModelCard, request: GenerationRequest, device: Device) -> Planned:
    """Return what the request should need by the plan that fits the device, or by the one that comes closest."""
    demand = Demand.of(request)
    try:
        plan = fit(card, demand.shape, device, guided=demand.guided, pictures=demand.pictures, clips=demand.clips)
    except DoesNotFit as error:
        return Planned(min(rung.peak for rung in rungs(card, demand, device)), error.message)
    return Planned(plan.peak, None)


def line_up(running_s: Sequence[float | None], waiting_s: Sequence[float | None], workers: int) -> list[Span | None]:
    """Return when each of the waiting videos should be made.

    Args:
        running_s: Seconds that each running video has left.
        waiting_s: Seconds that each waiting video should take, in their order.
        workers: How many videos are made at a time.
    """
    free: list[float | None] = [*running_s, *[0.0] * max(0, workers - len(running_s))]
    spans: list[Span | None] = []
    for takes_s in waiting_s:
        known = [moment for moment in free if moment is not None]
        if not known or len(known) < len(free):
            # Somebody ahead may be through at any time: whoever follows cannot be told anything.
            spans.append(None)
            continue
        start = min(known)
        free[free.index(start)] = None if takes_s is None else start + takes_s
        spans.append(None if takes_s is None else Span(start, start + takes_s))
    return spans


def _volume(shape: VideoShape) -> int:
    return shape.frames * shape.height * shape.width


def _distance(timing: Timing, request: GenerationRequest) -> tuple[float, float]:
    return (
        abs(math.log(_volume(timing.shape) / _volume(request.shape))),
        abs(math.log(timing.steps / request.whole_steps)),
    )
