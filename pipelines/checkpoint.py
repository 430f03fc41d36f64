"""A clip in progress on disk, so that whoever makes it next goes on where it was left.

Kept are the latents of every window that is done, and now and then the state of the one that is being denoised. A file
says what it belongs to and has a checksum: what was made by other versions, another model or another request, or was
cut short, is not used. Writing happens in a thread; a disk that takes nothing costs repeated work and no clip.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

from pipelines.types import GenerationRequest, Step

_log = logging.getLogger(__name__)

# What may differ between two attempts at the same frames: where idle parts are, and which of several like devices.
_FREE_FACTS = frozenset({"offload", "device", "plan", "tiled"})
Frozen = Callable[[], bytes]


@dataclass(frozen=True)
class Kept:
    """What an earlier attempt left of a window: finished ``latents``, or the ``state`` after ``step`` steps."""

    latents: bytes | None = None
    state: bytes | None = None
    step: int = 0


class Checkpoints:
    """The checkpoints of one clip. Use it as a context: it waits for its writer at the end.

    Attributes:
        resumed: Whether something of an earlier attempt has been used.
    """

    def __init__(
        self, folder: Path, owner: str, *, interval_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep files in ``folder``, which is made when it is first needed.

        Args:
            folder: Of this clip alone.
            owner: What the files belong to besides request and versions: the model and its revision.
            interval_s: How long a state stays the newest; so much work may be repeated.
            now: A clock.
        """
        self._folder = folder
        self._owner = owner
        self._interval_s = interval_s
        self._now = now
        self._saved_at = now()
        self._fingerprint = ""
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.resumed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown()

    def hurry(self) -> None:
        """Keep the state after every step from now on: there may not be many more."""
        self._interval_s = 0.0

    @property
    def hurries(self) -> bool:
        """Whether every state is kept."""
        return not self._interval_s

    def begin(self, request: GenerationRequest, facts: Mapping[str, str]) -> None:
        """Say what is made, before anything is asked or offered."""
        told = {name: fact for name, fact in facts.items() if name not in _FREE_FACTS}
        named = json.dumps([self._owner, repr(request), told], sort_keys=True)
        self._fingerprint = blake2b(named.encode(), digest_size=16).hexdigest()

    def kept(self, window: int) -> Kept:
        """Return what there is of a window."""
        self._settle()
        done = self._read(_done(window))
        state = self._read(_state(window)) if done is None else None
        self.resumed = self.resumed or done is not None or state is not None
        if done is not None:
            return Kept(latents=done[1])
        return Kept() if state is None else Kept(state=state[1], step=state[0])

    def offer(self, window: int, step: Step) -> None:
        """Keep where a window is, if it is time; of the last step ``finish`` keeps the result."""
        if step.snapshot is None or step.number == step.total or self._now() - self._saved_at < self._interval_s:
            return
        if not self._interval_s:
            self._settle()
        elif self._writing is not None and not self._writing.done():
            # A disk that is slower than the steps gets a newer state next time.
            return
        self._submit(_state(window), step.number, step.snapshot())
        self._saved_at = self._now()

    def finish(self, window: int, frozen: Frozen | None) -> None:
        """Keep the latents of a window that is done; None if the family cannot put them into bytes."""
        if frozen is not None:
            self._submit(_done(window), 0, frozen)

    def _submit(self, name: str, step: int, frozen: Frozen) -> None:
        self._writing = self._writer.submit(self._write, name, step, frozen)

    def _settle(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, name: str, step: int, frozen: Frozen) -> None:
        # A worker that has lost the clip without knowing may be writing the same file.
        path, temporary = self._folder / name, self._folder / f".{name}.{os.getpid()}.partial"
        try:
            content = frozen()
            head = {"fingerprint": self._fingerprint, "step": step, "sum": _sum(content)}
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(json.dumps(head).encode() + b"\n")
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            _log.warning("checkpoint_not_written name=%s reason=%s", name, error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read(self, name: str) -> tuple[int, bytes] | None:
        try:
            with (self._folder / name).open("rb") as file:
                head, content = json.loads(file.readline()), file.read()
            if head["fingerprint"] != self._fingerprint or head["sum"] != _sum(content):
                _log.info("checkpoint_unusable name=%s", name)
                return None
            return int(head["step"]), content
        except (FileNotFoundError, NotADirectoryError):
            # Nothing is kept: none was made, or the folder is where there are none.
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("checkpoint_unreadable name=%s reason=%s", name, error)
            return None


class NoCheckpoints(Checkpoints):
    """Keeps nothing."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull), "", interval_s=float("inf"))

    def finish(self, window: int, frozen: Frozen | None) -> None:
        """Let go of it."""
        del window, frozen


def _done(window: int) -> str:
    return f"window-{window}.latents"


def _state(window: int) -> str:
    return f"window-{window}.state"


def _sum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()
