"""Loops of diffusers that call nobody back: their scheduler does, after each of its steps."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


@contextmanager
def told(scheduler: Any, on_step: Callable[[int, Tensor], None]) -> Generator[None]:
    """Have a scheduler say how far it is while the block runs. Enter it after ``resumed``, whose step counts too.

    Args:
        scheduler: One that counts its steps in ``step_index``.
        on_step: Called with the number of steps done and the latents; may raise, which ends the loop.
    """
    kind: Any = type(scheduler)

    class Telling(kind):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            made = super().step(*args, **kwargs)
            latents = made.prev_sample if kwargs.get("return_dict", True) else made[0]
            on_step(int(self.step_index), latents)
            return made

    Telling.__name__ = kind.__name__
    scheduler.__class__ = Telling
    try:
        yield
    finally:
        scheduler.__class__ = kind
