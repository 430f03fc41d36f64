"""A step cache spares blocks and says so; the same seed still gives the same frames, and nothing is left behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

from pipelines.accel import compiling, step_cache
from pipelines.engine import generate
from pipelines.errors import Cancelled
from pipelines.holdings import installed
from pipelines.plan import MemoryPlan, Offload
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import Frames, GenerationRequest, Given, Progress, SourceClip, Stage, VideoShape
from pipelines.wish import Wish

CARD = load_registry().cards["homereel-mini"]
pytestmark = pytest.mark.skipif(not installed(CARD), reason="the embedded weights are not here")
REQUEST = CARD.resolve(Wish("a red ball on a green field", seconds=2, seed=3, num_inference_steps=8)).request


def made(pipeline: Any, request: GenerationRequest = REQUEST) -> tuple[Frames, int]:
    """Return the frames, and how often the last block was computed."""
    calls: list[int] = []
    block = pipeline._host.pipe.transformer.transformer_blocks[-1]
    hook = block.ff.register_forward_hook(lambda *_: calls.append(1))
    frames = np.concatenate(list(generate(pipeline, request, lambda _: None).chunks))
    hook.remove()
    return frames, len(calls)


def test_blocks_are_spared_and_the_result_says_so() -> None:
    plain, cached = load_pipeline(CARD, MemoryPlan("cpu")), load_pipeline(CARD, MemoryPlan("cpu", step_cache=0.3))
    (whole, all_calls), (quick, some_calls) = made(plain), made(cached)
    assert 0 < some_calls < all_calls
    assert (whole != quick).any()
    error = ((whole.astype(float) - quick.astype(float)) / 255) ** 2
    assert -10 * np.log10(error.mean()) > 15
    assert (cached.facts["step_cache"], "step_cache" in plain.facts) == ("0.3", False)
    assert "step cache 0.3 (lossy)" in MemoryPlan("cpu", step_cache=0.3).describe()

    # Nothing of a clip that was cancelled, or made before, is in the next one.
    def stop(progress: Progress) -> None:
        if progress == Progress(Stage.DENOISE, 3, 8):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        generate(cached, REQUEST, stop)
    assert (made(cached)[0] == quick).all()
    plain.close()
    cached.close()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loaded_model_turns_it_on_and_off_between_clips(monkeypatch: pytest.MonkeyPatch, *, compiled: bool) -> None:
    monkeypatch.setattr(compiling, "_BACKEND", "eager")
    plan, lossy = MemoryPlan("cpu", compiled=compiled), MemoryPlan("cpu", compiled=compiled, step_cache=0.3)
    assert plan.placement == lossy.placement
    pipeline, other = load_pipeline(CARD, plan), load_pipeline(CARD, lossy)
    usual, saved = made(pipeline)[0], made(other)[0]
    for turn in (lossy, plan, replace(lossy, step_cache=0.1), lossy):
        pipeline.adopt(turn)
        frames = made(pipeline)[0]
        assert pipeline.facts.get("step_cache") == (f"{turn.step_cache:g}" if turn.step_cache else None)
        assert (frames == usual).all() == (turn is plan)
        assert (frames == saved).all() == (turn is lossy)
    pipeline.close()
    other.close()


def test_where_blocks_come_one_by_one_it_takes_another_loading() -> None:
    streamed = MemoryPlan("cpu", offload=Offload.GROUP)
    assert streamed.placement != replace(streamed, step_cache=0.3).placement


def test_what_cannot_be_cached_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    part = AutoencoderKLWan(base_dim=3, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False])
    assert step_cache.enable(part, 0.1) is False
    assert "step_cache_unavailable" in caplog.text
    with step_cache.stream(part, "edit"):
        pass


def test_an_edit_works_with_it() -> None:
    cached = load_pipeline(CARD, MemoryPlan("cpu", step_cache=0.1))
    shape = VideoShape(17, 96, 160, 8)
    source = SourceClip(Path("unread.mp4"), shape, "edit", "a red ball")
    request = CARD.resolve(Wish("a blue ball", seed=3, num_inference_steps=3, source=source)).request
    given = Given(edited=np.zeros((17, 96, 160, 3), np.uint8))
    once, again = (cached.denoise(request, cached.encode(request), given, lambda _: None) for _ in range(2))
    assert torch.equal(once.latents, again.latents)
    cached.close()
