"""Compiled blocks make the same clip, beneath whatever is hooked on them; where there is no compiler, so do others."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._functorch import config as functorch
from torch._inductor import config as inductor

from pipelines.accel import compiling
from pipelines.accel.compiling import Compilation
from pipelines.engine import generate
from pipelines.holdings import installed
from pipelines.plan import MemoryPlan, Offload, Quantisation
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import Frames, GenerationRequest, Lora
from pipelines.wish import Wish
from tests.pipelines.families.making import random_lora

CARD = load_registry().cards["homereel-mini"]
pytestmark = pytest.mark.skipif(not installed(CARD), reason="the embedded weights are not here")
REQUEST = CARD.resolve(Wish("a red ball on a green field", seconds=2, seed=3, num_inference_steps=3)).request
CPU = MemoryPlan("cpu")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Begin and end without compiled code, which a process keeps for all models."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace blocks as for the real compiler, which takes a minute, and run what was traced: equal to the bit."""
    monkeypatch.setattr(compiling, "_BACKEND", "eager")


def made(pipeline: Any, request: GenerationRequest = REQUEST) -> tuple[Frames, int]:
    """Return the frames, and how many graphs were compiled for them."""
    counters.clear()
    frames = np.concatenate(list(generate(pipeline, request, lambda _: None).chunks))
    return frames, counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "plan", [CPU, replace(CPU, offload=Offload.GROUP), replace(CPU, step_cache=0.1)], ids=["all", "blocks", "cached"]
)
def test_compiled_blocks_make_the_same_clip_whatever_is_hooked_on_them(plan: MemoryPlan) -> None:
    plain, compiled = load_pipeline(CARD, plan), load_pipeline(CARD, replace(plan, compiled=True))
    (expected, none), (frames, some), (again, more) = made(plain), made(compiled), made(compiled)
    assert (none, more) == (0, 0)
    assert some > 0
    assert (frames == expected).all()
    assert (again == expected).all()
    assert "compiled" in compiled.facts.keys() - plain.facts.keys()
    assert "compiled blocks" in replace(plan, compiled=True).describe()
    plain.close()
    compiled.close()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "plan",
    [replace(CPU, offload=Offload.SEQUENTIAL), replace(CPU, dtype="bfloat16", quantisation=Quantisation.FP8)],
    ids=["layers", "fp8"],
)
def test_blocks_between_whose_layers_something_happens_stay_as_they_are(plan: MemoryPlan) -> None:
    pipeline = load_pipeline(CARD, replace(plan, compiled=True))
    assert made(pipeline)[1] == 0
    assert "compiled" not in pipeline.facts
    assert "compiled" not in replace(plan, compiled=True).describe()
    pipeline.close()


@pytest.mark.usefixtures("quick")
def test_nothing_is_compiled_for_a_lora_and_what_was_is_not_compiled_again(tmp_path: Path) -> None:
    plain, compiled = load_pipeline(CARD, CPU), load_pipeline(CARD, replace(CPU, compiled=True))
    pipe: Any = plain._host.pipe  # pyright: ignore[reportAttributeAccessIssue]
    lora = Lora("mine", random_lora(pipe, pipe.transformer, ("to_q", "to_v"), tmp_path), 0.8)
    changed = replace(REQUEST, loras=(lora,))
    usual = made(compiled)[0]
    expected, (frames, graphs) = made(plain, changed)[0], made(compiled, changed)
    assert graphs == 0
    assert (frames == expected).all()
    assert (frames != usual).any()
    after, graphs = made(compiled)
    assert graphs == 0
    assert (after == usual).all()
    plain.close()
    compiled.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_without_a_compiler_the_clip_is_made_all_the_same_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    plain, compiled = load_pipeline(CARD, CPU), load_pipeline(CARD, replace(CPU, compiled=True))
    # Code that an earlier process compiled would do without one.
    nowhere = inductor.patch({"cpp.cxx": ("/nowhere/c++",), "fx_graph_cache": False})
    with nowhere, functorch.patch(enable_autograd_cache=False):
        frames, _ = made(compiled)
    assert (frames == made(plain)[0]).all()
    assert "compile_failed kind=LTXVideoTransformerBlock" in caplog.text
    assert "/nowhere/c++" in caplog.text
    assert caplog.text.count("compile_failed") == 1
    assert "compiled" not in compiled.facts
    plain.close()
    compiled.close()


def test_a_denoiser_whose_blocks_nobody_has_named_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    part, compilation = nn.Sequential(nn.Linear(2, 2)), Compilation()
    compilation.take(part)
    assert not compilation.works
    assert "compile_unavailable kind=Sequential" in caplog.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_what_the_compiler_makes_of_blocks_differs_in_rounding_alone() -> None:
    plain, compiled = load_pipeline(CARD, CPU), load_pipeline(CARD, replace(CPU, compiled=True))
    (expected, _), (frames, some) = made(plain), made(compiled)
    assert some > 0
    assert "compiled" in compiled.facts
    assert np.abs(frames.astype(int) - expected).max() <= 2
    plain.close()
    compiled.close()
