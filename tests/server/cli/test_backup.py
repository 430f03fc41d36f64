"""``homereel backup``: a copy that a server can go on from, whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from server.assets import AssetStore, Variant
from server.jobs import Job, JobId, JobResult, JobStatus, WorkerId
from server.settings import Settings
from server.store import JobStore

Run = Callable[..., tuple[int, str, str]]
AddJob = Callable[..., JobId]
ANN = WorkerId("ann")


@pytest.fixture
def backup(homereel: Run, settings: Settings) -> Run:
    return lambda *words: homereel("backup", *words, "--data-dir", settings.data_dir)


def finish(store: JobStore, assets: AssetStore, job_id: JobId, content: bytes) -> None:
    store.claim(job_id, ANN, 30)
    clip = assets._root.parent / "clip"
    clip.write_bytes(content)
    assets.put(job_id, Variant.VIDEO, clip)
    store.finish(job_id, ANN, JobResult({}, 0, sizes={"video": len(content)}))


def test_a_server_goes_on_from_the_copy(
    backup: Run, store: JobStore, assets: AssetStore, settings: Settings, add_job: AddJob, tmp_path: Path
) -> None:
    done, waiting = add_job(), add_job()
    finish(store, assets, done, b"a film")
    assets.save_input(waiting, "first.png", [b"a picture"])
    with assets.work_dir(waiting) as work:
        (work / "half.mp4").write_bytes(b"half")
        status, _, errors = backup(tmp_path / "copy")
    assert (status, errors) == (0, "")

    shutil.rmtree(settings.data_dir)
    copy = settings.model_copy(update={"data_dir": tmp_path / "copy"})
    restored = JobStore.open(copy.database_url)
    kept = AssetStore(copy.assets_dir)
    assert restored.get(done).status is JobStatus.COMPLETED
    assert kept.path(done, Variant.VIDEO, restored.get(done).stored("video")).read_bytes() == b"a film"
    assert [job.id for job in restored.waiting()] == [waiting]
    assert kept.input_path(waiting, "first.png").read_bytes() == b"a picture"
    assert not list(copy.assets_dir.rglob("half.mp4"))
    restored.close()


def test_the_second_time_only_what_is_new_is_copied(
    backup: Run, store: JobStore, assets: AssetStore, add_job: AddJob, tmp_path: Path
) -> None:
    finish(store, assets, add_job(), b"one")
    first = json.loads(backup(tmp_path / "copy", "--json")[1])
    assert (first["files"], first["new"]) == (1, 1)
    finish(store, assets, add_job(), b"another")
    second = json.loads(backup(tmp_path / "copy", "--json")[1])
    assert (second["files"], second["new"], second["size"]) == (2, 1, 10)
    with sqlite3.connect(tmp_path / "copy" / "homereel.sqlite3") as copy:
        assert copy.execute("SELECT count(*) FROM job").fetchone() == (2,)


def test_a_copy_is_taken_while_somebody_writes(
    backup: Run, store: JobStore, make_job: Callable[..., Job], tmp_path: Path
) -> None:
    """A transaction that is open is not in the copy, and holds it up no longer than it takes to read."""
    (job,) = store.add(make_job(), max_queued=9)
    with store.engine.connect() as db:
        db.exec_driver_sql("UPDATE job SET priority = 5")
        assert backup(tmp_path / "copy")[0] == 0
        db.rollback()
    with sqlite3.connect(tmp_path / "copy" / "homereel.sqlite3") as copy:
        assert copy.execute("SELECT id, priority FROM job").fetchall() == [(job.id, 0)]


@pytest.mark.parametrize("where", [".", "assets", "assets/deeper"])
def test_the_servers_own_folder_is_no_backup(backup: Run, store: JobStore, settings: Settings, where: str) -> None:
    status, _, errors = backup(settings.data_dir / where)
    assert (status, "where the server itself keeps its things" in errors) == (1, True)


def test_without_a_database_there_is_nothing_to_copy(backup: Run, tmp_path: Path) -> None:
    status, _, errors = backup(tmp_path / "copy")
    assert (status, "there is no database" in errors) == (1, True)


def test_a_damaged_database_is_said_to_be_damaged_and_no_copy_is_left(
    backup: Run, settings: Settings, tmp_path: Path
) -> None:
    settings.data_dir.mkdir(parents=True)
    (settings.data_dir / "homereel.sqlite3").write_bytes(b"no database " * 1000)
    status, _, errors = backup(tmp_path / "copy")
    assert (status, "cannot be copied: file is not a database" in errors) == (1, True)
    assert list((tmp_path / "copy").iterdir()) == []
