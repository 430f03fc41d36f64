"""Writers of one process take turns; none of them is sent away because there are many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import OperationalError

from server import database
from server.tables import worker


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return database.connect(f"sqlite:///{tmp_path / 'a.sqlite3'}")


def write(engine: Engine, name: str) -> None:
    with database.durable(engine).begin() as db:
        db.execute(insert(worker).values(id=name, device="cpu", pid=1, seen_at=0.0))


def names(engine: Engine) -> set[str]:
    with engine.connect() as db:
        return set(db.execute(select(worker.c.id)).scalars())


def test_many_threads_write_without_one_being_sent_away(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with engine.connect() as db:
        # SQLite's own patience, which the turns make unnecessary.
        db.exec_driver_sql("PRAGMA busy_timeout = 0")
    wanted = {f"w{number}" for number in range(60)}
    with ThreadPoolExecutor(30) as pool:
        list(pool.map(lambda name: write(engine, name), wanted))
    assert names(engine) == wanted
    engine.dispose()


def test_a_write_that_fails_gives_its_turn_away(engine: Engine) -> None:
    write(engine, "a")
    for _ in range(3):
        with pytest.raises(Exception, match="UNIQUE"):
            write(engine, "a")
    write(engine, "b")
    assert names(engine) == {"a", "b"}
    engine.dispose()


def test_reading_waits_for_nobody(engine: Engine) -> None:
    with database.durable(engine).begin() as db:
        db.execute(insert(worker).values(id="a", device="cpu", pid=1, seen_at=0.0))
        assert names(engine) == set()
    assert names(engine) == {"a"}
    engine.dispose()


def test_a_thread_that_waits_for_itself_is_told(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.1)
    impatient = database.connect(str(engine.url))
    with database.durable(impatient).begin(), pytest.raises(OperationalError, match="locked"):
        write(impatient, "a")
    write(impatient, "b")
    assert names(impatient) == {"b"}
    impatient.dispose()
    engine.dispose()
