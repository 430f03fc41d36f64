"""Which jobs a client wants to see, what is to be different about one, and whose turn is next: SQL of the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import column, func, literal_column, select, table, text

from server.jobs import PRIORITY_STEP_S, JobStatus
from server.tables import job as jobs

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.base import ReadOnlyColumnCollection


_WORD = re.compile(r"[^\W_]+")
MAX_WORDS = 16


@dataclass(frozen=True)
class Filter:
    """Which jobs to list; None takes all."""

    group: str | None = None
    status: JobStatus | None = None
    model: str | None = None
    starred: bool | None = None
    words: tuple[str, ...] = ()
    """Words, or beginnings of words, that the prompt has all of."""

    def conditions(self, dialect: str) -> tuple[ColumnElement[bool], ...]:
        """Return what the rows must fulfil, in the database's dialect."""
        starred = None if self.starred is None else int(self.starred)
        wanted = {"group_id": self.group, "status": self.status, "model": self.model, "starred": starred}
        same = tuple(jobs.c[name] == value for name, value in wanted.items() if value is not None)
        return (*same, _has(self.words, dialect)) if self.words else same


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a search, the first of them if there are many."""
    return tuple(dict.fromkeys(word.lower() for word in _WORD.findall(text)))[:MAX_WORDS]


def _has(words: tuple[str, ...], dialect: str) -> ColumnElement[bool]:
    """Return the condition that a job's prompt has words that begin with all of these."""
    if dialect == "sqlite":
        # Every word is a quoted string, which the index's language takes for nothing but a word.
        pattern = " ".join(f'"{word}"*' for word in words)
        index = table("prompt_search", column("rowid"))
        found = select(index.c.rowid).where(text("prompt_search MATCH :words").bindparams(words=pattern))
        return jobs.c.seq.in_(found)
    simple: ColumnElement[str] = literal_column("'simple'")
    pattern = " & ".join(f"'{word}':*" for word in words)
    return func.to_tsvector(simple, jobs.c.prompt).op("@@")(func.to_tsquery(simple, pattern))


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
