"""What a worker says of itself, now and then. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from server.jobs import JobId, WorkerId
from server.loaded import DeviceMemory, LoadedModel


@dataclass(frozen=True)
class WorkerInfo:
    """A worker's sign of life: the card it used last and the job it is at, if any, and why it takes none, if so.

    Attributes:
        models: Those that it has loaded, the one that it used last first.
        memory: That of its device, if it is known.
    """

    id: WorkerId
    device: str
    pid: int
    card: str | None
    job: JobId | None
    seen_at: float
    paused: str | None = None
    models: tuple[LoadedModel, ...] | None = None
    memory: DeviceMemory | None = None
