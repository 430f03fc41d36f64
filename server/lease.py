"""A worker's hold on the job it is making, kept up from a thread however long a stage blocks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from pipelines.errors import Cancelled
from pipelines.types import Stage
from server.jobs import JobId, JobProgress, WorkerId
from server.store import JobStore

_log = logging.getLogger(__name__)

# How soon a cancellation is seen, at the price of one short read.
BEAT_S = 0.1
# How often progress within a stage is written.
NOTE_S = 1.0


class Ending(StrEnum):
    """Why the work on a job has to stop before it is done."""

    CANCELLED = "cancelled"
    LOST = "lost"
    GIVEN_WAY = "given way"


class Lease:
    """Hold a claimed job while the block runs. The database is touched by the lease's own thread only."""

    def __init__(
        self,
        store: JobStore,
        job_id: JobId,
        worker: WorkerId,
        *,
        lease_s: float,
        now: Callable[[], float] = time.monotonic,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._job_id = job_id
        self._worker = worker
        self._lease_s = lease_s
        self._now = now
        self._renewed_at = now()
        self._progress: JobProgress | None = None
        self._written: JobProgress | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease of {job_id}", daemon=True)
        self._gives_way = gives_way
        self.ending: Ending | None = None
        # Whether the job is to wait, as soon as what has been made of it is kept.
        self.is_wanted_back = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def note(self, progress: JobProgress) -> None:
        """Have the progress written soon.

        Raises:
            Cancelled: The work has to stop; ``ending`` says why.
        """
        self._progress = progress
        if self.ending is not None:
            raise Cancelled("the work has to stop")

    def give_way(self) -> None:
        """Stop the work, for the job to go on later.

        Raises:
            Cancelled: Always.
        """
        self.ending = self.ending or Ending.GIVEN_WAY
        raise Cancelled("the work has to wait")

    def confirm(self) -> None:
        """Make sure that nobody else gets the job for a whole lease from now.

        Raises:
            Cancelled: It is somebody else's already, or not wanted any more.
        """
        self.beat(renew=True)
        if self.ending is not None:
            raise Cancelled("the work has to stop")

    def beat(self, *, renew: bool = False) -> None:
        """Look whether the job is still this worker's to make; renew the lease and write progress when due."""
        now, progress = self._now(), self._progress
        try:
            if renew or self._is_due(progress, now):
                state = self._store.renew(self._job_id, self._worker, self._lease_s, progress)
                self._renewed_at, self._written = now, progress
            else:
                state = self._store.watch(self._job_id, self._worker)
            self.is_wanted_back = self._gives_way()
        except SQLAlchemyError as error:
            _log.warning("lease_not_renewed id=%s error=%s", self._job_id, type(error).__name__)
            if now - self._renewed_at > self._lease_s:
                self.ending = Ending.LOST
            return
        if not state.owned:
            self.ending = Ending.LOST
        elif state.cancel_requested:
            self.ending = Ending.CANCELLED

    def _is_due(self, progress: JobProgress | None, now: float) -> bool:
        age = now - self._renewed_at
        changed = progress != self._written
        return age >= self._lease_s / 3 or (changed and (age >= NOTE_S or _stage(progress) != _stage(self._written)))

    def _keep(self) -> None:
        while not self._done.wait(BEAT_S):
            self.beat()


def _stage(progress: JobProgress | None) -> Stage | None:
    return None if progress is None else progress.stage
