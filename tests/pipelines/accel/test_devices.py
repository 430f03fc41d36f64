"""What PyTorch says of a device: here of the CPU, and of a GPU that is played."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pipelines.accel.devices import probe
from pipelines.needs import CONTEXT_BYTES, GIB


def test_a_cpu_offers_what_is_free() -> None:
    device = probe("cpu")
    assert device.memory_bytes == device.ram_bytes > 0
    assert (device.is_gpu, device.numbers) == (False, {"float32", "bfloat16"})


def test_what_other_processes_hold_of_a_gpu_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="played", major=8, minor=6)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * GIB)
    device = probe("cuda:1")
    assert (device.id, device.name, device.capability) == ("cuda:1", "played", (8, 6))
    assert device.memory_bytes == 13 * GIB + CONTEXT_BYTES
