"""Fetches one model for the server, in a process of its own: python -m server.pull_process MODEL FOLDER.

The server stays free of the hub's library. Each line of standard output is a JSON object: how far it is, or why it
cannot be. When nobody reads them any more, the server is gone, and so is this process; what has arrived stays.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from pipelines import hub, snapshot
from pipelines.errors import PipelineError
from pipelines.registry import load_registry

# A page that is told more often than this shows no more.
_EVERY_S = 0.2


class _Teller:
    """Prints progress, the first and the last of each file for sure."""

    def __init__(self) -> None:
        self._file, self._said_at = "", 0.0

    def __call__(self, file: str, done: int, total: int) -> None:
        now = time.monotonic()
        if file == self._file and done < total and now - self._said_at < _EVERY_S:
            return
        self._file, self._said_at = file, now
        say({"file": file, "bytes_done": done, "bytes_total": total})


def say(told: dict[str, object]) -> None:
    """Print one line at once."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def main(model: str, models_dir: str) -> int:
    """Fetch a model whose card ships or is in ``models_dir``; returns the exit status."""
    card = load_registry(own=Path(models_dir)).cards[model]
    with suppress(BrokenPipeError):
        try:
            hub.pull(card, snapshot.shared_cache(), _Teller())
        except PipelineError as error:
            say({"error": {"code": error.code, "message": error.message}})
            return 1
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
