"""The disk and the database as such: how much room is left, and how it is recognised that they fail."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterator
from enum import StrEnum

from sqlalchemy.exc import DBAPIError

from pipelines.machine import free_disk_bytes
from server.settings import Settings

_log = logging.getLogger(__name__)

GB = 1_000_000_000
# How long a worker waits after the disk ran full under its hands. What filled it was removed with the failed attempt:
# that there is room again does not mean that there is enough.
FULL_PAUSE_S = 60.0


class Trouble(StrEnum):
    """What may be wrong with the storage, which is no request's and no video's fault."""

    FULL = "full"
    READ_ONLY = "read_only"
    LOCKED = "locked"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"

    @property
    def paused(self) -> str:
        """Why nothing is begun, for whoever waits."""
        waits = "The video waits and is tried again within a minute."
        return f"The queue is paused: {_WHAT[self][0]}. {waits} {_WHAT[self][1]}"

    @property
    def refused(self) -> str:
        """Why a request was not done, for whoever sent it."""
        return f"Nothing of this request has been kept: {_WHAT[self][0]}. {_WHAT[self][1]}"


# What is wrong, and what to do.
_WHAT = {
    Trouble.FULL: ("the server's disk is full", "Delete videos, or see `homereel prune`."),
    Trouble.READ_ONLY: ("the server may not write to its folder", "Its operator finds more in `homereel doctor`."),
    Trouble.LOCKED: ("another program holds the server's database", "Try again in a moment."),
    Trouble.UNREACHABLE: ("the server's database does not answer", "Try again in a moment."),
    Trouble.BROKEN: ("the server's disk or database is damaged", "Its operator finds more in `homereel doctor`."),
}
_ERRNOS = {
    errno.ENOSPC: Trouble.FULL,
    errno.EDQUOT: Trouble.FULL,
    errno.EROFS: Trouble.READ_ONLY,
    errno.EACCES: Trouble.READ_ONLY,
    errno.EPERM: Trouble.READ_ONLY,
    errno.EIO: Trouble.BROKEN,
}
# What SQLite and PostgreSQL say; their drivers have no common type for it.
_WORDS = {
    "disk is full": Trouble.FULL,
    "No space left on device": Trouble.FULL,
    "disk full": Trouble.FULL,
    "readonly database": Trouble.READ_ONLY,
    "read-only transaction": Trouble.READ_ONLY,
    "unable to open database file": Trouble.READ_ONLY,
    "is locked": Trouble.LOCKED,
    "disk I/O error": Trouble.BROKEN,
    "malformed": Trouble.BROKEN,
    "is not a database": Trouble.BROKEN,
    "connection failed": Trouble.UNREACHABLE,
    "server closed the connection": Trouble.UNREACHABLE,
    "shutting down": Trouble.UNREACHABLE,
    "starting up": Trouble.UNREACHABLE,
}


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
        self._trouble = Trouble.FULL
        self.latest: str | None = None

    def reason(self, wanted: str | None = None) -> str | None:
        """Return the sentence that says why not, or None; ``wanted`` is why somebody wants it so."""
        reason = wanted or shortage(self._settings)
        if reason is None and self._now() < self._resume_at:
            reason = self._trouble.paused
        if (reason is None) != (self.latest is None):
            _log.warning("queue_paused reason=%s", reason or "over")
        self.latest = reason
        return reason

    def struck(self, trouble: Trouble) -> None:
        """Note that something could not be written or read: try again only in a while."""
        self._trouble = trouble
        self._resume_at = self._now() + FULL_PAUSE_S


def trouble_of(error: BaseException) -> Trouble | None:
    """Return what an error says of the storage; None if it says nothing of it."""
    return next((trouble for cause in _causes(error) if (trouble := _said_by(cause)) is not None), None)


def _said_by(error: BaseException) -> Trouble | None:
    if isinstance(error, OSError):
        return _ERRNOS.get(error.errno or 0)
    if not isinstance(error, DBAPIError):
        return None
    if error.connection_invalidated:
        return Trouble.UNREACHABLE
    return next((trouble for words, trouble in _WORDS.items() if words in str(error.orig)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
