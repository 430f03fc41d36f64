"""How the store talks to its database: connections, transactions, and bringing the tables up to date."""

from __future__ import annotations

import sqlite3
import threading
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

# As many as the framework answers requests with: each has its connection, and opens it once.
_THREADS = 40
_HAS_TURN = "homereel_has_turn"
# How long a writer waits for another one, which holds the database for a few milliseconds.
_BUSY_TIMEOUT_S = 30.0


def connect(url: str) -> Engine:
    """Return an engine for ``url`` whose tables are those of ``server.tables``; a missing file is created."""
    parsed = make_url(url)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}, "pool_size": _THREADS}
    engine = create_engine(parsed, **options)
    if engine.dialect.name == "sqlite":
        turns = _WriteTurns()
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", turns.begin)
        event.listen(engine, "checkin", turns.end)
    _migrate(engine)
    return engine


def durable(engine: Engine) -> Engine:
    """Return the engine for writes that must survive a loss of power once they are committed."""
    return engine.execution_options(homereel_write="FULL")


def hasty(engine: Engine) -> Engine:
    """Return the engine for writes that a loss of power may undo, such as heartbeats: no wait for the disk."""
    return engine.execution_options(homereel_write="NORMAL")


def _on_sqlite_connect(connection: sqlite3.Connection, record: object) -> None:
    del record
    # Transactions are opened by _on_sqlite_begin; the driver's own would open them too late for a consistent read.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


class _WriteTurns:
    """Lets one thread of this process write at a time.

    SQLite would let them all try, each sleeping ever longer in between: of dozens, some come too late every time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def begin(self, connection: Connection) -> None:
        """Open the transaction."""
        synchronous = connection.get_execution_options().get("homereel_write")
        if synchronous is None:
            connection.exec_driver_sql("BEGIN")
            return
        info = connection.connection.record_info
        assert info is not None  # noqa: S101 - the connection is a pool's; narrows the type
        # A thread that writes while it writes would wait for itself: SQLite is to say so then.
        info[_HAS_TURN] = self._lock.acquire(timeout=_BUSY_TIMEOUT_S)
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        # Taking the write lock at once means waiting for it; upgrading a read to a write would fail instead.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    def end(self, connection: sqlite3.Connection | None, record: ConnectionPoolEntry) -> None:
        """Let the next one write, now that the connection is back in its pool and the transaction through."""
        del connection
        if record.record_info and record.record_info.pop(_HAS_TURN, False):
            self._lock.release()


def _migrate(engine: Engine) -> None:
    config = Config()
    # "%" would be taken for an interpolation.
    config.set_main_option("script_location", str(files("server.migrations")).replace("%", "%%"))
    with durable(engine).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
