"""What the routes answer about jobs, with what only the queue knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.errors import InvalidRequest
from server.jobs import TERMINAL, Job, JobId, JobStatus
from server.schemas import Video
from server.selection import words_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.responses import Response

    from server.deps import Services

# Python's poll helper reads the interval from its first answer only and keeps it to the end.
_SOONEST_POLL_MS, _LATEST_POLL_MS = 250, 5000
_POLLS_PER_VIDEO = 20
_TYPICAL_S = 10.0


def video_answer(job: Job, services: Services, response: Response) -> Video:
    """Describe one job, and say in the answer's headers when to ask again."""
    position = services.store.position(job.id) if job.status is JobStatus.QUEUED else None
    if job.status not in TERMINAL:
        response.headers["openai-poll-after-ms"] = str(_poll_after_ms(job, position or 0))
    return Video.of(job, position)


def searched(text: str | None) -> tuple[str, ...]:
    """Return the words of a search; none for no search.

    Raises:
        InvalidRequest: There is a text, and no word in it.
    """
    words = words_of(text or "")
    if text is not None and not words:
        raise InvalidRequest("'q' must have a word to look for.", param="q")
    return words


def positions(services: Services) -> Mapping[JobId, int]:
    """Return the place of every waiting job, whoever it belongs to, counted from 1."""
    return {waiting.id: position for position, waiting in enumerate(services.store.waiting(), start=1)}


def _poll_after_ms(job: Job, position: int) -> int:
    """Return a whole number of milliseconds: a fraction would break the client's poll helper."""
    eta_s = job.progress.eta_s if job.progress else None
    remaining_s = eta_s if eta_s is not None else _TYPICAL_S * max(position, 1)
    return int(min(max(remaining_s * 1000 / _POLLS_PER_VIDEO, _SOONEST_POLL_MS), _LATEST_POLL_MS))
