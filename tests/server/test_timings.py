"""What jobs took is kept for the next ones, and for nothing but the same kind of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.types import GenerationRequest, SourceClip, Stage, VideoShape
from server.timings import TimingStore, expected_s

if TYPE_CHECKING:
    from server.store import JobStore
    from tests.conftest import Clock

TOOK = {Stage.ENCODE: 1.0, Stage.DENOISE: 6.0, Stage.DECODE: 2.0, Stage.MUX: 1.0}


@pytest.fixture
def timings(store: JobStore, clock: Clock) -> TimingStore:
    return TimingStore(store.engine, clock)


@pytest.fixture
def request_(make_request: Callable[..., GenerationRequest]) -> GenerationRequest:
    return make_request()


def test_only_the_same_kind_of_job_is_expected_to_take_as_long(
    timings: TimingStore, request_: GenerationRequest
) -> None:
    timings.learn("mini", "cpu", request_, stage_s=TOOK, peak=10**10)
    known = timings.of("mini", "cpu")
    assert expected_s(known, replace(request_, prompt="another", seed=9), loads=False) == TOOK
    source = SourceClip(Path("a.mp4"), request_.shape, "edit")
    others = [
        replace(request_, num_inference_steps=9),
        replace(request_, shape=VideoShape(33, 96, 160, 8)),
        replace(request_, source=source),
    ]
    assert [expected_s(known, other, loads=False) for other in others] == [None, None, None]
    assert timings.of("maxi") == timings.of("mini", "cuda:0") == ()


def test_loading_is_expected_once_it_has_been_seen_and_stays_known(
    timings: TimingStore, request_: GenerationRequest
) -> None:
    timings.learn("mini", "cpu", request_, stage_s=TOOK, peak=1)
    assert expected_s(timings.of("mini"), request_, loads=True) is None
    timings.learn("mini", "cpu", request_, stage_s={**TOOK, Stage.LOAD: 7.0}, peak=1)
    timings.learn("mini", "cpu", request_, stage_s=TOOK, peak=1)
    assert expected_s(timings.of("mini"), request_, loads=True) == {Stage.LOAD: 7.0, **TOOK}
    assert expected_s(timings.of("mini"), request_, loads=False) == TOOK


def test_the_latest_of_its_kind_counts_and_comes_first(
    timings: TimingStore, request_: GenerationRequest, clock: Clock
) -> None:
    other = replace(request_, num_inference_steps=50)
    timings.learn("mini", "cpu", request_, stage_s=TOOK, peak=1)
    clock.advance(1)
    timings.learn("mini", "cpu", other, stage_s=TOOK, peak=2)
    clock.advance(1)
    timings.learn("mini", "cpu", request_, stage_s={**TOOK, Stage.MUX: 3.0}, peak=3)
    known = timings.of("mini")
    assert [(t.steps, t.peak_memory_bytes, t.stage_s[Stage.MUX]) for t in known] == [(4, 3, 3.0), (50, 2, 1.0)]
    assert known[0].updated_at == clock()
