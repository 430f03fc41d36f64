"""Which job is next: the oldest, unless priority or the loaded model say otherwise; nobody waits for ever."""

from __future__ import annotations

import pytest

from server.jobs import PRIORITY_STEP_S, JobId, Waiting
from server.scheduler import LOADED_HEADSTART_S, choose


def waiting(name: str, created_at: float, *, card: str = "small", priority: int = 0) -> Waiting:
    return Waiting(JobId(name), card, created_at, priority)


def test_nothing_waits() -> None:
    assert choose([], {"small"}) is None


@pytest.mark.parametrize(
    ("jobs", "loaded", "chosen"),
    [
        ([waiting("old", 0), waiting("new", 1)], None, "old"),
        ([waiting("new", 1), waiting("old", 0)], None, "old"),
        ([waiting("first", 0), waiting("second", 0)], None, "first"),
        ([waiting("old", 0), waiting("urgent", 9, priority=1)], None, "urgent"),
        ([waiting("old", 0), waiting("later", 9, priority=-1)], None, "old"),
        ([waiting("old", 0, card="big"), waiting("new", 9)], "small", "new"),
        ([waiting("old", 0, card="big"), waiting("new", 9)], None, "old"),
        ([waiting("old", 0, card="big"), waiting("new", 9)], "other", "old"),
        ([waiting("urgent", 9, card="big", priority=1), waiting("old", 0)], "small", "urgent"),
    ],
)
def test_the_next_job(jobs: list[Waiting], loaded: str | None, chosen: str) -> None:
    next_job = choose(jobs, set() if loaded is None else {loaded})
    assert next_job is not None
    assert next_job.id == chosen


def test_any_of_several_loaded_models_saves_loading() -> None:
    jobs = [waiting("old", 0, card="huge"), waiting("first", 1, card="big"), waiting("second", 2)]
    chosen = choose(jobs, {"small", "big"})
    assert chosen is not None
    assert chosen.id == "first"


def runs_before_stranger(arrivals_s: float, *, priority: int, loaded: str) -> int:
    """Count how many newcomers, one every ``arrivals_s`` seconds, pass a job of another model that waits since 0."""
    stranger, now, passed = waiting("stranger", 0, card="big"), 0.0, 0
    while True:
        newcomer = waiting(f"new{passed}", now, priority=priority)
        if choose([stranger, newcomer], {loaded}) is stranger:
            return passed
        now, passed = now + arrivals_s, passed + 1


@pytest.mark.parametrize(
    ("priority", "most"), [(0, LOADED_HEADSTART_S / 10 + 1), (1, (PRIORITY_STEP_S + LOADED_HEADSTART_S) / 10 + 1)]
)
def test_a_stream_of_favoured_jobs_does_not_starve_the_others(priority: int, most: float) -> None:
    assert 0 < runs_before_stranger(10, priority=priority, loaded="small") <= most
