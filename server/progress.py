"""How far a job is and how long it will take, from what earlier ones took. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.types import GenerationRequest, Progress, Stage, VideoShape
from server.jobs import JobProgress

# Shares of the time before anything has been measured.
_GUESS = {Stage.LOAD: 10.0, Stage.ENCODE: 2.0, Stage.DENOISE: 70.0, Stage.DECODE: 14.0, Stage.MUX: 4.0}
# Stages long enough to tell from their steps how fast this machine is.
_TELLING = frozenset({Stage.DENOISE, Stage.DECODE})


@dataclass
class StageTimes:
    """What the stages took on this device, by what decides it: the card, the shape and the number of steps."""

    _load_s: dict[str, float] = field(default_factory=dict[str, float])
    _stage_s: dict[tuple[str, VideoShape, int], Mapping[Stage, float]] = field(
        default_factory=dict[tuple[str, VideoShape, int], Mapping[Stage, float]]
    )

    def learn(self, card: str, request: GenerationRequest, stage_s: Mapping[Stage, float]) -> None:
        """Remember what a finished job took."""
        if Stage.LOAD in stage_s:
            self._load_s[card] = stage_s[Stage.LOAD]
        self._stage_s[_key(card, request)] = {s: t for s, t in stage_s.items() if s is not Stage.LOAD}

    def expect(self, card: str, request: GenerationRequest, *, loads: bool) -> Mapping[Stage, float] | None:
        """Return the seconds that each stage should take, or None if no such job has been seen."""
        stage_s = self._stage_s.get(_key(card, request))
        load_s = self._load_s.get(card)
        if stage_s is None or (loads and load_s is None):
            return None
        return {Stage.LOAD: load_s, **stage_s} if loads and load_s is not None else stage_s


def _key(card: str, request: GenerationRequest) -> tuple[str, VideoShape, int]:
    return card, request.shape, request.num_inference_steps


class Meter:
    """Follows one job through its stages. Percentages never fall, and reach 100 only when the job is completed."""

    def __init__(self, expected_s: Mapping[Stage, float] | None, *, loads: bool) -> None:
        """Start before the first stage; ``expected_s`` is what ``StageTimes`` knows of such a job."""
        guess = {stage: share for stage, share in _GUESS.items() if loads or stage is not Stage.LOAD}
        self._learned = expected_s is not None
        self._weights = dict(guess if expected_s is None else {stage: expected_s.get(stage, 0.0) for stage in guess})
        self._stage: Stage | None = None
        self._stage_began = 0.0
        self._stage_s: dict[Stage, float] = {}
        self._percent = 0

    def update(self, progress: Progress, now: float) -> JobProgress:
        """Note that a step is done at ``now`` (seconds of a clock that never goes back)."""
        if progress.stage is not self._stage:
            self._close_stage(now)
            self._stage, self._stage_began = progress.stage, now
        stage, step, total = progress
        share = step / total if total else 0.0
        before = sum(weight for s, weight in self._weights.items() if _comes_before(s, stage))
        done = before + share * self._weights.get(stage, 0.0)
        whole = sum(self._weights.values())
        self._percent = max(self._percent, min(99, int(100 * done / whole) if whole else 0))
        return JobProgress(stage, step, total, self._percent, self._eta_s(stage, share, now))

    def finish(self, now: float) -> Mapping[Stage, float]:
        """Return the seconds that each stage took; the last one ends at ``now``."""
        self._close_stage(now)
        self._stage = None
        return dict(self._stage_s)

    def _close_stage(self, now: float) -> None:
        if self._stage is not None:
            self._stage_s[self._stage] = self._stage_s.get(self._stage, 0.0) + now - self._stage_began

    def _eta_s(self, stage: Stage, share: float, now: float) -> float | None:
        expected = self._weights.get(stage, 0.0)
        later = sum(weight for s, weight in self._weights.items() if _comes_before(stage, s))
        if share == 0.0:
            return expected + later if self._learned else None
        took = now - self._stage_began
        left = took / share - took
        if self._learned:
            return left + later
        if stage not in _TELLING or not expected:
            return None
        return left + later * (took / share) / expected


def _comes_before(one: Stage, other: Stage) -> bool:
    order = list(Stage)
    return order.index(one) < order.index(other)
