"""Which devices this machine has, found out without loading a tensor library."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from pipelines.machine import cpu_name, free_disk_bytes, has_int8, ram_bytes
from pipelines.plan import Device, numbers_of
from server.settings import visible_gpus

_MIB = 2**20
_ASKED = ("index", "uuid", "name", "memory.total", "memory.used", "compute_cap", "driver_version")


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it; memory in bytes."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    used_bytes: int
    capability: tuple[int, int]
    driver: str


def find_devices() -> tuple[str, ...]:
    """Return every GPU that can be used, as ``cuda:0`` and so on, or else ``cpu``."""
    count = 0 if torch_is_for_cpus() else _count_gpus()
    visible = visible_gpus()
    if visible is not None:
        count = min(count, len(visible))
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def describe(device: str) -> Device | None:
    """Return what a device has in all, whatever holds it now; None if the driver knows no such GPU."""
    if not device.startswith("cuda"):
        ram = ram_bytes()
        return Device(device, cpu_name(), ram, ram, free_disk_bytes(), None, numbers_of(None))
    gpu = gpu_of(device, gpus())
    if gpu is None:
        return None
    return Device(
        id=device,
        name=gpu.name,
        memory_bytes=gpu.memory_bytes,
        ram_bytes=ram_bytes(),
        disk_bytes=free_disk_bytes(),
        capability=gpu.capability,
        numbers=numbers_of(gpu.capability, int8=has_int8()),
    )


def first_device(names: Sequence[str] | None) -> Device | None:
    """Return what is to be said of the first of the devices that are named, or of this machine's."""
    return describe((names or find_devices())[0])


def gpu_of(device: str, found: Sequence[Gpu]) -> Gpu | None:
    """Return the GPU that PyTorch calls ``cuda:0`` and the like, given those that the driver has found."""
    number = int(device.partition(":")[2] or 0)
    visible = visible_gpus()
    if visible is None:
        return found[number] if number < len(found) else None
    if number >= len(visible):
        return None
    # CUDA takes the beginning of an identifier for the whole.
    name = visible[number]
    return next((gpu for gpu in found if str(gpu.index) == name or gpu.uuid.startswith(name)), None)


def gpus() -> tuple[Gpu, ...]:
    """Return every GPU that the driver knows, in its order."""
    rows = _ask([f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits"]) or ""
    found = (_gpu([field.strip() for field in row.split(",")]) for row in rows.splitlines())
    return tuple(gpu for gpu in found if gpu is not None)


def torch_is_for_cpus() -> bool:
    """Tell whether the PyTorch that is installed cannot use a GPU."""
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def _gpu(fields: list[str]) -> Gpu | None:
    try:
        index, uuid, name, total, used, capability, driver = fields
        major, minor = capability.split(".")
        return Gpu(int(index), uuid, name, int(total) * _MIB, int(used) * _MIB, (int(major), int(minor)), driver)
    except ValueError:
        # "[N/A]", where the driver is too old or the GPU shares the machine's memory.
        return None


def _count_gpus() -> int:
    return sum(line.startswith("GPU ") for line in (_ask(["-L"]) or "").splitlines())


def _ask(arguments: Sequence[str]) -> str | None:
    """Return what the driver's own tool answers, or None if there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        return subprocess.run(  # noqa: S603 - our own words
            [program, *arguments], capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
