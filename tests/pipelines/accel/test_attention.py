"""Attention kernels are known by what they do: here, by what a CPU can run."""

from __future__ import annotations

import logging

import pytest
import torch

from pipelines.accel.attention import NATIVE, usable
from pipelines.accel.devices import attention_for


def test_what_runs_and_is_right_is_usable(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        # The first two want a GPU or a package; the third runs here, but hides nothing from anybody.
        found = usable("cpu", torch.float32, ["_native_cudnn", "sage", "_native_flash", "no-such-kernel", NATIVE])
    assert found == [NATIVE]
    assert caplog.text.count("attention_unusable") == 4


def test_a_kernel_that_is_wrong_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(query: torch.Tensor, *_others: object, **_more: object) -> torch.Tensor:
        return query

    monkeypatch.setattr("pipelines.accel.attention.dispatch_attention_fn", wrong)
    assert usable("cpu", torch.float32, [NATIVE]) == []


@pytest.mark.parametrize("wanted", [None, NATIVE, "_native_math", "sage"])
def test_who_asks_for_a_kernel_gets_it_if_it_works(wanted: str | None) -> None:
    expected = wanted if wanted == "_native_math" else NATIVE
    assert attention_for("cpu", "float32", wanted) == expected
