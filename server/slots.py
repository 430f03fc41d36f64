"""Places for work that may take long, so that it never takes all threads: a few work, a few wait, others come back."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager


class Busy(Exception):
    """All places are taken, and enough are waiting for one."""


class Slots:
    """Lets ``at_once`` threads work and ``waiting`` more wait for their turn."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._most = at_once + waiting
        self._inside = 0
        self._count = threading.Lock()
        self._turns = threading.Semaphore(at_once)

    @contextmanager
    def taken(self) -> Generator[None]:
        """Work, once it is this thread's turn.

        Raises:
            Busy: So many wait that it would take too long.
        """
        with self._count:
            if self._inside >= self._most:
                raise Busy
            self._inside += 1
        try:
            with self._turns:
                yield
        finally:
            with self._count:
                self._inside -= 1
