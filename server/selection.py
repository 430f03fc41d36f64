"""Which jobs a client wants to see, what is to be different about one, and whose turn is next: SQL of the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from server.jobs import PRIORITY_STEP_S, JobStatus
from server.tables import job as jobs

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.base import ReadOnlyColumnCollection


@dataclass(frozen=True)
class Filter:
    """Which jobs to list; None takes all."""

    group: str | None = None
    status: JobStatus | None = None
    model: str | None = None
    starred: bool | None = None

    def conditions(self) -> tuple[ColumnElement[bool], ...]:
        """Return what the rows must fulfil."""
        starred = None if self.starred is None else int(self.starred)
        wanted = {"group_id": self.group, "status": self.status, "model": self.model, "starred": starred}
        return tuple(jobs.c[name] == value for name, value in wanted.items() if value is not None)


NO_FILTER = Filter()


@dataclass(frozen=True)
class Change:
    """What is to be different about a job; None leaves it."""

    starred: bool | None = None
    priority: int | None = None
    metadata: Mapping[str, str] | None = None

    def values(self) -> Mapping[str, object]:
        """Return the columns to set."""
        starred = None if self.starred is None else int(self.starred)
        wanted = {"starred": starred, "priority": self.priority, "metadata": self.metadata}
        return {name: value for name, value in wanted.items() if value is not None}


def due(columns: ReadOnlyColumnCollection[str, Any]) -> ColumnElement[float]:
    """Return what decides whose turn is next, as ``server.scheduler`` has it while no model is loaded."""
    return columns.created_at - columns.priority * PRIORITY_STEP_S
