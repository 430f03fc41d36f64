"""How far a job is and how long it will take, from what earlier ones took. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.types import Progress, Stage
from server.jobs import JobProgress

# Shares of the time before anything has been measured.
_GUESS = {Stage.LOAD: 10.0, Stage.ENCODE: 2.0, Stage.DENOISE: 70.0, Stage.DECODE: 14.0, Stage.MUX: 4.0}
# Stages long enough to tell from their steps how fast this machine is.
_TELLING = frozenset({Stage.DENOISE, Stage.DECODE})


class Meter:
    """Follows one job through its stages, which may take turns: a long clip is denoised and decoded piece by piece.

    Percentages never fall, and reach 100 only when the job is completed.
    """

    def __init__(self, expected_s: Mapping[Stage, float] | None, *, loads: bool) -> None:
        """Start before the first stage; ``expected_s`` is what such a job took before."""
        guess = {stage: share for stage, share in _GUESS.items() if loads or stage is not Stage.LOAD}
        self._learned = expected_s is not None
        self._weights = dict(guess if expected_s is None else {stage: expected_s.get(stage, 0.0) for stage in guess})
        self._stage: Stage | None = None
        self._stage_began = 0.0
        self._stage_s: dict[Stage, float] = {}
        self._share: dict[Stage, float] = {}
        self._percent = 0

    def update(self, progress: Progress, now: float) -> JobProgress:
        """Note that a step is done at ``now`` (seconds of a clock that never goes back)."""
        if progress.stage is not self._stage:
            self._close_stage(now)
            self._stage, self._stage_began = progress.stage, now
        stage, step, total = progress
        self._share[stage] = step / total if total else 0.0
        done = sum(weight * self._done(s, stage) for s, weight in self._weights.items())
        whole = sum(self._weights.values())
        self._percent = max(self._percent, min(99, int(100 * done / whole) if whole else 0))
        return JobProgress(stage, step, total, self._percent, self._eta_s(stage, now))

    def finish(self, now: float) -> Mapping[Stage, float]:
        """Return the seconds that each stage took; the last one ends at ``now``."""
        self._close_stage(now)
        self._stage = None
        return dict(self._stage_s)

    def _close_stage(self, now: float) -> None:
        if self._stage is not None:
            self._stage_s[self._stage] = self._stage_s.get(self._stage, 0.0) + now - self._stage_began

    def _done(self, stage: Stage, now_at: Stage) -> float:
        """Return the share of a stage that is done; one of which nothing was heard is so if a later one has begun."""
        return self._share.get(stage, 1.0 if _comes_before(stage, now_at) else 0.0)

    def _eta_s(self, stage: Stage, now: float) -> float | None:
        share, expected = self._share[stage], self._weights.get(stage, 0.0)
        others = sum(w * (1 - self._done(s, stage)) for s, w in self._weights.items() if s is not stage)
        if share == 0.0:
            return expected + others if self._learned else None
        took = self._stage_s.get(stage, 0.0) + now - self._stage_began
        left = took / share - took
        if self._learned:
            return left + others
        if stage not in _TELLING or not expected:
            return None
        return left + others * (took / share) / expected


def _comes_before(one: Stage, other: Stage) -> bool:
    order = list(Stage)
    return order.index(one) < order.index(other)
