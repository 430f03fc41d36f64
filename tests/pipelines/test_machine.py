"""Memory that a process may use: the machine's, unless its container has less."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import machine

GIB = 2**30


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal:  {64 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {40 * 2**20} kB\n")
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(machine, "_MEMINFO", meminfo)
    monkeypatch.setattr(machine, "_CGROUPS", ((limit, used), (tmp_path / "none", tmp_path / "none")))
    return limit, used


@pytest.mark.parametrize(
    ("limit", "total_gib", "free_gib"), [(None, 64, 40), ("max", 64, 40), (str(16 * GIB), 16, 12), (str(3 * GIB), 3, 0)]
)
def test_a_container_has_what_it_is_given(
    group: tuple[Path, Path], limit: str | None, total_gib: int, free_gib: int
) -> None:
    if limit is not None:
        group[0].write_text(f"{limit}\n")
        group[1].write_text(f"{4 * GIB}\n")
    assert machine.ram_bytes() == total_gib * GIB
    assert machine.free_ram_bytes() == free_gib * GIB


def test_a_machine_without_proc_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "none")
    assert 0 < machine.free_ram_bytes() <= machine.ram_bytes()


def test_a_folder_that_is_not_there_yet_has_the_space_of_its_parent(tmp_path: Path) -> None:
    assert machine.free_disk_bytes(tmp_path / "not" / "yet") > 0
