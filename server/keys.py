"""API keys: made, listed and revoked by the operator. Only digests are stored."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Engine, RowMapping, func, insert, select, update

from server import database
from server.jobs import Owner
from server.tables import api_key, job, metadata

PREFIX = "sk-homereel-"
SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
"""The shape of every key: 256 random bits in URL-safe base64."""


class KeyNotFound(Exception):
    """There is no such key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id}")
        self.key_id = key_id


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret. Times are Unix seconds.

    Attributes:
        id: Owner of everything that is made with the key.
        name: What the operator calls it; may be empty.
        hint: The secret's last four characters.
        requests_per_minute: How many requests that make or change something it may send; None for any number.
        max_queued: How many of its videos may wait at a time; None for as many as the server takes.
        created_at: When it was made.
        revoked_at: Since when it is refused; None while it is good.
    """

    id: Owner
    name: str
    hint: str
    requests_per_minute: int | None
    max_queued: int | None
    created_at: float
    revoked_at: float | None = None


class NewKey(NamedTuple):
    """A key, its secret, which nobody can learn again, and how many videos it has been given."""

    key: ApiKey
    secret: str
    adopted: int


def digest_of(secret: str) -> str:
    """Return what is stored of a secret.

    One round of SHA-256 is enough: slow, salted hashes exist for passwords, which people choose from a small set. A
    secret of 256 random bits cannot be found by trying, however fast, and a slow hash would be paid on every request.
    """
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class KeyStore:
    """All keys, shared by every process that opens the same database. Safe to use from many threads."""

    def __init__(self, engine: Engine, now: Callable[[], float] = time.time) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._now = now

    def create(
        self,
        name: str = "",
        *,
        requests_per_minute: int | None = None,
        max_queued: int | None = None,
        adopt: Owner | None = None,
    ) -> NewKey:
        """Make a key.

        Args:
            name: For the operator.
            requests_per_minute: See ``ApiKey``.
            max_queued: See ``ApiKey``.
            adopt: The new key becomes the owner of all that was this owner's: ``NOBODY`` for what was made while
                there were no keys, another key's id for what was made with that one.

        Raises:
            KeyNotFound: There is no key to adopt from.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey(
            id=Owner(f"key_{secrets.token_hex(12)}"),
            name=name,
            hint=secret[-4:],
            requests_per_minute=requests_per_minute,
            max_queued=max_queued,
            created_at=self._now(),
        )
        adopted = 0
        with self._writes.begin() as db:
            if adopt and db.execute(select(api_key.c.id).where(api_key.c.id == adopt)).one_or_none() is None:
                raise KeyNotFound(adopt)
            db.execute(insert(api_key).values(**vars(key), digest=digest_of(secret)))
            if adopt is not None:
                for table in metadata.sorted_tables:
                    if "owner" in table.c:
                        moved = db.execute(update(table).where(table.c.owner == adopt).values(owner=key.id))
                        adopted += moved.rowcount if table is job else 0
        return NewKey(key, secret, adopted)

    def list(self) -> tuple[ApiKey, ...]:
        """Return every key, revoked ones too, in order of creation."""
        with self._reads.connect() as db:
            rows = db.execute(select(api_key).order_by(api_key.c.created_at, api_key.c.id)).mappings()
            return tuple(_key_from(row) for row in rows)

    def count_videos(self, owner: Owner) -> int:
        """Return how many videos somebody has."""
        mine = select(func.count()).where(job.c.owner == owner, job.c.deleted_at.is_(None))
        with self._reads.connect() as db:
            return db.execute(mine).scalar_one()

    def usable(self) -> dict[str, ApiKey]:
        """Return the keys that have not been revoked, by digest."""
        with self._reads.connect() as db:
            rows = db.execute(select(api_key).where(api_key.c.revoked_at.is_(None))).mappings()
            return {row["digest"]: _key_from(row) for row in rows}

    def revoke(self, key_id: str) -> ApiKey:
        """Refuse the key from now on. What was made with it stays, and what it has queued is still made.

        Raises:
            KeyNotFound: There is no such key. One that is revoked already stays as it is.
        """
        with self._writes.begin() as db:
            mine = api_key.c.id == key_id
            db.execute(update(api_key).where(mine, api_key.c.revoked_at.is_(None)).values(revoked_at=self._now()))
            row = db.execute(select(api_key).where(mine)).mappings().one_or_none()
        if row is None:
            raise KeyNotFound(key_id)
        return _key_from(row)


def _key_from(row: RowMapping) -> ApiKey:
    return ApiKey(**{name: value for name, value in row.items() if name != "digest"})
