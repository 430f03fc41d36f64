"""What a worker has to run on, asked of PyTorch and of the machine."""

from __future__ import annotations

import ctypes
import gc
import logging

import torch

from pipelines.accel.attention import EXACT, NATIVE, usable
from pipelines.machine import cpu_name, free_disk_bytes, free_ram_bytes, has_int8, ram_bytes
from pipelines.needs import CONTEXT_BYTES
from pipelines.plan import Device, numbers_of
from pipelines.types import DType

_log = logging.getLogger(__name__)


def probe(device: str) -> Device:
    """Return what can be used of a device now. Best asked before anything is loaded onto it.

    What other processes hold is not there to be planned with.
    """
    if not device.startswith("cuda"):
        free = free_ram_bytes()
        return Device(device, cpu_name(), free, free, free_disk_bytes(), None, numbers_of(None))
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    # Asking has made the context, which plans count themselves.
    usable = min(total, free + torch.cuda.memory_reserved(device) + CONTEXT_BYTES)
    capability = (properties.major, properties.minor)
    return Device(
        id=device,
        name=properties.name,
        memory_bytes=usable,
        ram_bytes=min(ram_bytes(), free_ram_bytes()),
        disk_bytes=free_disk_bytes(),
        capability=capability,
        numbers=numbers_of(capability, int8=has_int8()),
    )


def measure(device: str) -> tuple[int, int]:
    """Return free and total bytes of a GPU's memory, whoever holds the rest. Any thread may ask."""
    return torch.cuda.mem_get_info(device)


def release(device: str) -> None:
    """Give the memory of models that are gone back to the device and to the machine; both libraries keep it else."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def attention_for(device: str, dtype: DType, wanted: str | None = None) -> str:
    """Return the attention kernel to use: ``wanted`` if it works here, else the fastest that does and does not round.

    Kernels are tried by running them, once for a process.
    """
    number = getattr(torch, dtype)
    if wanted is not None and wanted not in usable(device, number, [wanted]):
        _log.warning("attention_not_usable kernel=%s device=%s dtype=%s", wanted, device, dtype)
        wanted = None
    return wanted or next(iter(usable(device, number, EXACT)), NATIVE)
