"""The training machine: where tensors are made (PyTorch's default device), what it is good at, how long there is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

import torch


def device() -> torch.device:
    """Return where tensors are made and models are trained."""
    return torch.get_default_device()


def seeded(seed: int) -> torch.Generator:
    """Return a seeded generator on that device. Its numbers differ from device to device."""
    return torch.Generator(device()).manual_seed(seed)


@dataclass(frozen=True)
class Schedule:
    """How long a training goes on and how fast it learns meanwhile.

    Attributes:
        steps: Steps in all, also after a restart.
        stop_s: Seconds after which to stop for now; a later call goes on from there.
        anneal_s: Seconds in which to come to the end of the schedule, however many steps that is: for a machine that
            is lent. Such a run depends on the machine's speed.
        hold: The part of the schedule in which the rate is full; then it falls in a straight line.
        warm: Steps in which it rises.
    """

    steps: int
    stop_s: float = inf
    anneal_s: float = inf
    hold: float = 0.4
    warm: int = 150
    began: float = field(default_factory=time.monotonic)

    def progress(self, step: int) -> float:
        """Return how much of the schedule is over at a step, from 0 to 1."""
        return min(1.0, max(step / self.steps, (time.monotonic() - self.began) / self.anneal_s))

    def over(self, step: int) -> bool:
        """Tell whether to stop before the next step."""
        return self.progress(step) >= 1 or time.monotonic() - self.began > self.stop_s

    def rate(self, step: int, first: int = 0) -> float:
        """Return what to multiply the learning rate by; ``first`` is the step at which the optimiser knew nothing."""
        fall = max(0.0, self.progress(step) - self.hold) / (1 - self.hold)
        return min(1.0, (step - first) / self.warm) * max(0.02, 1 - fall)


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Tell whether bfloat16 products beat float32 ones here.

    GPUs are made for them. On CPUs with AVX512-BF16 or AMX they are several times faster; without, emulation makes
    them up to 90 times slower.
    """
    return device().type == "cuda" or _seconds(torch.bfloat16) < _seconds(torch.float32)


def reduced_precision() -> torch.autocast:
    """Return a context in which products are bfloat16 where that is fast."""
    return torch.autocast(device().type, torch.bfloat16, enabled=fast_bfloat16())


def _seconds(dtype: torch.dtype) -> float:
    a, b = torch.randn(512, 256).to(dtype), torch.randn(256, 512).to(dtype)
    torch.mm(a, b)
    start = time.perf_counter()
    for _ in range(5):
        torch.mm(a, b)
    return time.perf_counter() - start
