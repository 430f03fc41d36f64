"""A worker and an API on a disk that really fills up. ``test_space`` runs this on a small file system of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from pipelines import holdings
from pipelines.machine import free_disk_bytes
from pipelines.types import Frames, GenerationRequest, VideoShape
from server import space
from server.app import create_app
from server.assets import AssetStore, Variant
from server.jobs import Job, JobId, JobStatus, WorkerId, new_job_id
from server.settings import Settings
from server.space import Gate, Trouble
from server.store import JobStore
from server.worker import Place, Worker
from tests.conftest import Clock, FakePipeline, fake_models

MB = 1_000_000


class Noise(FakePipeline):
    """Makes clips that can hardly be compressed: more than half a megabyte each."""

    def decode(self, request: GenerationRequest, latents: int) -> Iterator[Frames]:
        dice = np.random.default_rng(latents)
        shape = request.shape
        for _ in range(shape.frames):
            yield dice.integers(0, 256, (1, shape.height, shape.width, 3), dtype=np.uint8)


class Ballast:
    """A file that leaves only so much of the disk free."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def leave(self, free: int) -> None:
        self.drop()
        with self._path.open("wb") as file:
            left = free_disk_bytes(self._path.parent) - free
            file.write(bytes(max(left, 0)))

    def drop(self) -> None:
        self._path.unlink(missing_ok=True)


def job() -> Job:
    request = GenerationRequest(
        prompt="noise",
        negative_prompt="",
        shape=VideoShape(17, 192, 320, 8),
        delivery=VideoShape(16, 192, 320, 8),
        seed=7,
        num_inference_steps=2,
        guidance_scale=1.0,
    )
    return Job(new_job_id(1.8e9), "sora-2", "homereel-mini", JobStatus.QUEUED, request, 1.8e9)


def check(condition: object, what: object) -> None:
    if not condition:
        raise AssertionError(what)


def main(folder: Path) -> None:
    settings = Settings(data_dir=folder / "data", min_free_gb=0)
    store, assets, clock, ballast = (
        JobStore.open(settings.database_url),
        AssetStore(settings.assets_dir),
        Clock(),
        Ballast(folder),
    )
    pipeline = Noise()
    models = fake_models(settings, lambda: pipeline)
    worker = Worker(Place(WorkerId("w"), "cpu", 1), settings, store, models=models)
    worker._gate = Gate(settings, clock)

    def add() -> JobId:
        (added,) = store.add(job(), max_queued=10)
        return added.id

    def make_the_next() -> Job:
        before = {waiting.id for waiting in store.waiting()}
        check(worker.run_one(), "a video is begun")
        (tried,) = before - {waiting.id for waiting in store.waiting()} or {min(before)}
        return store.get(tried)

    while_muxing(ballast, worker, add, make_the_next, clock)
    while_recording(ballast, worker, pipeline, add, make_the_next, clock)
    while_asked(ballast, settings, store)
    ballast.drop()
    check(
        [j.status for j in store.list(after=None, limit=9, newest_first=True).jobs] == [JobStatus.COMPLETED] * 3, "all"
    )
    for done in store.list(after=None, limit=9, newest_first=True).jobs:
        check(assets.path(done.id, Variant.VIDEO).stat().st_size > MB // 2, "whole files")
    store.close()


def while_muxing(
    ballast: Ballast, worker: Worker, add: Callable[[], JobId], make: Callable[[], Job], clock: Clock
) -> None:
    """The clip does not fit: the video waits, untouched, and is made once it does."""
    first, second = add(), add()
    ballast.leave(MB // 2)
    job = make()
    check((job.status, job.attempts, job.error) == (JobStatus.QUEUED, 0, None), job)
    check("disk is full" in (worker._gate.reason() or ""), worker.info())
    check(not worker.run_one(), "the queue is paused")
    check(worker.info().paused, "and says why")
    ballast.drop()
    check(not worker.run_one(), "not at once: the failed attempt has made the room that there is")
    clock.advance(space.FULL_PAUSE_S)
    for _ in (first, second):
        job = make()
        check((job.status, job.attempts, job.error) == (JobStatus.COMPLETED, 1, None), job)
    check(worker.info().paused is None, "over")


def while_recording(
    ballast: Ballast, worker: Worker, pipeline: Noise, add: Callable[[], JobId], make: Callable[[], Job], clock: Clock
) -> None:
    """Everything is saved but the database cannot grow: it is asked again until it can."""
    add()
    asked: list[None] = []
    finish = worker._store.finish

    def fill_up(*arguments: object, **options: object) -> bool:
        if not asked:
            ballast.leave(0)
        return finish(*arguments, **options)  # pyright: ignore[reportArgumentType]

    def make_room(trouble: Trouble) -> None:
        del trouble
        asked.append(None)
        ballast.drop()

    worker._store.finish, worker._gate.struck = fill_up, make_room
    # A write-ahead log that starts anew has to be written from its beginning, which needs no room: make it grow.
    with worker._store.engine.connect() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    job = make()
    worker._store.finish = finish
    check((job.status, job.attempts) == (JobStatus.COMPLETED, 1), job)
    check(asked, "the database was full once")


def while_asked(ballast: Ballast, settings: Settings, store: JobStore) -> None:
    """A request that does not fit is refused with one clear error, keeps nothing, and others are answered."""
    holdings.installed = lambda card: True
    with TestClient(create_app(settings, supervise=False)) as client:
        with store.engine.connect() as db:
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        before = len(store.list(after=None, limit=99, newest_first=True).jobs)
        ballast.leave(0)
        # The log may have a little room left in its last block.
        answers = [client.post("/v1/videos", json={"prompt": "a ball " * 3000}) for _ in range(3)]
        last = answers[-1]
        check((last.status_code, last.json()["error"]["code"]) == (507, "insufficient_storage"), last.text)
        check(last.headers["x-should-retry"] == "false", last.headers)
        check(client.get("/v1/videos").status_code == 200, "looking is possible")
        ballast.drop()
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 200]
        check(len(store.list(after=None, limit=99, newest_first=True).jobs) == before + len(accepted), "nothing else")
        for video_id in accepted:
            check(client.delete(f"/v1/videos/{video_id}").status_code == 200, video_id)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
