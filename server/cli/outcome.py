"""How a command ends."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """Exit status."""

    DONE = 0
    FAILED = 1
    MISUSED = 2
    INTERRUPTED = 130


class Failure(Exception):
    """A command cannot go on. The message is one sentence that says what would help."""

    def __init__(self, message: str, outcome: Outcome = Outcome.FAILED, *, is_connection: bool = False) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.is_connection = is_connection
        """Whether there is no server to talk to any more, which every other request would find too."""
