"""Go on with a loop of diffusers where an earlier attempt at it stopped, bit for bit.

The pipeline is called as at first. It passes over the steps that are done (every loop asks ``interrupt``) but for one,
which it runs once more for nothing, and there gets what was saved instead: latents, whatever the scheduler remembers of
earlier steps, and the state of the noise. One forward is the price of leaving the loops to diffusers.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch

from pipelines.accel.states import Frozen, freeze, thaw

_PLAIN = (int, float, str, type(None))


@dataclass(frozen=True)
class Point:
    """Where a loop is.

    Attributes:
        step: How many steps are done.
        latents: What they made: one tensor for each scheduler, in the order in which they are asked.
        schedulers: What each scheduler remembers.
        generator: State of the noise.
    """

    step: int
    latents: list[torch.Tensor]
    schedulers: list[dict[str, Any]]
    generator: torch.Tensor

    @classmethod
    def of(cls, step: int, pairs: list[tuple[Any, torch.Tensor]], generator: torch.Generator) -> Point:
        """Describe a loop after a step, ``pairs`` being schedulers with the latents that they keep."""
        schedulers = [{name: value for name, value in vars(s).items() if _is_state(value)} for s, _ in pairs]
        return cls(step, [latents for _, latents in pairs], schedulers, generator.get_state())

    def freeze(self) -> Frozen:
        """Copy all of it to the CPU; what is returned makes bytes of it."""
        return freeze(vars(self))

    @classmethod
    def thaw(cls, content: bytes, device: str) -> Point:
        """Read what ``freeze`` made."""
        return cls(**thaw(content, device))


def _is_state(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_state, value))
    return isinstance(value, (*_PLAIN, torch.Tensor))


@contextmanager
def resumed(
    pipe: Any, point: Point | None, generator: torch.Generator, *others: Any, by_the_first: bool = False
) -> Generator[None]:
    """Let the next call of a pipeline go on from a point; None begins at the beginning.

    Args:
        pipe: The pipeline, with the scheduler that its loop will ask.
        point: Where to go on; the call's other arguments must be those of the first attempt.
        generator: The call's, seeded as at first.
        others: The schedulers of further streams, in the order in which the loop asks them.
        by_the_first: Run the first step once more instead of the last that is done, for loops that prepare things in
            it which later steps need.
    """
    if point is None:
        yield
        return
    kinds = [(scheduler, type(scheduler)) for scheduler in (pipe.scheduler, *others)]
    kind = type(pipe)
    pipe.__class__ = _passing_over(kind, 1 if by_the_first else point.step, point.step)
    for index, (scheduler, kind_of_scheduler) in enumerate(kinds):
        scheduler.__class__ = _injecting(kind_of_scheduler, point, index, generator)
    try:
        yield
    finally:
        pipe.__class__ = kind
        for scheduler, kind_of_scheduler in kinds:
            scheduler.__class__ = kind_of_scheduler


def _passing_over(kind: type, once_more: int, done: int) -> type:
    """Return a pipeline whose loop passes over the steps up to ``done`` but for one. Steps count from 1."""
    asked = [0]

    def interrupt(self: Any) -> bool:
        # Every loop asks once at the beginning of each of its steps.
        asked[0] += 1
        return (asked[0] <= done and asked[0] != once_more) or self._interrupt

    return type(kind.__name__, (kind,), {"interrupt": property(interrupt)})


def _injecting(kind: type, point: Point, index: int, generator: torch.Generator) -> type:
    """Return a scheduler whose first step returns what was saved of a stream."""
    stock: Any = kind
    waiting = [True]

    class Injecting(stock):
        # Loops ask by its signature whether a step takes the noise.
        @wraps(stock.step)
        def step(self, model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            if not waiting:
                return super().step(model_output, timestep, sample, *args, **kwargs)
            waiting.clear()
            for name, value in point.schedulers[index].items():
                setattr(self, name, value)
            generator.set_state(point.generator)
            latents = point.latents[index].clone()
            if kwargs.get("return_dict", True):
                return SimpleNamespace(prev_sample=latents)
            # Some return more, which they remember.
            return (latents, *getattr(self, "beside", ()))

    Injecting.__name__ = kind.__name__
    return Injecting
