"""What PyTorch says of itself, for those who do not load it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from pipelines.accel import about


def test_a_build_for_cpus_says_so() -> None:
    said = about.about()
    assert said["torch"] == torch.__version__
    assert said["cuda"] == torch.version.cuda
    assert len(said["gpus"]) == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_a_gpu_that_fails_is_told_of_beside_one_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(index: int) -> SimpleNamespace:
        if index == 1:
            raise RuntimeError("CUDA error: device is lost\nand more")
        return SimpleNamespace(name="played", major=9, minor=0)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_90"])
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1, 2))
    monkeypatch.setattr(about, "usable", lambda device, dtype, candidates: ["native"])
    working, lost = about.about()["gpus"]
    assert (working["capability"], working["free_bytes"], working["attention"]) == ([9, 0], 1, ["native"])
    assert lost == {"name": "cuda:1", "error": "CUDA error: device is lost"}
