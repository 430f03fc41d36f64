"""The devices of this machine, as the driver's own tool lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import machine
from server import devices
from server.devices import describe, find_devices, gpu_of, gpus

LISTING = """\
0, GPU-aaaa1111, NVIDIA GeForce RTX 4090, 24564, 512, 8.9, 580.95
1, GPU-bbbb2222, Tesla T4, 15360, 0, 7.5, 580.95
2, GPU-cccc3333, NVIDIA GB10, [N/A], [N/A], 12.1, 580.95
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tool that lists three GPUs, one of which does not say how much memory it has."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tool


@pytest.mark.parametrize(
    ("torch", "gpus", "visible", "found"),
    [
        ("2.13.0", 0, None, ("cpu",)),
        ("2.13.0", 2, None, ("cuda:0", "cuda:1")),
        ("2.13.0", 2, ("1",), ("cuda:0",)),
        ("2.13.0", 2, (), ("cpu",)),
        ("2.13.0+cpu", 2, None, ("cpu",)),
    ],
)
def test_devices(
    monkeypatch: pytest.MonkeyPatch, torch: str, gpus: int, visible: tuple[str, ...] | None, found: tuple[str, ...]
) -> None:
    monkeypatch.setattr(devices, "version", {"torch": torch}.__getitem__)
    monkeypatch.setattr(devices, "_count_gpus", lambda: gpus)
    monkeypatch.setattr(devices, "visible_gpus", lambda: visible)
    assert find_devices() == found


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-1)'; echo '  MIG 1g.10gb Device 0'; echo 'GPU 1: NVIDIA H100'", 2),
        ("echo 'NVIDIA-SMI has failed'; exit 9", 0),
    ],
)
def test_gpus_are_counted_by_the_drivers_own_tool(
    monkeypatch: pytest.MonkeyPatch, driver: Path, script: str, count: int
) -> None:
    driver.write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setattr(devices, "version", {"torch": "2.13.0"}.__getitem__)
    assert find_devices() == (tuple(f"cuda:{i}" for i in range(count)) or ("cpu",))


def test_a_gpu_is_described_as_its_driver_does(driver: Path) -> None:
    device = describe("cuda:0")
    assert device is not None
    assert (device.name, device.memory_bytes, device.capability) == (
        "NVIDIA GeForce RTX 4090",
        24564 * 2**20,
        (8, 9),
    )
    assert "bfloat16" in device.numbers
    assert device.ram_bytes == machine.ram_bytes() > 0


def test_an_older_gpu_has_fewer_numbers(driver: Path) -> None:
    device = describe("cuda:1")
    assert device is not None
    assert device.numbers & {"bfloat16", "fp8", "float16"} == {"float16"}


def test_what_is_not_there_is_not_described(driver: Path) -> None:
    assert describe("cuda:7") is None
    driver.unlink()
    assert describe("cuda:0") is None


def test_a_cpu_has_the_machines_memory() -> None:
    device = describe("cpu")
    assert device is not None
    assert (device.memory_bytes, device.is_gpu) == (machine.ram_bytes(), False)


@pytest.mark.parametrize(
    ("visible", "device", "uuid"),
    [
        (None, "cuda:1", "GPU-bbbb2222"),
        (None, "cuda", "GPU-aaaa1111"),
        ("1", "cuda:0", "GPU-bbbb2222"),
        ("1,0", "cuda:1", "GPU-aaaa1111"),
        ("GPU-bbbb", "cuda:0", "GPU-bbbb2222"),
        ("1", "cuda:1", None),
        ("", "cuda:0", None),
    ],
)
def test_a_device_is_counted_among_the_visible_ones(
    driver: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, device: str, uuid: str | None
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpu = gpu_of(device, gpus())
    assert (gpu and gpu.uuid) == uuid
