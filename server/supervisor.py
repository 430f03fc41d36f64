"""Keeps one worker process per device alive, frees the jobs of dead ones and removes what is deleted or expired."""

from __future__ import annotations

import contextlib
import logging
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from server.assets import AssetStore
from server.characters import CharacterStore
from server.devices import find_devices
from server.jobs import WorkerId
from server.retention import Pruner
from server.settings import Settings, WorkerOrder, worker_environment
from server.space import GB
from server.store import JobStore

_log = logging.getLogger(__name__)

TICK_S = 0.2
SWEEP_S = 1.0
# Adding up what all videos take means a look at every file.
PRUNE_S = 20.0
CLEAN_S = 3600.0
# Longer than any upload or worker takes between its first file and its next sign of life.
STRAY_S, DEAD_WORKER_S = 3600.0, 86_400.0
# A worker that stays up for so long, or has made a video, was not started in vain.
PROVEN_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
# Drained workers get so much more than their drain time before they are killed: for a step that nothing interrupts. One
# that is killed loses nothing, but its video an attempt.
KILL_AFTER_S = 20.0


class Process(Protocol):
    """What the supervisor needs of a process; ``subprocess.Popen`` has it."""

    @property
    def pid(self) -> int: ...  # noqa: D102
    def poll(self) -> int | None: ...  # noqa: D102
    def terminate(self) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102


Spawn: TypeAlias = Callable[[WorkerOrder], Process]


def spawn_worker(order: WorkerOrder) -> Process:
    """Start a worker process. It ends when the pipe to its standard input closes, so also when this process dies."""
    # -P: a folder "server" in the current directory must not be taken for ours.
    command = [sys.executable, "-P", "-m", "server.worker_process"]
    process = subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
        command, stdin=subprocess.PIPE, stdout=sys.stderr.fileno(), env=worker_environment(order.settings)
    )
    assert process.stdin is not None  # noqa: S101 - narrows the type
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(order.model_dump_json().encode() + b"\n")
        process.stdin.flush()
    return process


@dataclass
class _Slot:
    """One device, and the worker on it if there is one."""

    device: str
    process: Process | None = None
    worker: WorkerId | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    failures: int = 0


class Crew:
    """The workers, and the rules by which they are replaced. Belongs to one thread, which calls ``tick`` often."""

    def __init__(
        self,
        settings: Settings,
        devices: tuple[str, ...],
        store: JobStore,
        *,
        spawn: Spawn = spawn_worker,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._store = store
        self._assets = AssetStore(settings.assets_dir)
        self._characters = CharacterStore(store.engine, settings.characters_dir)
        self._spawn = spawn
        self._now = now
        self._slots = [_Slot(device) for device in devices]
        self._pruner = Pruner(store.engine, self._assets, retention_s=settings.retention_s)
        self._swept_at = float("-inf")
        self._pruned_at = float("-inf")

    def tick(self) -> None:
        """Replace workers that have ended, once their pause is over; now and then, sweep up."""
        now = self._now()
        for slot in self._slots:
            self._bury(slot)
            if slot.process is None and now >= slot.start_at:
                self._start(slot)
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._sweep()
        if now - self._pruned_at >= PRUNE_S:
            self._pruned_at = now
            self._prune()

    def clean(self, now: float) -> None:
        """Remove what was left by processes that died long before the Unix time ``now``.

        A server that dies between an upload and the row of its video leaves files that no row leads to.
        """
        for job_id in self._assets.unfinished(now - STRAY_S):
            if not self._store.exists(job_id):
                self._assets.discard_unfinished(job_id)
                _log.info("stray_files_deleted id=%s", job_id)
        if swept := self._characters.sweep(now - STRAY_S):
            _log.info("stray_characters_deleted count=%d", swept)
        self._store.dismiss_silent(DEAD_WORKER_S)

    def drain(self) -> None:
        """Tell every worker to come to an end."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.terminate()

    def is_gone(self) -> bool:
        """Free the jobs of workers that have ended, and return whether all have."""
        for slot in self._slots:
            self._bury(slot)
        return all(slot.process is None for slot in self._slots)

    def kill(self) -> None:
        """End every worker now."""
        for slot in self._slots:
            if slot.process is not None:
                _log.warning("worker_killed worker=%s reason=%s", slot.worker, "did not end in time")
                slot.process.kill()

    def _start(self, slot: _Slot) -> None:
        worker = WorkerId(f"{slot.device}-{secrets.token_hex(4)}")
        slot.worker, slot.started_at = worker, self._now()
        slot.process = self._spawn(WorkerOrder(worker=worker, device=slot.device, settings=self._settings))

    def _bury(self, slot: _Slot) -> None:
        """Note that a worker has ended, if it has: its job waits again, its successor comes after a pause."""
        code = None if slot.process is None else slot.process.poll()
        if code is None or slot.worker is None:
            return
        slot.process = None
        now = self._now()
        if now - slot.started_at >= PROVEN_S or self._store.has_made_any(slot.worker):
            slot.failures = 0
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**slot.failures)
        slot.failures += 1
        slot.start_at = now + pause_s
        freed = self._store.abandon(slot.worker, max_attempts=self._settings.max_attempts)
        level = logging.WARNING if code else logging.INFO
        _log.log(level, "worker_gone worker=%s code=%d freed=%d next_in_s=%.1f", slot.worker, code, freed, pause_s)

    def _sweep(self) -> None:
        self._store.requeue_lost(max_attempts=self._settings.max_attempts)
        for job_id in self._store.deleted():
            self._assets.delete(job_id)
            self._store.forget(job_id)
            _log.info("job_deleted id=%s", job_id)
        self._end_silent_workers()

    def _prune(self) -> None:
        self._pruner.remove_expired()
        if self._settings.disk_budget_gb is not None:
            over = self._pruner.over_budget(self._settings.disk_budget_gb * GB)
            self._pruner.remove(video.id for video in over)

    def _end_silent_workers(self) -> None:
        silence_s = self._settings.worker_silence_s
        heard = {worker.id for worker in self._store.workers(fresh_s=silence_s)}
        for slot in self._slots:
            is_old = self._now() - slot.started_at > silence_s
            if slot.process is not None and is_old and slot.worker not in heard:
                _log.error("worker_killed worker=%s silent_s=%.0f", slot.worker, silence_s)
                slot.process.kill()


class Supervisor:
    """Looks after the workers in a thread of its own, from ``start`` to ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the workers. Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Let the workers finish or give back what they are at within ``drain_s``. Returns when all are gone."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        settings = self._settings
        devices = settings.devices or find_devices()
        store = JobStore.open(settings.database_url)
        crew = Crew(settings, devices, store)
        clean_at = time.monotonic()
        try:
            while not self._stopping.is_set():
                try:
                    crew.tick()
                    if time.monotonic() >= clean_at:
                        clean_at += CLEAN_S
                        crew.clean(time.time())
                except Exception:  # noqa: BLE001 - logged whole
                    # A full disk or a locked database passes; without a supervisor nothing would go on then.
                    _log.exception("supervisor_failed")
                self._stopping.wait(TICK_S)
        finally:
            self._end(crew)
            store.close()

    def _end(self, crew: Crew) -> None:
        deadline = time.monotonic() + self._settings.drain_s + KILL_AFTER_S
        crew.drain()
        while not crew.is_gone():
            if time.monotonic() > deadline:
                crew.kill()
                deadline = float("inf")
            time.sleep(TICK_S / 4)
