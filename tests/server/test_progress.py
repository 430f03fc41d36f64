"""Percentages rise and say what is left, estimates come from what was measured."""

from __future__ import annotations

import pytest

from pipelines.types import Progress, Stage
from server.progress import Meter

TOOK = {Stage.ENCODE: 1.0, Stage.DENOISE: 6.0, Stage.DECODE: 2.0, Stage.MUX: 1.0}


def whole_job(*, steps: int = 20) -> list[Progress]:
    """Return every report of a job, in order."""
    return [
        *(Progress(Stage.LOAD, step, 1) for step in (0, 1)),
        *(Progress(Stage.ENCODE, step, 1) for step in (0, 1)),
        *(Progress(Stage.DENOISE, step, steps) for step in range(steps + 1)),
        *(Progress(Stage.DECODE, frame, 17) for frame in (0, 1, 9, 17)),
        *(Progress(Stage.MUX, step, 1) for step in (0, 1)),
    ]


@pytest.mark.parametrize("expected", [None, TOOK, {**TOOK, Stage.LOAD: 30.0}, dict.fromkeys(TOOK, 0.0)])
def test_percentages_never_fall_and_leave_100_to_the_end(expected: dict[Stage, float] | None) -> None:
    meter = Meter(expected, loads=True)
    percents = [meter.update(progress, float(second)).percent for second, progress in enumerate(whole_job())]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] <= 99


def test_percentages_follow_what_stages_have_taken() -> None:
    meter = Meter(TOOK, loads=False)
    assert meter.update(Progress(Stage.ENCODE, 1, 1), 1.0).percent == 10
    assert meter.update(Progress(Stage.DENOISE, 10, 20), 4.0).percent == 40
    assert meter.update(Progress(Stage.DENOISE, 20, 20), 7.0).percent == 70
    assert meter.update(Progress(Stage.DECODE, 17, 17), 9.0).percent == 90


def test_stages_that_take_turns_add_up() -> None:
    """A clip in two windows: half of the steps, half of the frames, and so again."""
    meter = Meter(TOOK, loads=False)
    seen = [
        meter.update(Progress(Stage.DENOISE, 0, 40), 1.0),
        meter.update(Progress(Stage.DENOISE, 20, 40), 4.0),
        meter.update(Progress(Stage.DECODE, 0, 32), 4.0),
        meter.update(Progress(Stage.DECODE, 16, 32), 5.0),
        meter.update(Progress(Stage.DENOISE, 40, 40), 8.0),
        meter.update(Progress(Stage.DECODE, 32, 32), 9.0),
    ]
    assert [progress.percent for progress in seen] == [10, 40, 40, 50, 80, 90]
    # Seconds left: what the stage still needs at its pace, and the shares of the others that are not done.
    assert [progress.eta_s for progress in seen[1:4]] == [pytest.approx(s) for s in (6.0, 6.0, 5.0)]


def test_the_estimate_adds_learned_stages_to_the_pace_of_this_one() -> None:
    meter = Meter(TOOK, loads=False)
    assert meter.update(Progress(Stage.DENOISE, 0, 20), 100.0).eta_s == pytest.approx(9.0)
    # Half the steps took 5 s, so the others will: this clip is slower than the last one.
    assert meter.update(Progress(Stage.DENOISE, 10, 20), 105.0).eta_s == pytest.approx(5.0 + 3.0)
    meter.update(Progress(Stage.DENOISE, 20, 20), 110.0)
    meter.update(Progress(Stage.DECODE, 17, 17), 112.0)
    assert meter.update(Progress(Stage.MUX, 0, 1), 112.0).eta_s == pytest.approx(1.0)


def test_a_first_job_is_estimated_from_its_steps_alone() -> None:
    meter = Meter(None, loads=True)
    assert meter.update(Progress(Stage.LOAD, 1, 1), 5.0).eta_s is None
    assert meter.update(Progress(Stage.DENOISE, 0, 20), 6.0).eta_s is None
    estimate = meter.update(Progress(Stage.DENOISE, 10, 20), 16.0).eta_s
    assert estimate is not None
    assert 10.0 < estimate < 20.0


def test_stages_are_timed() -> None:
    meter = Meter(None, loads=False)
    for progress, now in [
        (Progress(Stage.ENCODE, 0, 1), 10.0),
        (Progress(Stage.ENCODE, 1, 1), 11.0),
        (Progress(Stage.DENOISE, 0, 2), 11.0),
        (Progress(Stage.DENOISE, 2, 2), 14.0),
        (Progress(Stage.MUX, 0, 1), 14.5),
    ]:
        meter.update(progress, now)
    assert meter.finish(15.0) == {Stage.ENCODE: 1.0, Stage.DENOISE: 3.5, Stage.MUX: 0.5}
