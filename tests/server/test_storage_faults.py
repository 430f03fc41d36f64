"""Storage that fails: the client is told in the envelope, the queue pauses, nothing is lost, and it goes on by itself.

A disk that is full is in test_space.py, downloads and files that are half written in test_assets.py.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from pipelines import media
from server import database
from server.app import create_app
from server.assets import AssetStore, Variant
from server.jobs import JobId, JobStatus, WorkerId
from server.settings import Settings
from server.space import FULL_PAUSE_S, Gate, Trouble
from server.store import JobStore
from server.worker import Drain, Place, Worker
from tests.conftest import fake_models

if TYPE_CHECKING:
    from tests.conftest import Clock, FakePipeline

AddJob = Callable[..., JobId]
PROMPT = {"prompt": "a red ball"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits half a minute for a database that is locked."""
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_S", 0.05)


@pytest.fixture
def worker(settings: Settings, store: JobStore, pipeline: FakePipeline, clock: Clock) -> Worker:
    models = fake_models(settings, lambda: pipeline)
    worker = Worker(Place(WorkerId("ann"), "cpu", 1), settings, store, drain=Drain(clock), models=models)
    worker._gate = Gate(settings, clock)
    return worker


@pytest.fixture
def client(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: card.weights.package is not None)
    with TestClient(create_app(settings, supervise=False)) as client:
        yield client


def file_of(settings: Settings) -> Path:
    return Path(settings.database_url.removeprefix("sqlite:///"))


@contextmanager
def locked(settings: Settings) -> Iterator[None]:
    """Hold the database as a backup program or a shell would that somebody forgot."""
    other = sqlite3.connect(file_of(settings), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def refused(answer: Any) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def test_a_database_that_somebody_holds_refuses_and_then_takes_the_request(
    client: TestClient, settings: Settings, store: JobStore
) -> None:
    with locked(settings):
        status, code, message = refused(client.post("/v1/videos", json=PROMPT))
        assert (status, code) == (503, "storage_unavailable")
        assert "another program holds the server's database" in message
        # Reading goes on.
        assert client.get("/v1/videos").status_code == 200
    assert store.waiting() == ()
    assert client.post("/v1/videos", json=PROMPT).status_code == 200


def test_a_worker_outlives_a_database_that_somebody_holds(
    worker: Worker, store: JobStore, settings: Settings, add_job: AddJob, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("server.worker.RECORD_AGAIN_S", 0)
    job_id = add_job()
    begun, tries = worker._drain.begun, [0]

    def after_a_while(wait_s: float = 0.0) -> bool:
        """Release the database at the third look, and end when the job is done."""
        tries[0] += 1
        if tries[0] == 3:
            holding.__exit__(None, None, None)
            clock.advance(FULL_PAUSE_S)
        return store.get(job_id).status is JobStatus.COMPLETED or begun(0.0)

    monkeypatch.setattr(worker._drain, "begun", after_a_while)
    holding = locked(settings)
    holding.__enter__()
    worker.run()
    job = store.get(job_id)
    assert (job.status, job.attempts) == (JobStatus.COMPLETED, 1)
    assert tries[0] >= 3


@pytest.mark.parametrize(("number", "trouble"), [(errno.EROFS, Trouble.READ_ONLY), (errno.EIO, Trouble.BROKEN)])
def test_a_folder_that_takes_nothing_pauses_the_queue(
    worker: Worker, clock: Clock, add_job: AddJob, number: int, trouble: Trouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, assets = worker._store, worker._assets

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "no")

    job_id = add_job()
    with monkeypatch.context() as patch:
        patch.setattr(AssetStore, "put", fail)
        worker.run_one()
    assert (store.get(job_id).status, store.get(job_id).attempts) == (JobStatus.QUEUED, 0)
    assert worker.run_one() is False
    assert worker.info().paused == trouble.paused
    clock.advance(FULL_PAUSE_S)
    worker.run_one()
    assert store.get(job_id).status is JobStatus.COMPLETED
    assert media.probe(assets.path(job_id, Variant.VIDEO)).shape == store.get(job_id).request.delivery


def test_a_request_that_cannot_be_kept_is_refused_in_the_envelope(
    client: TestClient, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system: /srv/secret")

    with monkeypatch.context() as patch:
        patch.setattr(AssetStore, "save_input", fail)
        answer = client.post(
            "/v1/videos", data=PROMPT, files={"input_reference": ("a.png", b"\x89PNG\r\n\x1a\n", "image/png")}
        )
    status, code, message = refused(answer)
    assert (status, code) == (503, "storage_unavailable")
    assert "secret" not in message
    assert store.waiting() == ()


@pytest.mark.parametrize("variant", list(Variant))
def test_a_file_that_has_lost_its_end_is_never_sent(
    client: TestClient, worker: Worker, store: JobStore, assets: AssetStore, variant: Variant
) -> None:
    video_id = client.post("/v1/videos", json=PROMPT).json()["id"]
    worker.run_one()
    path = assets.path(video_id, variant)
    address = f"/v1/videos/{video_id}/content?variant={variant}"
    assert client.get(address).content == path.read_bytes()
    path.write_bytes(path.read_bytes()[:-1])
    status, code, message = refused(client.get(address))
    assert (status, code) == (500, "content_damaged")
    assert "its seed gives the same clip" in message
    if variant is Variant.VIDEO:
        again = client.post(f"/v1/videos/{video_id}/remix", json={"prompt": "a blue ball"})
        assert refused(again)[1] == "content_damaged"
    assert len(store.waiting()) == 0


def test_a_database_that_is_none_is_said_to_be_none(settings: Settings) -> None:
    file_of(settings).parent.mkdir(parents=True, exist_ok=True)
    file_of(settings).write_bytes(b"not a database" * 1000)
    from server.cli.configuration import opened
    from server.cli.outcome import Failure

    with pytest.raises(Failure, match="file is not a database"), opened(settings):
        pass
    assert file_of(settings).read_bytes() == b"not a database" * 1000


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_makes_nothing_twice(
    worker: Worker, settings: Settings, pipeline: FakePipeline, clock: Clock, add_job: AddJob, jump_s: float
) -> None:
    """The lease of a job that is being made runs out by the clock alone; another worker looks for work just then."""
    store, rival_pipeline = worker._store, type(pipeline)()
    rival = Worker(
        Place(WorkerId("bob"), "cpu", 2), settings, store, drain=Drain(clock),
        models=fake_models(settings, lambda: rival_pipeline),
    )  # fmt: skip
    job_id = add_job()

    def jump(step: int) -> None:
        if step == 2:
            clock.advance(jump_s)
            rival.run_one()

    pipeline.on_step = jump
    worker.run_one()
    job = store.get(job_id)
    assert job.status is JobStatus.COMPLETED
    assert job.attempts <= 2
    assert (len(rival_pipeline.requests) == 1) is (job.attempts == 2)
    assert job.worker == ("bob" if job.attempts == 2 else "ann")
    assert store.waiting() == ()
