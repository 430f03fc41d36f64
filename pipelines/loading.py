"""How far a model is loaded, told past the layers between who loads and who wants to know.

Families need not hand anything through: whoever loads says ``loaded``, whoever waits says ``listening``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

Note = Callable[[float], None]
"""Takes the share that is loaded, from 0 to 1. Raising from it ends the loading there and then."""


def _nobody(share: float) -> None:
    del share


_listener: ContextVar[Note] = ContextVar("loading", default=_nobody)


@contextmanager
def listening(note: Note) -> Generator[None]:
    """Have ``note`` called with every ``loaded`` of this thread for as long as the block runs."""
    token = _listener.set(note)
    try:
        yield
    finally:
        _listener.reset(token)


def loaded(share: float) -> None:
    """Say which share of the model is loaded."""
    _listener.get()(share)
