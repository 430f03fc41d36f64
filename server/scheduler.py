"""Which waiting job runs next. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from server.jobs import PRIORITY_STEP_S, Waiting

# Changing the model takes about so long; a job that spares the change may pass others by no more than this.
LOADED_HEADSTART_S = 60.0


def choose(waiting: Sequence[Waiting], loaded: Collection[str]) -> Waiting | None:
    """Return the job to run next on a worker that has the cards ``loaded``; None if nothing waits.

    Every job has a due time: its creation, made earlier by its priority and by its model being loaded. The
    earliest is next. Nothing starves, since a job can only be passed by those made a bounded time after it.
    """

    def due(job: Waiting) -> float:
        headstart_s = LOADED_HEADSTART_S if job.card in loaded else 0.0
        return job.created_at - job.priority * PRIORITY_STEP_S - headstart_s

    return min(waiting, key=due, default=None)
