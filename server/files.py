"""Files that clients upload, and those that batches write: a row for what each is, a file for what is in it.

Content is on disk before its row is committed, and goes after its row is hidden: a row without content is never seen,
content without a row is swept up.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple, NewType

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    RowMapping,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from server import database
from server.disk import written_whole
from server.ids import new_id, shape_of
from server.jobs import Owner
from server.quota import Quota
from server.tables import batch as batches
from server.tables import file as files

FileId = NewType("FileId", str)

FILE_ID = shape_of("file-")
BATCH_OUTPUT = "batch_output"
# Longer than any upload takes from its first byte on disk to its row.
STRAY_S = 3600.0
_NAME_BYTES = 255
# Control characters, line ends, what turns the direction of writing (a name could show another ending than it has).
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class FileNotFound(Exception):
    """There is no such file, it has been deleted, or its time is over."""

    def __init__(self, file_id: FileId) -> None:
        super().__init__(f"no file {file_id}")
        self.file_id = file_id


class FilesFull(Exception):
    """All files together would take more room than they may."""

    def __init__(self, max_bytes: int, used_bytes: int) -> None:
        super().__init__(f"{used_bytes} of {max_bytes} bytes are taken")
        self.max_bytes = max_bytes
        self.used_bytes = used_bytes


@dataclass(frozen=True)
class StoredFile:
    """A file. Times are Unix seconds.

    Attributes:
        purpose: What it may be used for.
        filename: What its owner calls it; nothing is looked up by that name.
        bytes: Size of its content.
        expires_at: When it goes; None for never.
    """

    id: FileId
    owner: Owner
    purpose: str
    filename: str
    bytes: int
    created_at: float
    expires_at: float | None = None


class FilePage(NamedTuple):
    """A part of a list, and whether more follows."""

    files: tuple[StoredFile, ...]
    has_more: bool


class FileStore:
    """All files, of everybody. Safe to use from many threads and processes."""

    def __init__(self, engine: Engine, folder: Path, now: Callable[[], float]) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._folder = folder
        self._now = now

    def add(
        self, new: StoredFile, content: Iterable[bytes], *, max_total_bytes: int, quota: Quota | None = None
    ) -> StoredFile:
        """Keep a file. When this returns, it survives a loss of power; when it raises, nothing is left of it.

        Args:
            new: What it is; ``bytes`` is what the caller believes, and corrected.
            content: Its bytes.
            max_total_bytes: How much all files together may take.
            quota: How many files an owner may have.

        Raises:
            FilesFull: With it, they would take more.
            QuotaExceeded: Its owner has as many as may be.
        """
        with self._reads.connect() as db:
            _check_room(db, new.bytes, max_total_bytes)
            if quota is not None:
                quota.check(db, files, new.owner, 1)
        with self.writing(new) as target:
            for chunk in content:
                target.write(chunk)
        try:
            stored = self.measured(new)
            with self._writes.begin() as db:
                _check_room(db, stored.bytes, max_total_bytes)
                if quota is not None:
                    quota.check(db, files, new.owner, 1)
                db.execute(insert(files).values(row_of(stored)))
        except BaseException:
            self.discard(new.id)
            raise
        return stored

    def writing(self, new: StoredFile) -> AbstractContextManager[BinaryIO]:
        """Lend a file that becomes the content of ``new`` when the block ends. It has no row then."""
        return written_whole(self.content_path(new.id))

    def measured(self, new: StoredFile) -> StoredFile:
        """Return the file with the size that its content has."""
        return replace(new, bytes=self.content_path(new.id).stat().st_size)

    def discard(self, file_id: FileId) -> None:
        """Remove the content of a file that has no row."""
        self.content_path(file_id).unlink(missing_ok=True)

    def get(self, file_id: FileId, owner: Owner | None = None) -> StoredFile:
        """Return the file.

        Here and below, whoever names an ``owner`` finds only what is that owner's.

        Raises:
            FileNotFound: There is none.
        """
        if not FILE_ID.fullmatch(file_id):
            raise FileNotFound(file_id)
        query = select(files).where(files.c.id == file_id, self._is_shown(), _is_of(owner))
        with self._reads.connect() as db:
            row = db.execute(query).mappings().one_or_none()
        if row is None:
            raise FileNotFound(file_id)
        return _file_from(row)

    def content(self, file_id: FileId, owner: Owner | None = None) -> Path:
        """Return the file's content.

        Raises:
            FileNotFound: There is none.
        """
        path = self.content_path(self.get(file_id, owner).id)
        if not path.is_file():
            raise FileNotFound(file_id)
        return path

    def content_path(self, file_id: FileId) -> Path:
        """Return where the content of the file is as long as a row leads there, also a hidden one.

        Raises:
            FileNotFound: The id is none.
        """
        if not FILE_ID.fullmatch(file_id):
            raise FileNotFound(file_id)
        return self._folder / file_id

    def list(
        self, *, after: FileId | None, limit: int, newest_first: bool, owner: Owner | None, purpose: str | None = None
    ) -> FilePage:
        """Return up to ``limit`` files in order of creation, those that follow ``after`` if it is given.

        Ids sort by creation, so ``after`` need not exist any more.
        """
        query = select(files).where(self._is_shown(), _is_of(owner)).limit(limit + 1)
        query = query.order_by(files.c.id.desc() if newest_first else files.c.id.asc())
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        if after is not None:
            query = query.where(files.c.id < after if newest_first else files.c.id > after)
        with self._reads.connect() as db:
            found = [_file_from(row) for row in db.execute(query).mappings()]
        return FilePage(tuple(found[:limit]), has_more=len(found) > limit)

    def delete(self, file_id: FileId, owner: Owner | None = None) -> None:
        """Hide the file from everybody at once. Its content goes when no batch reads it any more.

        Raises:
            FileNotFound: There is none.
        """
        hidden = update(files).where(files.c.id == file_id, self._is_shown(), _is_of(owner))
        with self._writes.begin() as db:
            if db.execute(hidden.values(deleted_at=self._now())).rowcount == 0:
                raise FileNotFound(file_id)
        self._discard_unused()

    def sweep(self) -> int:
        """Remove files whose time is over or that were deleted, and content that no row leads to; return how many."""
        return self._discard_unused() + self._discard_strays(self._now() - STRAY_S)

    def _discard_unused(self) -> int:
        gone = or_(files.c.deleted_at.is_not(None), files.c.expires_at <= self._now())
        with self._reads.connect() as db:
            found = [FileId(name) for name in db.execute(select(files.c.id).where(gone, ~_IS_READ)).scalars()]
        for file_id in found:
            self.content_path(file_id).unlink(missing_ok=True)
            with self._writes.begin() as db:
                db.execute(delete(files).where(files.c.id == file_id))
        return len(found)

    def _discard_strays(self, before: float) -> int:
        old = [path for path in self._folder.glob("*") if _touched_at(path) < before]
        discarded = 0
        with self._reads.connect() as db:
            for path in old:
                if db.execute(select(files.c.id).where(files.c.id == path.name)).one_or_none() is None:
                    path.unlink(missing_ok=True)
                    discarded += 1
        return discarded

    def _is_shown(self) -> ColumnElement[bool]:
        lives = or_(files.c.expires_at.is_(None), files.c.expires_at > self._now())
        return and_(files.c.deleted_at.is_(None), lives)


_IS_READ = exists().where(
    batches.c.input_file_id == files.c.id, batches.c.status.in_(("validating", "in_progress", "cancelling"))
)


def new_file(
    owner: Owner, purpose: str, filename: str, created_at: float, *, size: int = 0, lifetime_s: float | None = None
) -> StoredFile:
    """Return a file with a fresh id and a name that is safe to show."""
    file_id = FileId(new_id("file-", created_at))
    expires_at = None if lifetime_s is None else created_at + lifetime_s
    return StoredFile(file_id, owner, purpose, plain_name(filename), size, created_at, expires_at)


def plain_name(filename: str) -> str:
    """Return the last part of a file's name without control characters, at most 255 bytes long."""
    name = _NOT_IN_NAMES.sub("", re.split(r"[/\\]", filename)[-1]).strip()
    name = name.encode()[:_NAME_BYTES].decode(errors="ignore")
    return name if name.strip(".") else "upload"


def row_of(file: StoredFile) -> dict[str, object]:
    """Return the file's row."""
    return dict(vars(file))


def _file_from(row: RowMapping) -> StoredFile:
    return StoredFile(**{name: value for name, value in row.items() if name != "deleted_at"})


def _is_of(owner: Owner | None) -> ColumnElement[bool]:
    return true() if owner is None else files.c.owner == owner


def _check_room(db: Connection, wanted_bytes: int, max_total_bytes: int) -> None:
    # The sum of nothing is null.
    used = int(db.execute(select(func.sum(files.c.bytes))).scalar_one() or 0)
    if used + wanted_bytes > max_total_bytes:
        raise FilesFull(max_total_bytes, used)


def _touched_at(path: Path) -> float:
    # Whoever it belongs to may be renaming it just now.
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return float("inf")
