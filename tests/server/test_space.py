"""A disk that is nearly or quite full pauses the queue, says so, and loses nothing."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import DatabaseError, OperationalError

from pipelines import media
from server.app import create_app
from server.assets import AssetStore, Variant
from server.jobs import JobId, JobStatus, WorkerId
from server.settings import Settings
from server.space import FULL_PAUSE_S, GB, Gate, Trouble, pause_reason, shortage, trouble_of
from server.store import JobStore
from server.worker import Drain, Place, Worker
from server.workers import WorkerInfo
from tests.conftest import fake_models

if TYPE_CHECKING:
    from tests.conftest import Clock, FakePipeline

ROOT = Path(__file__).resolve().parents[2]
AddJob = Callable[..., JobId]
DISK_FULL = OperationalError("INSERT", {}, Exception("database or disk is full"))


class Usage(NamedTuple):
    """What ``shutil.disk_usage`` returns."""

    total: int
    used: int
    free: int


class Disk:
    """A disk with as much room as the test says."""

    def __init__(self) -> None:
        self.free = 100.0 * GB

    def usage(self, path: Path) -> Usage:
        assert path.exists()
        return Usage(200 * GB, 0, int(self.free))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    return disk


@pytest.fixture
def worker(settings: Settings, store: JobStore, pipeline: FakePipeline, clock: Clock) -> Worker:
    models = fake_models(settings, lambda: pipeline)
    worker = Worker(Place(WorkerId("ann"), "cpu", 1), settings, store, drain=Drain(clock), models=models)
    worker._gate = Gate(settings, clock)
    return worker


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError(errno.ENOSPC, "x"), Trouble.FULL),
        (OSError(errno.EDQUOT, "x"), Trouble.FULL),
        (OSError(errno.EROFS, "x"), Trouble.READ_ONLY),
        (OSError(errno.EIO, "x"), Trouble.BROKEN),
        (OSError(errno.ENOENT, "x"), None),
        (DISK_FULL, Trouble.FULL),
        (OperationalError("INSERT", {}, Exception("database is locked")), Trouble.LOCKED),
        (OperationalError("INSERT", {}, Exception("attempt to write a readonly database")), Trouble.READ_ONLY),
        (DatabaseError("SELECT", {}, Exception("database disk image is malformed")), Trouble.BROKEN),
        (OperationalError("SELECT", {}, Exception("x"), connection_invalidated=True), Trouble.UNREACHABLE),
        (OperationalError("SELECT", {}, Exception("no such table: job")), None),
        (ValueError("disk is full"), None),
    ],
)
def test_trouble_is_recognised(error: Exception, trouble: Trouble | None) -> None:
    assert trouble_of(error) is trouble
    wrapped = RuntimeError("could not save")
    wrapped.__cause__ = error
    assert trouble_of(wrapped) is trouble


def test_there_is_a_shortage_below_the_mark_only(disk: Disk, settings: Settings) -> None:
    careful = settings.model_copy(update={"min_free_gb": 2.0})
    disk.free = 2 * GB
    assert shortage(careful) is None
    disk.free = 2 * GB - 1
    assert "2 GB of --min-free-gb" in (shortage(careful) or "")
    disk.free = 0
    assert shortage(settings.model_copy(update={"min_free_gb": 0})) is None


def test_one_worker_that_goes_on_is_enough(disk: Disk, settings: Settings) -> None:
    assert pause_reason(settings, ["full", None]) is None
    assert pause_reason(settings, ["full", "full"]) == "full"
    assert pause_reason(settings, []) is None
    disk.free = 0
    assert "paused" in (pause_reason(settings, [None]) or "")


def test_below_the_mark_nothing_is_begun_and_nothing_lost(
    disk: Disk, worker: Worker, store: JobStore, add_job: AddJob
) -> None:
    job_id = add_job()
    disk.free = 0.4 * GB
    for _ in range(3):
        assert worker.run_one() is False
    assert (store.get(job_id).status, store.get(job_id).attempts) == (JobStatus.QUEUED, 0)
    assert "0.40 GB are free" in (worker.info().paused or "")
    disk.free = 0.6 * GB
    assert worker.run_one() is True
    assert (store.get(job_id).status, store.get(job_id).attempts) == (JobStatus.COMPLETED, 1)
    assert worker.info().paused is None


def test_a_running_video_is_finished_below_the_mark(
    disk: Disk, worker: Worker, store: JobStore, pipeline: FakePipeline, add_job: AddJob
) -> None:
    def fill(step: int) -> None:
        disk.free = 0

    job_id = add_job()
    pipeline.on_step = fill
    worker.run_one()
    assert store.get(job_id).status is JobStatus.COMPLETED


def test_a_video_that_does_not_fit_waits(
    worker: Worker,
    store: JobStore,
    assets: AssetStore,
    clock: Clock,
    add_job: AddJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    job_id = add_job()
    with monkeypatch.context() as patch:
        patch.setattr(media, "thumbnail", full)
        for _ in range(5):
            worker.run_one()
            clock.advance(FULL_PAUSE_S)
            assert (store.get(job_id).status, store.get(job_id).attempts) == (JobStatus.QUEUED, 0)
    worker._gate.struck(Trouble.FULL)
    assert worker.run_one() is False
    assert worker.info().paused == Trouble.FULL.paused
    assert assets.sizes().get(job_id, 0) == 0
    clock.advance(FULL_PAUSE_S)
    assert worker.run_one() is True
    assert store.get(job_id).status is JobStatus.COMPLETED
    assert assets.path(job_id, Variant.VIDEO).stat().st_size > 0


def test_a_database_that_cannot_grow_is_asked_again(
    disk: Disk, worker: Worker, store: JobStore, add_job: AddJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.worker.RECORD_AGAIN_S", 0)
    finish, tries = store.finish, iter([DISK_FULL, DISK_FULL])

    def once_there_is_room(*arguments: Any, **options: Any) -> bool:
        for error in tries:
            raise error
        return finish(*arguments, **options)

    monkeypatch.setattr(store, "finish", once_there_is_room)
    job_id = add_job()
    worker.run_one()
    assert store.get(job_id).status is JobStatus.COMPLETED
    assert list(tries) == []


def test_a_worker_outlives_a_full_database(
    disk: Disk, worker: Worker, store: JobStore, add_job: AddJob, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("server.worker.RECORD_AGAIN_S", 0)
    claim, tries = store.claim, iter([DISK_FULL])

    def once_there_is_room(*arguments: Any) -> Any:
        for error in tries:
            raise error
        worker._drain.begin(1e9)
        return claim(*arguments)

    monkeypatch.setattr(store, "claim", once_there_is_room)
    monkeypatch.setattr(worker._gate, "struck", lambda _: None)
    job_id = add_job()
    worker.run()
    assert store.get(job_id).status is JobStatus.COMPLETED


def test_other_faults_of_the_database_still_end_the_worker(
    disk: Disk, worker: Worker, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> int:
        raise OperationalError("SELECT", {}, Exception("no such table: job"))

    monkeypatch.setattr(store, "requeue_lost", fail)
    with pytest.raises(OperationalError):
        worker.run()


@pytest.fixture
def client(settings: Settings, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: True)
    with TestClient(create_app(settings, supervise=False)) as client:
        yield client


def announce(store: JobStore, paused: str | None = None) -> None:
    info = WorkerInfo(WorkerId("ann"), "cpu", 1, None, None, 4e9, paused)
    store.announce(info)


@pytest.mark.parametrize("who", ["server", "worker"])
def test_everybody_is_told_why_and_videos_are_still_accepted(
    client: TestClient, store: JobStore, disk: Disk, who: str
) -> None:
    announce(store)
    assert client.get("/ready").json()["status"] == "ready"
    assert client.get("/v1/queue").json()["paused"] is None
    assert "homereel_queue_paused 0.0" in client.get("/metrics").text
    if who == "server":
        disk.free = 0.1 * GB
    else:
        announce(store, Trouble.FULL.paused)
    ready = client.get("/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "paused")
    assert "The queue is paused" in ready.json()["reason"]
    assert client.get("/v1/queue").json()["paused"] == ready.json()["reason"]
    metrics = client.get("/metrics").text
    assert "homereel_queue_paused 1.0" in metrics
    assert f"homereel_disk_free_bytes {disk.free:.0e}" in metrics
    accepted = client.post("/v1/videos", json={"prompt": "a ball"})
    assert (accepted.status_code, accepted.json()["status"]) == (200, "queued")


@pytest.mark.parametrize("error", [DISK_FULL, OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota")])
def test_what_does_not_fit_is_refused_and_not_kept(
    client: TestClient, store: JobStore, error: Exception, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    services: Any = client.app.state.services  # pyright: ignore
    monkeypatch.setattr(services.store, "add", full)
    answer = client.post("/v1/videos", json={"prompt": "a ball"})
    body = answer.json()["error"]
    assert (answer.status_code, body["code"], body["type"]) == (507, "insufficient_storage", "server_error")
    assert answer.headers["x-should-retry"] == "false"
    assert store.waiting() == ()
    assert AssetStore(settings.assets_dir).sizes() == {}


def test_other_faults_are_still_faults(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOENT, "nothing at /secret")

    services: Any = client.app.state.services  # pyright: ignore
    monkeypatch.setattr(services.store, "get", fail)
    answer = client.get(f"/v1/videos/video_{48 * '0'}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


def can_mount() -> bool:
    """Tell whether this user may mount a file system in a name space of their own."""
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not can_mount(), reason="this machine lets no ordinary user mount a file system")
def test_a_disk_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=8m none "$1" && exec "$2" -m tests.server.full_disk "$1"'
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
