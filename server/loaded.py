"""What a worker says of the models that it holds, and of the memory that they are in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model.

    Attributes:
        card: Id of its card.
        plan: How it runs, in a few words.
        memory_bytes: What its weights take of the device while it has nothing to do.
        unload_at: Unix time at which it goes unless it is used again; None if it stays, or is in use.
    """

    card: str
    plan: str
    memory_bytes: int
    unload_at: float | None = None


@dataclass(frozen=True)
class DeviceMemory:
    """A device's memory; for a CPU, the machine's.

    Attributes:
        name: What the device is called.
        total_bytes: All that it has.
        free_bytes: What can still be had of it, whoever holds the rest.
    """

    name: str
    total_bytes: int
    free_bytes: int
