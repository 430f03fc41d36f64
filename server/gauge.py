"""How much memory a device has and how much of it is free, as often as its worker gives a sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from pipelines.machine import cpu_name, free_ram_bytes, ram_bytes
from server.devices import gpu_of, gpus
from server.loaded import DeviceMemory

Measure: TypeAlias = Callable[[], tuple[int, int] | None]
"""Returns free and total bytes of a GPU by the tensor library's word; None for as long as that is not loaded."""

# The driver's own tool is a program that has to be started: before there is a model, little changes.
ASK_AGAIN_S = 30.0


class Gauge:
    """Reads the memory of one device. Belongs to the thread that announces it."""

    def __init__(self, device: str, measure: Measure, now: Callable[[], float] = time.monotonic) -> None:
        self._device = device
        self._measure = measure
        self._now = now
        self._said: DeviceMemory | None = None
        self._said_at: float | None = None

    def read(self) -> DeviceMemory | None:
        """Return what there is now, or was a moment ago; None if nobody knows."""
        if not self._device.startswith("cuda"):
            return DeviceMemory(cpu_name(), ram_bytes(), free_ram_bytes())
        measured = self._measured()
        if measured is None or self._said_at is None:
            self._ask()
        if measured is None:
            return self._said
        free, total = measured
        return DeviceMemory(self._said.name if self._said else self._device, total, free)

    def _measured(self) -> tuple[int, int] | None:
        try:
            return self._measure()
        except RuntimeError:
            # The device is in trouble, which whoever works on it meets as well; the sign of life must go on.
            return None

    def _ask(self) -> None:
        """Have the driver say it, once in a while."""
        now = self._now()
        if self._said_at is None or now - self._said_at >= ASK_AGAIN_S:
            gpu = gpu_of(self._device, gpus())
            self._said = gpu and DeviceMemory(gpu.name, gpu.memory_bytes, gpu.memory_bytes - gpu.used_bytes)
            self._said_at = now
