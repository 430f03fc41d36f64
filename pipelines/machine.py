"""The machine's memory and disk, as far as a process may use them. Asks the operating system alone."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
# What a container may use: of the second and of the first version of control groups.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def cpu_name() -> str:
    """Return what the processor is called, or just "CPU"."""
    with suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    return platform.processor() or "CPU"


def ram_bytes() -> int:
    """Return all memory of the machine, or of the container that this runs in."""
    return min([_meminfo("MemTotal") or _pages(), *(limit for limit, _ in _limits())])


def free_ram_bytes() -> int:
    """Return the memory that can still be had. What the disk's cache holds can."""
    left = (limit - used for limit, used in _limits())
    return max(0, min([_meminfo("MemAvailable") or ram_bytes(), *left]))


def free_disk_bytes(folder: Path | None = None) -> int:
    """Return what is free where ``folder`` is or would be; by default where temporary files go."""
    place = (folder or Path(tempfile.gettempdir())).absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    return shutil.disk_usage(there).free


def has_int8() -> bool:
    """Tell whether the package that stores weights in int8 is installed."""
    return find_spec("torchao") is not None


def _meminfo(key: str) -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _pages() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits() -> Iterator[tuple[int, int]]:
    """Yield limit and use of the control group, if it has a limit."""
    for limit, used in _CGROUPS:
        try:
            yield int(limit.read_text()), int(used.read_text())
        except (OSError, ValueError):
            # No such file, or the word "max".
            continue
