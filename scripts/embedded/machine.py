"""What the training machine is good at."""

from __future__ import annotations

import time
from functools import lru_cache

import torch


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Tell whether bfloat16 products beat float32 ones here.

    With AVX512-BF16 or AMX they are several times faster; without, emulation makes them up to 90 times slower.
    """
    return _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    a, b = torch.randn(512, 256).to(dtype), torch.randn(256, 512).to(dtype)
    torch.mm(a, b)
    start = time.perf_counter()
    for _ in range(5):
        torch.mm(a, b)
    return time.perf_counter() - start
