"""Models on their way from the hub: one at a time, each fetched by a process of its own."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, Protocol, TypeAlias

_log = logging.getLogger(__name__)
# So long a process that was asked to end may take before it is ended.
_PATIENCE_S = 5.0

PullStatus: TypeAlias = Literal["in_progress", "completed", "failed", "cancelled"]


class PullUnderway(Exception):
    """Another model is being fetched: two at once would each be promised the same room on the disk."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


@dataclass(frozen=True)
class PullState:
    """How far a model is.

    Attributes:
        model: Id of its card.
        status: Whether it is still coming, and how it ended.
        file: The one that is being fetched, or was last.
        bytes_done: Of all files, those that were there before included.
        bytes_total: Of all files; 0 until the hub has said.
        error_code: Why it failed, for programs.
        error_message: Why it failed and what to do, for people.
    """

    model: str
    status: PullStatus = "in_progress"
    file: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    error_code: str = ""
    error_message: str = ""


class Process(Protocol):
    """What is needed of a process; ``subprocess.Popen`` has it."""

    stdout: IO[str] | None

    def terminate(self) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102
    def wait(self, timeout: float | None = None) -> int: ...  # noqa: D102


Spawn: TypeAlias = Callable[[str], Process]


def spawn_pull(models_dir: Path, model: str) -> Process:
    """Start fetching a model whose card ships or is in ``models_dir``; progress comes as lines of JSON."""
    # -P: a folder "server" in the current directory must not be taken for ours.
    command = [sys.executable, "-P", "-m", "server.pull_process", model, str(models_dir)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)  # noqa: S603 - a card's id


class Pulls:
    """What is being fetched and how the last attempts ended, for as long as the server runs."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._states: dict[str, PullState] = {}
        self._process: Process | None = None
        self._thread: threading.Thread | None = None

    def state(self, model: str) -> PullState | None:
        """Return how far a model is, or how the last attempt at it ended."""
        with self._lock:
            return self._states.get(model)

    def start(self, model: str, *, wait_s: float = 0.0) -> PullState:
        """Begin to fetch a model, or look at how far it is if that has begun.

        Args:
            model: Id of its card.
            wait_s: How long to wait for the first word: that there is no room, or no licence, is known at once.

        Raises:
            PullUnderway: Another one is being fetched.
        """
        with self._lock:
            if (other := self._underway()) is not None:
                if other != model:
                    raise PullUnderway(other)
                return self._states[model]
            self._states[model] = PullState(model)
            self._process = self._spawn(model)
            self._thread = threading.Thread(target=self._follow, args=(model, self._process), name=f"pull of {model}")
            self._thread.start()
            self._changed.wait_for(lambda: self._states[model] != PullState(model), wait_s)
            return self._states[model]

    def cancel(self, model: str) -> PullState | None:
        """Stop fetching a model; what has arrived stays for the next time. Returns its state, if there is any."""
        with self._lock:
            process = self._process if self._underway() == model else None
            if process is not None:
                self._states[model] = replace(self._states[model], status="cancelled")
        if process is not None:
            self._end(process)
        return self.state(model)

    def close(self) -> None:
        """Stop whatever is being fetched."""
        with self._lock:
            model = self._underway()
        if model is not None:
            self.cancel(model)

    def _underway(self) -> str | None:
        return next((model for model, state in self._states.items() if state.status == "in_progress"), None)

    def _end(self, process: Process) -> None:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, model: str, process: Process) -> None:
        """Take what the process says until it ends."""
        if process.stdout is not None:
            with process.stdout as lines:
                for line in lines:
                    self._take(model, line)
        status = process.wait()
        with self._lock:
            state = self._states[model]
            if state.status == "in_progress":
                self._states[model] = _ended(state, status)
            self._changed.notify_all()
            _log.info("pull_ended model=%s status=%s", model, self._states[model].status)

    def _take(self, model: str, line: str) -> None:
        try:
            told: dict[str, Any] = json.loads(line)
        except ValueError:
            # The hub's library may print too.
            return
        with self._lock:
            state = self._states[model]
            if error := told.pop("error", None):
                state = replace(state, error_code=error["code"], error_message=error["message"])
            self._states[model] = replace(state, **told)
            # A failure is told with its end, so that whoever waits sees both.
            if not error:
                self._changed.notify_all()


def _ended(state: PullState, status: int) -> PullState:
    if status == 0 and not state.error_code:
        return replace(state, status="completed", bytes_done=state.bytes_total)
    code = state.error_code or "download_failed"
    message = state.error_message or f"The process that fetched {state.model} ended with status {status}."
    return replace(state, status="failed", error_code=code, error_message=message)
