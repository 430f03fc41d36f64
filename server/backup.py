"""A copy of everything that a server keeps, taken while it runs; a server that is started on it goes on from there."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from server.disk import sync_folder
from server.settings import Settings

# What attempts leave, and what is being written: the job is begun again where it was copied without.
_PASSING = ("work",)


@dataclass(frozen=True)
class Copied:
    """What a backup has.

    Attributes:
        files: How many files, the database not counted.
        new: How many of them were not there before.
        size: Bytes of all.
        vanished: How many were deleted while they were to be copied.
    """

    files: int
    new: int
    size: int
    vanished: int


class NotPossible(Exception):
    """The backup cannot be made, or is not sound; the message says why."""


def back_up(settings: Settings, into: Path) -> Copied:
    """Copy database and files into a folder; what it has already is not copied again.

    The database comes first: files are stored before the row that speaks of them, so every finished video of the copy
    has its files, unless somebody deletes it meanwhile.

    Raises:
        NotPossible: The database is elsewhere, the folder is the server's own, or the copy is not sound.
        OSError: The folder cannot be written.
    """
    source = _database_of(settings)
    into = into.absolute()
    if into == settings.data_dir.absolute() or settings.assets_dir in (into, *into.parents):
        raise NotPossible(f"{into} is where the server itself keeps its things")
    into.mkdir(parents=True, exist_ok=True)
    _copy_database(source, into / source.name)
    files = new = size = vanished = 0
    folders = (
        settings.assets_dir,
        settings.files_dir,
        settings.characters_dir,
        settings.models_dir,
        settings.loras_dir,
    )
    for path in (path for folder in folders for path in _kept(folder)):
        target = into / path.relative_to(settings.data_dir.absolute())
        try:
            new += _copy(path, target)
            size += target.stat().st_size
            files += 1
        except FileNotFoundError:
            vanished += 1
    sync_folder(into)
    return Copied(files, new, size, vanished)


def _database_of(settings: Settings) -> Path:
    if settings.store_url is not None:
        raise NotPossible("the jobs are in a database of their own (--store-url); back that up with its own tools")
    path = Path(settings.database_url.removeprefix("sqlite:///"))
    if not path.is_file():
        raise NotPossible(f"there is no database in {settings.data_dir}")
    return path


def _copy_database(source: Path, target: Path) -> None:
    """Copy the database page by page, as SQLite does it beside writers, and look whether the copy is sound."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(partial)) as copy,
        ):
            live.backup(copy)
            # Without the journal of the original, which is not copied.
            copy.execute("PRAGMA journal_mode = DELETE")
            (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.Error as error:
        partial.unlink(missing_ok=True)
        raise NotPossible(f"the database cannot be copied: {error}") from error
    if verdict != "ok":
        partial.unlink(missing_ok=True)
        raise NotPossible(f"the database is damaged: {verdict}")
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    # The journal of an older copy would be applied to this one.
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    partial.replace(target)


def _kept(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder that are whole."""
    for path in sorted(folder.rglob("*")):
        passing = any(part in _PASSING for part in path.relative_to(folder).parts[1:-1])
        if path.is_file() and not path.is_symlink() and not passing and not path.name.startswith("."):
            yield path


def _copy(source: Path, target: Path) -> bool:
    """Copy a file that is not there yet; files are replaced and removed here, never changed."""
    there = source.stat()
    with suppress(FileNotFoundError):
        if (target.stat().st_size, target.stat().st_mtime_ns) == (there.st_size, there.st_mtime_ns):
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copy2(source, partial)
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(target)
    return True
