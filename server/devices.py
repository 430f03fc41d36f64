"""Which devices this machine has, found out without loading a tensor library."""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

from server.settings import visible_gpus


def find_devices() -> tuple[str, ...]:
    """Return every GPU that can be used, as ``cuda:0`` and so on, or else ``cpu``."""
    count = 0 if _torch_is_for_cpus() else _count_gpus()
    visible = visible_gpus()
    if visible is not None:
        count = min(count, visible)
    return tuple(f"cuda:{index}" for index in range(count)) or ("cpu",)


def _torch_is_for_cpus() -> bool:
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def _count_gpus() -> int:
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - our own words
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
