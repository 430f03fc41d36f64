from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines.types import GenerationRequest, Stage, VideoShape
from server.forecast import Span, line_up, predict
from server.timings import Timing

MakeRequest = Callable[..., GenerationRequest]
STAGE_S = {Stage.LOAD: 9.0, Stage.ENCODE: 0.5, Stage.DENOISE: 4.0, Stage.DECODE: 1.0, Stage.MUX: 0.5}


def timing(frames: int = 17, steps: int = 4, use: str = "create", peak: int = 10) -> Timing:
    shape = VideoShape(frames, 96, 160, 1)
    return Timing("mini", "cpu", use, shape, steps, STAGE_S, peak, 0.0)  # pyright: ignore[reportArgumentType]


def test_nothing_measured_nothing_predicted(make_request: MakeRequest) -> None:
    assert predict([], make_request()) is None


def test_the_same_again_takes_the_same_without_loading(make_request: MakeRequest) -> None:
    assert predict([timing(33, peak=20), timing()], make_request()) == (6.0, 10)


def test_time_grows_with_steps_and_frames(make_request: MakeRequest) -> None:
    twice = predict([timing()], make_request(shape=VideoShape(34, 96, 160, 8), num_inference_steps=8))
    assert twice is not None
    assert twice.seconds == pytest.approx(0.5 + 16.0 + 2.0 + 1.0)


def test_a_step_at_half_the_size_takes_a_quarter_of_the_time(make_request: MakeRequest) -> None:
    """Four at the whole size took four seconds: eight at half of it take two, and three at the whole take three."""
    staged = predict([timing()], make_request(shape=VideoShape(17, 96, 160, 8), num_inference_steps=8, refine_steps=3))
    assert staged is not None
    assert staged.seconds == pytest.approx(0.5 + 5.0 + 1.0 + 0.5)


def test_a_clip_of_the_same_kind_counts_first(make_request: MakeRequest) -> None:
    assert predict([timing(17, use="edit", peak=99), timing(33, peak=20)], make_request()) is not None
    assert predict([timing(17, use="edit", peak=99), timing(33, peak=20)], make_request())[1] == 20  # type: ignore[index]


@pytest.mark.parametrize(
    ("running", "waiting", "workers", "expected"),
    [
        ([], [], 1, []),
        ([], [3.0], 1, [Span(0, 3)]),
        ([2.0], [3.0, 1.0], 1, [Span(2, 5), Span(5, 6)]),
        ([2.0], [3.0, 1.0], 2, [Span(0, 3), Span(2, 3)]),
        ([None], [3.0], 1, [None]),
        ([2.0], [None, 1.0], 1, [None, None]),
        ([], [3.0], 0, [None]),
    ],
)
def test_whoever_waits_is_told_a_time_if_it_is_known(
    running: list[float | None], waiting: list[float | None], workers: int, expected: list[Span | None]
) -> None:
    assert line_up(running, waiting, workers) == expected
