"""Streams of what happens to videos: one look at the database serves however many listen.

What happened is read from the outbox and can be told again; how a video is doing is told as it is now, and only the
latest of it. So a slow reader costs no memory, and an idle one nothing but its connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from anyio import CapacityLimiter, Event, create_task_group, move_on_after, sleep, to_thread

from server import event_schemas as wire
from server.jobs import JobStatus
from server.outbox import ENDS_VIDEO, EventType, Reading, State

if TYPE_CHECKING:
    from server.jobs import JobError, JobId, Owner
    from server.outbox import Event as Happening
    from server.outbox import Outbox
    from server.store import JobStore

_log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 0.25
HEARTBEAT_S = 15.0
# A client comes back where it was; until then it need not be asked again for its key.
LONGEST_S = 3600.0
# A reader that is so far behind has to come back and read what it missed from the database.
MAX_PENDING = 1000
HEARTBEAT = b": heartbeat\n\n"
_WAITS = frozenset({EventType.VIDEO_CREATED, EventType.VIDEO_REQUEUED})
_VIDEO_TYPES = frozenset({EventType.VIDEO_STARTED, *_WAITS, *ENDS_VIDEO})


@dataclass
class Topic:
    """Whose events, and of which video: None for all of them."""

    owner: Owner
    video: JobId | None = None

    def covers(self, owner: Owner, video: str) -> bool:
        """Tell whether something that concerns a video belongs to this."""
        return owner == self.owner and self.video in {None, video}


class Mailbox:
    """What one reader has not taken yet. Belongs to the event loop."""

    def __init__(self, topic: Topic, last: int) -> None:
        self.topic = topic
        self.waits = False
        self._last = last
        self._pending: dict[tuple[str, object], bytes] = {}
        self._is_over = False
        self._changed = Event()

    def put_event(self, event: Happening, error: JobError | None) -> None:
        """Add something that happened, unless the reader has it."""
        if self._is_over or event.seq <= self._last or not self.topic.covers(event.owner, event.subject):
            return
        self._last = event.seq
        self._pending["event", event.seq] = wire.of_event(event, error)
        if self.topic.video is not None:
            self.waits = event.type in _WAITS
            self._is_over |= event.type in ENDS_VIDEO
        self._is_over |= len(self._pending) > MAX_PENDING
        self._changed.set()

    def put_state(self, kind: str, state: State, block: bytes) -> None:
        """Add how a video is doing, in place of an earlier word on it that has not been taken."""
        if not self._is_over and self.topic.covers(state.owner, state.id):
            self._pending.pop((kind, state.id), None)
            self._pending[kind, state.id] = block
            self._changed.set()

    def close(self) -> None:
        """Let the reader take what is there and no more."""
        self._is_over = True
        self._changed.set()

    async def take(self, within_s: float) -> bytes | None:
        """Return what there is to send, a heartbeat if nothing comes in time, or None at the end."""
        with move_on_after(within_s):
            while not self._pending and not self._is_over:
                self._changed = Event()
                await self._changed.wait()
        if self._pending:
            taken = b"".join(self._pending.values())
            self._pending.clear()
            return taken
        return None if self._is_over else HEARTBEAT


class Broker:
    """Reads what changes while somebody listens, and hands it to everybody whom it concerns."""

    def __init__(
        self,
        outbox: Outbox,
        store: JobStore,
        *,
        poll_s: float = POLL_S,
        heartbeat_s: float = HEARTBEAT_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._store = store
        self._poll_s = poll_s
        self._heartbeat_s = heartbeat_s
        self._now = now
        self._mailboxes: set[Mailbox] = set()
        self._seq = 0
        self._shown: Mapping[JobId, State] = {}
        self._positions: Mapping[JobId, int] = {}
        self._somebody_listens = Event()
        self._is_closed = False
        # Threads of its own: the shared ones may all be busy with uploads.
        self._limiter = CapacityLimiter(2)

    @property
    def listeners(self) -> int:
        """How many streams are open."""
        return len(self._mailboxes)

    def close(self) -> None:
        """End every stream, also those to come."""
        self._is_closed = True
        for mailbox in self._mailboxes:
            mailbox.close()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        """Serve the streams while the block runs."""
        async with create_task_group() as tasks:
            tasks.start_soon(self._run)
            try:
                yield
            finally:
                self.close()
                tasks.cancel_scope.cancel()

    async def _run(self) -> None:
        while True:
            await self._somebody_listens.wait()
            try:
                is_behind = await self._look()
            except Exception:  # noqa: BLE001 - a locked database passes, and the server is not to end for anything else
                _log.exception("events_not_read")
                is_behind = False
            if not self._mailboxes:
                self._somebody_listens = Event()
                self._shown, self._positions = {}, {}
            elif not is_behind:
                await sleep(self._poll_s)

    async def stream(self, topic: Topic, after: int | None = None) -> AsyncGenerator[bytes]:
        """Yield blocks of events: what happened after ``after``, how things are, then what happens.

        Args:
            topic: What about. The stream of one video ends with it.
            after: Number of the last event that the client has; without it, all streams but that of one video begin
                with how things are.
        """
        cursor = after if after is not None or topic.video is None else 0
        while True:
            reading = await self._read_own(topic, cursor)
            told = await self._encoded(reading.events)
            ended = topic.video is not None and any(event.type in ENDS_VIDEO for event in reading.events)
            if told:
                yield b"".join(told)
            if reading.is_whole or ended:
                break
            cursor = reading.events[-1].seq
        if topic.video is not None and not ended:
            ended = not reading.states or reading.states[0].is_done
            if ended:
                yield b"".join(wire.of_end(state, reading.last, self._now()) for state in reading.states)
        if not ended:
            async with aclosing(self._live(topic, reading)) as live:
                async for blocks in live:
                    yield blocks

    async def _read_own(self, topic: Topic, cursor: int | None) -> Reading:
        return await self._in_thread(lambda: self._outbox.read_own(cursor, topic.owner, topic.video))

    async def _live(self, topic: Topic, reading: Reading) -> AsyncGenerator[bytes]:
        deadline = self._now() + LONGEST_S
        with self._listening(topic, reading) as mailbox:
            somebody_waits = any(state.waits for state in reading.states)
            positions: Mapping[JobId, int] = await self._in_thread(self._queue) if somebody_waits else {}
            states = (wire.of_state(s, reading.last, self._now(), position=positions.get(s.id)) for s in reading.states)
            yield b"".join((wire.opening(reading.last), *states))
            while self._now() < deadline:
                blocks = await mailbox.take(self._heartbeat_s)
                if blocks is None:
                    return
                yield blocks

    @contextmanager
    def _listening(self, topic: Topic, reading: Reading) -> Generator[Mailbox]:
        """Lend a mailbox for what happens after the reading."""
        mailbox = Mailbox(topic, reading.last)
        mailbox.waits = topic.video is not None and any(state.waits for state in reading.states)
        if self._is_closed:
            mailbox.close()
        # The look may have got further since the reading; every mailbox leaves out what it has had.
        self._seq = min(self._seq, reading.last) if self._mailboxes else reading.last
        self._mailboxes.add(mailbox)
        self._somebody_listens.set()
        try:
            yield mailbox
        finally:
            self._mailboxes.discard(mailbox)

    async def _look(self) -> bool:
        """Read what is new and hand it out; tell whether there is more of it."""
        seq = self._seq
        reading = await self._in_thread(lambda: self._outbox.read_running(seq))
        if reading.events:
            errors = await self._errors(reading.events)
            for event in reading.events:
                for mailbox in self._mailboxes if event.type in _VIDEO_TYPES else ():
                    mailbox.put_event(event, errors.get(event.subject))
        read_to = reading.last if reading.is_whole else reading.events[-1].seq
        # Whoever came meanwhile may need to have it read again.
        self._seq = read_to if self._seq == seq else min(self._seq, read_to)
        if reading.is_whole:
            self._tell_running(reading)
            await self._tell_waiting(reading.last)
        return not reading.is_whole

    def _tell_running(self, reading: Reading) -> None:
        before, self._shown = self._shown, {state.id: state for state in reading.states}
        for state in reading.states:
            known = before.get(state.id)
            if state == known:
                continue
            self._tell(wire.PROGRESS, state, wire.of_state(state, reading.last, self._now()))
            if state.previews > (known.previews if known else 0):
                block = wire.of_state(state, reading.last, self._now(), kind=wire.PREVIEW)
                self._tell(wire.PREVIEW, state, block)

    async def _tell_waiting(self, last: int) -> None:
        """Tell those who follow a single video that its place in the queue has changed."""
        waiting = [mailbox for mailbox in self._mailboxes if mailbox.waits]
        before = self._positions
        self._positions = await self._in_thread(self._queue) if waiting else {}
        for mailbox in waiting:
            video = mailbox.topic.video
            position = self._positions.get(video) if video is not None else None
            if video is None or position is None or before.get(video) == position:
                continue
            state = State(video, mailbox.topic.owner, JobStatus.QUEUED)
            mailbox.put_state(wire.PROGRESS, state, wire.of_state(state, last, self._now(), position=position))

    def _tell(self, kind: str, state: State, block: bytes) -> None:
        for mailbox in self._mailboxes:
            mailbox.put_state(kind, state, block)

    async def _encoded(self, events: tuple[Happening, ...]) -> list[bytes]:
        errors = await self._errors(events)
        return [wire.of_event(event, errors.get(event.subject)) for event in events if event.type in _VIDEO_TYPES]

    async def _errors(self, events: tuple[Happening, ...]) -> Mapping[str, JobError]:
        failed = [event.subject for event in events if event.type is EventType.VIDEO_FAILED]
        return await self._in_thread(lambda: self._outbox.errors(failed)) if failed else {}

    def _queue(self) -> Mapping[JobId, int]:
        return {waiting.id: position for position, waiting in enumerate(self._store.waiting(), start=1)}

    async def _in_thread(self, read: Callable[[], T]) -> T:
        return await to_thread.run_sync(read, limiter=self._limiter)
