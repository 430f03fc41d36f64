"""Room on the disk: how much is left, when that is too little, and how running out of it is recognised."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterator

from sqlalchemy.exc import DBAPIError

from pipelines.machine import free_disk_bytes
from server.settings import Settings

_log = logging.getLogger(__name__)

GB = 1_000_000_000
# How long a worker waits after the disk ran full under its hands. What filled it was removed with the failed attempt:
# that there is room again does not mean that there is enough.
FULL_PAUSE_S = 60.0
RAN_FULL = (
    "The queue is paused: the disk ran full while a video was being saved. The video waits and is tried again within a"
    " minute. Delete videos, or see `homereel prune`."
)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What SQLite and PostgreSQL say; their drivers have no common type for it.
_FULL_DATABASE = ("disk is full", "No space left on device", "disk full")


def shortage(settings: Settings) -> str | None:
    """Return the sentence that says why no video is begun, or None if there is room."""
    free, least = free_disk_bytes(settings.assets_dir), settings.min_free_gb * GB
    if free >= least:
        return None
    return (
        f"The queue is paused: {free / GB:.2f} GB are free where the videos are, less than the {settings.min_free_gb:g}"
        " GB of --min-free-gb. What waits goes on waiting; it is made once there is space. Delete videos, or see"
        " `homereel prune`."
    )


def pause_reason(settings: Settings, workers: Collection[str | None]) -> str | None:
    """Return the sentence that says why nothing is begun, or None.

    Args:
        settings: Say where the disk is and how much has to be free.
        workers: Why each worker takes no jobs, or None if it does.
    """
    reason = shortage(settings)
    if reason is None and None not in workers:
        reason = next(iter(workers), None)
    return reason


class Gate:
    """Says whether a worker may begin a video. ``latest`` is for any thread, the rest for the worker's own.

    Attributes:
        latest: What ``reason`` said last.
    """

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._now = now
        self._resume_at = float("-inf")
        self.latest: str | None = None

    def reason(self) -> str | None:
        """Return the sentence that says why not, or None."""
        reason = shortage(self._settings)
        if reason is None and self._now() < self._resume_at:
            reason = RAN_FULL
        if (reason is None) != (self.latest is None):
            _log.warning("queue_paused reason=%s", reason or "over")
        self.latest = reason
        return reason

    def ran_full(self) -> None:
        """Note that something could not be written: try again only in a while."""
        self._resume_at = self._now() + FULL_PAUSE_S


def ran_out(error: BaseException) -> bool:
    """Tell whether an error means that the disk, or its user's quota, is full."""
    return any(_says_full(cause) for cause in _causes(error))


def _says_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    return isinstance(error, DBAPIError) and any(words in str(error.orig) for words in _FULL_DATABASE)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
