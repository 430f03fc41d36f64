"""The process around a worker: ``python -m server.worker_process``, with its orders on standard input.

The first line of standard input is a ``WorkerOrder`` as JSON. The pipe then stays open for as long as the
supervisor lives: when it closes, there is nobody left to work for.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
from functools import partial
from types import FrameType

from sqlalchemy.exc import SQLAlchemyError

from server.jobs import WorkerId
from server.logs import configure_logging
from server.settings import WorkerOrder
from server.store import JobStore
from server.worker import Drain, Place, Worker

_log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
# What a worker gets beyond its drain time to come to the end of a step.
GRACE_S = 3.0


def main() -> None:
    """Work until SIGTERM comes or the supervisor is gone."""
    wake, alarm = socket.socketpair()
    alarm.setblocking(False)  # noqa: FBT003 - the standard library's signature
    # The signal's byte reaches the watching thread even while the main thread computes outside of Python.
    signal.set_wakeup_fd(alarm.fileno())
    signal.signal(signal.SIGTERM, _leave_it_to_the_byte)
    # Ctrl-C goes to the whole foreground group, but it is the supervisor who decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = WorkerOrder.model_validate_json(_first_line(sys.stdin.fileno()))
    settings = order.settings
    configure_logging(settings)
    if order.device == "cpu":
        # The API process shares these cores and must answer at once.
        os.nice(5)
    place = Place(WorkerId(order.worker), order.device, os.getpid())
    store, drain = JobStore.open(settings.database_url), Drain()
    worker = Worker(place, settings, store, drain=drain)
    threading.Thread(target=partial(_watch, wake, worker, drain, settings.drain_s), daemon=True).start()
    threading.Thread(target=partial(_announce, store, worker), name="heartbeat", daemon=True).start()
    _log.info("worker_started worker=%s device=%s pid=%d", place.id, place.device, place.pid)
    worker.run()
    store.dismiss(place.id)
    store.close()
    _log.info("worker_ended worker=%s", place.id)
    logging.shutdown()
    # Everything is saved. Taking a tensor library apart would keep whoever waits for the end for seconds.
    os._exit(0)


def _leave_it_to_the_byte(number: int, frame: FrameType | None) -> None:
    del number, frame


def _first_line(descriptor: int) -> bytes:
    """Read one line and not a byte more, so that the rest of the pipe can be watched."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte:
            sys.exit("no orders on standard input: workers are started by `homereel serve`")
        line += byte
    return bytes(line)


def _announce(store: JobStore, worker: Worker) -> None:
    beat = threading.Event()
    while True:
        try:
            store.announce(worker.info())
        except SQLAlchemyError as error:
            _log.warning("heartbeat_missed error=%s", type(error).__name__)
        beat.wait(HEARTBEAT_S)


def _watch(wake: socket.socket, worker: Worker, drain: Drain, drain_s: float) -> None:
    """Wait for SIGTERM or the supervisor's end, and see to it that the process ends in time."""
    signalled = _wait_for_end(wake, None)
    drain.begin(drain_s if signalled else 0.0)
    if signalled and not _wait_for_end(wake, drain.left_s()):
        drain.begin(0.0)
    threading.Event().wait(max(0.0, drain.left_s()) + GRACE_S)
    # A step that takes longer than that is not worth waiting for.
    worker.give_back()
    os._exit(1)


def _wait_for_end(wake: socket.socket, timeout_s: float | None) -> bool:
    """Return True after a signal, or when the time is up; False when the supervisor is gone."""
    stdin = sys.stdin.fileno()
    while True:
        readable, _, _ = select.select([wake, stdin], [], [], timeout_s)
        if stdin in readable and not os.read(stdin, 1024):
            return False
        if wake in readable:
            wake.recv(64)
            return True
        if not readable:
            return True


if __name__ == "__main__":
    main()
