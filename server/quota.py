"""How many rows of a kind one owner may have: whatever a client can make more of has an end."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Table, func, select

from server.jobs import Owner


class QuotaExceeded(Exception):
    """An owner has as many of something as may be."""

    def __init__(self, quota: Quota) -> None:
        super().__init__(f"there are {quota.limit} {quota.what} already")
        self.quota = quota


@dataclass(frozen=True)
class Quota:
    """A limit of everybody's.

    Attributes:
        what: What is counted, in the plural; the setting is called after it.
        limit: How many of it one owner may have.
        advice: What an owner can do who has as many, ending without a comma.
    """

    what: str
    limit: int
    advice: str = "Delete some"

    @property
    def setting(self) -> str:
        """The environment variable that says it."""
        return f"HOMEREEL_MAX_{self.what.upper()}"

    def check(self, db: Connection, table: Table, owner: Owner, new: int, *counted: ColumnElement[bool]) -> None:
        """Make sure that ``new`` more rows of the owner's fit, in the transaction that adds them.

        Raises:
            QuotaExceeded: They do not.
        """
        query = select(func.count()).select_from(table).where(table.c.owner == owner, *counted)
        if db.execute(query).scalar_one() + new > self.limit:
            raise QuotaExceeded(self)
