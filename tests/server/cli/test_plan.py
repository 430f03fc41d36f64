"""``homereel plan``: what it computes of a GPU that need not be here, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pipelines.card import ModelCard
from pipelines.needs import GIB, typical_request
from pipelines.registry import Registry
from pipelines.weights import Component, Weights
from server.cli import plan
from server.cli.plan import report
from server.devices import describe

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def large(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> ModelCard:
    """The small model's card with weights of 4 GB that encode, 20 that denoise and 1 that decodes."""
    parts = {
        "text_encoder": Component(params=2 * 10**9, stage="encode"),
        "transformer": Component(params=10 * 10**9, stage="denoise"),
        "vae": Component(params=500 * 10**6, stage="decode"),
    }
    weights = Weights(repo="some/model", revision="1", components=parts)
    large = card.model_copy(update={"id": "large", "weights": weights})
    monkeypatch.setattr(plan, "registry", lambda: Registry({"large": large}, {"sora-2": ("gone", "large")}))
    return large


def body(printed: str) -> dict[str, Any]:
    return json.loads(printed)


def test_a_gpu_that_is_not_here_can_be_planned_for(large: ModelCard, homereel: Run) -> None:
    status, printed, _ = homereel("plan", "large", "--vram", "24GB", "--ram", "64 gb", "--json")
    found = body(printed)
    assert status == 0
    assert found["fits"] is True
    assert (found["plan"]["dtype"], found["plan"]["offload"]) == ("bfloat16", "model")
    assert found["device"]["memory_bytes"] == 24 * GIB
    assert found["device"]["ram_bytes"] == 64 * GIB
    assert found["stages"]["denoise"]["weights"] == 20 * 10**9
    assert found["passed_over"][0]["plan"] == "bfloat16, all on the device"
    assert "of 24.0 GiB on cuda:0" in found["passed_over"][0]["lacks"]


def test_the_table_says_what_was_chosen_and_why(large: ModelCard, homereel: Run) -> None:
    status, printed, _ = homereel("plan", "sora-2", "--vram", "24GB", "--ram", "64GB")
    lines = printed.splitlines()
    assert status == 0
    assert lines[0].startswith("large")
    assert "tokens per clip" in lines[1]
    assert "runs with bfloat16, model offload" in lines
    assert any(line.split()[:2] == ["denoise", "18.6"] for line in lines)
    assert any(line.startswith("  bfloat16, all on the device: ") for line in lines)


def test_what_does_not_fit_fails_and_says_what_is_missing(large: ModelCard, homereel: Run) -> None:
    status, printed, _ = homereel("plan", "large", "--vram", "1.2GB", "--ram", "64GB", "--json")
    found = body(printed)
    assert status == 1
    assert found["fits"] is False
    assert "Nor does its smallest clip" in found["refusal"]
    status, printed, _ = homereel("plan", "large", "--vram", "1.2GB", "--ram", "64GB")
    assert status == 1
    assert "does not fit on cuda:0" in printed
    assert "tried:" in printed


def test_size_and_length_are_the_cards_to_judge(large: ModelCard, homereel: Run) -> None:
    _, printed, _ = homereel("plan", "large", "--size", "96x160", "--seconds", "8", "--vram", "80GB", "--json")
    found = body(printed)
    assert (found["size"], found["num_frames"], found["windows"]) == ("96x160", 64, 3)
    status, _, complaint = homereel("plan", "large", "--size", "1000x100", "--vram", "80GB")
    assert (status, "too far from these proportions" in complaint) == (2, True)


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "no-such-model"),
        ("plan", "large", "--vram", "much"),
        ("plan", "large", "--vram", "0GB"),
        ("plan", "large", "--size", "big"),
        ("plan", "large", "--device", "tpu:0"),
        ("plan",),
    ],
)
def test_misuse_is_told(large: ModelCard, homereel: Run, words: tuple[str, ...]) -> None:
    status, printed, complaint = homereel(*words)
    assert (status, printed) == (2, "")
    assert complaint


def test_a_gpu_that_is_not_here_has_to_be_described(
    large: ModelCard, homereel: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "describe", lambda device: None)
    status, _, complaint = homereel("plan", "large", "--device", "cuda:5")
    assert (status, "--vram 24GB" in complaint) == (1, True)


def test_this_machine_is_planned_for_by_default(large: ModelCard, homereel: Run) -> None:
    _, printed, _ = homereel("plan", "large", "--ram", "500GB", "--device", "cpu", "--json")
    found = body(printed)
    assert (found["device"]["id"], found["plan"]["dtype"], found["fits"]) == ("cpu", "float32", True)


def test_plans_that_would_not_have_helped_are_not_listed(large: ModelCard) -> None:
    device = describe("cpu")
    assert device is not None
    small = replace(device, memory_bytes=30 * GIB, ram_bytes=30 * GIB)
    # Tiles bring this model nothing: its peak is elsewhere.
    assert [passed.plan for passed in report(large, typical_request(large), small).passed] == [
        "float32, all on the device"
    ]
