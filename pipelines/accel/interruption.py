"""Lets a clip be stopped inside a part of the model: decoding a long clip is one call that can take a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

# Looking more often would tell nobody anything, and on a GPU each look waits for what has been queued.
_EVERY_S = 0.05


class Interruption:
    """Has somebody asked between the blocks of a model's parts whether to go on."""

    def __init__(self, device: str, *, every_s: float = _EVERY_S) -> None:
        """Ask at most every ``every_s`` seconds; ``device`` is where the parts compute."""
        self._on_gpu, self._device, self._every_s = device.startswith("cuda"), device, every_s
        self._ask: Callable[[], None] | None = None
        self._asked = 0.0

    def watch(self, part: nn.Module) -> None:
        """Ask before each of a part's blocks: the members of its lists of modules, on every level."""
        for module in part.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    block.register_forward_pre_hook(self._between_blocks)

    def heed(self, ask: Callable[[], None] | None) -> None:
        """Have ``ask`` called from now on; what it raises ends the work at hand. None has nobody asked."""
        self._ask, self._asked = ask, time.monotonic()

    def _between_blocks(self, *_: object) -> None:
        if self._ask is None or time.monotonic() - self._asked < self._every_s:
            return
        if self._on_gpu:
            # Python is far ahead of the device; a stop that leaves a minute of queued work behind is none.
            torch.cuda.synchronize(self._device)
        self._ask()
        self._asked = time.monotonic()
