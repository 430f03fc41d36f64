"""The queue as a whole: what is being made and what waits, and when each should be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.forecast import Span, line_up, predict
from server.jobs import Job, JobId, JobStatus
from server.selection import Filter
from server.space import pause_reason

if TYPE_CHECKING:
    from server.deps import Services
    from server.timings import Timing

# More than any queue holds: the page is never a part.
_ALL = 1_000_000


@dataclass(frozen=True)
class Overview:
    """Everybody's running and waiting jobs, the next first, and when the waiting ones should start and end."""

    running: tuple[Job, ...]
    waiting: tuple[Job, ...]
    spans: Mapping[JobId, Span | None]
    workers: int
    paused: str | None

    @property
    def wait_s(self) -> float | None:
        """Seconds that a job would wait that came now."""
        return self._next and self._next.start_s

    _next: Span | None = None


def overview(services: Services) -> Overview:
    """Look at the queue."""
    store = services.store
    running, queued = (
        store.list(after=None, limit=_ALL, newest_first=False, only=Filter(status=status)).jobs
        for status in (JobStatus.IN_PROGRESS, JobStatus.QUEUED)
    )
    by_id = {job.id: job for job in queued}
    # What has begun between the two looks is in neither list twice.
    waiting = [by_id[entry.id] for entry in store.waiting() if entry.id in by_id]
    paused_by = [worker.paused for worker in store.workers()]
    workers, paused = len(paused_by), pause_reason(services.settings, paused_by)
    timings = {card: services.timings.of(card) for card in {job.card for job in (*running, *waiting)}}
    left_s = [_left_s(job, timings[job.card], services.now()) for job in running]
    # A job of no length stands at the end of the line, to see when its turn would be.
    spans = line_up(left_s, [*(_takes_s(job, timings[job.card]) for job in waiting), 0.0], workers)
    by_job = {job.id: span for job, span in zip(waiting, spans, strict=False)}
    return Overview(running, tuple(waiting), by_job, workers, paused, spans[-1] if workers else None)


def _takes_s(job: Job, timings: tuple[Timing, ...]) -> float | None:
    if job.request.parts:
        # No model makes it: seconds, beside the minutes of those that one does.
        return 0.0
    predicted = predict(timings, job.request)
    return predicted and predicted.seconds


def _left_s(job: Job, timings: tuple[Timing, ...], now: float) -> float | None:
    if job.progress is not None and job.progress.eta_s is not None:
        return job.progress.eta_s
    takes_s = _takes_s(job, timings)
    return None if takes_s is None or job.started_at is None else max(0.0, takes_s - (now - job.started_at))
