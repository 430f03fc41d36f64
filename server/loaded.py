"""What a worker says of a model that it holds."""

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
