"""How much memory a device has: asked of whoever knows, and no oftener than it costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import machine
from server.devices import Gpu
from server.gauge import ASK_AGAIN_S, Gauge
from server.loaded import DeviceMemory
from tests.conftest import Clock

GIB = 2**30


class Driver:
    """Stands for the driver's tool; ``used`` is what others hold."""

    def __init__(self) -> None:
        self.used = 0
        self.asked = 0
        self.is_there = True

    def gpus(self) -> tuple[Gpu, ...]:
        self.asked += 1
        return (Gpu(0, "GPU-1", "H100", 80 * GIB, self.used, (9, 0), "580"),) if self.is_there else ()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr("server.gauge.gpus", driver.gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


def test_a_gpu_without_a_model_is_asked_for_by_its_driver_now_and_then(driver: Driver, clock: Clock) -> None:
    gauge = Gauge("cuda:0", lambda: None, clock)
    assert gauge.read() == DeviceMemory("H100", 80 * GIB, 80 * GIB)
    driver.used = 30 * GIB
    clock.advance(ASK_AGAIN_S - 1)
    assert gauge.read() == DeviceMemory("H100", 80 * GIB, 80 * GIB)
    clock.advance(1)
    assert gauge.read() == DeviceMemory("H100", 80 * GIB, 50 * GIB)
    assert driver.asked == 2


def test_once_there_is_a_model_the_library_says_it_every_time(driver: Driver, clock: Clock) -> None:
    said = iter([(70 * GIB, 79 * GIB), (60 * GIB, 79 * GIB)])
    gauge = Gauge("cuda:0", lambda: next(said), clock)
    assert gauge.read() == DeviceMemory("H100", 79 * GIB, 70 * GIB)
    clock.advance(ASK_AGAIN_S)
    assert gauge.read() == DeviceMemory("H100", 79 * GIB, 60 * GIB)
    assert driver.asked == 1


def test_a_gpu_that_nobody_knows_of_has_no_memory_to_speak_of(driver: Driver, clock: Clock) -> None:
    driver.is_there = False
    gauge = Gauge("cuda:0", lambda: None, clock)
    assert (gauge.read(), gauge.read(), driver.asked) == (None, None, 1)
    # Such as one that shares the machine's memory, of which its driver says nothing.
    assert Gauge("cuda:0", lambda: (1, 2), clock).read() == DeviceMemory("cuda:0", 2, 1)


def test_a_device_in_trouble_stops_no_sign_of_life(driver: Driver, clock: Clock) -> None:
    def measure() -> tuple[int, int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert Gauge("cuda:0", measure, clock).read() == DeviceMemory("H100", 80 * GIB, 80 * GIB)


def test_a_cpu_has_the_machines_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {40 * 2**20} kB\n")
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: AMD  EPYC 9354\n")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine, "_CGROUPS", ())
    assert Gauge("cpu", lambda: None).read() == DeviceMemory("AMD EPYC 9354", 64 * GIB, 40 * GIB)
