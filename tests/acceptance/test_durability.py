"""Real processes, the real model, real kills: an accepted video is made, once, whatever dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil
import pytest

from pipelines import media
from pipelines.types import GenerationRequest, Stage, VideoShape
from server.assets import AssetMissing, AssetStore, Variant
from server.jobs import Job, JobId, JobStatus, new_job_id
from server.settings import Settings
from server.store import JobNotFound, JobStore
from server.workers import WorkerInfo
from tests.server.routes.conftest import movie

PATIENCE_S = 240
WORD = {"prompt": "a red ball on a green field", "seed": 3, "seconds": "2"}


def until(reached: Callable[[], bool]) -> None:
    """Wait for other processes to bring something about; that it takes for ever is the only failure."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


class Server:
    """``homereel serve`` in a process of its own, on a data folder that outlives it."""

    def __init__(self, data_dir: Path, *options: str) -> None:
        command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--devices", "cpu"]
        self.settings = Settings(data_dir=data_dir)
        self.log = (data_dir.parent / "log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), *options], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        assert self.process.stdout is not None
        url = self.process.stdout.readline().split()[-1]
        self.api = httpx2.Client(base_url=f"{url}/", timeout=60)
        self.store = JobStore.open(self.settings.database_url)
        self.assets = AssetStore(self.settings.assets_dir)

    def __enter__(self) -> Self:
        until(lambda: self._answers("/health"))
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        self.api.close()
        self.store.close()

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return self.api.get(self.api.base_url.join(path)).is_success
        except httpx2.TransportError:
            return False

    def post(self, **changes: object) -> JobId:
        answer = self.api.post("videos", json=WORD | changes)
        assert answer.status_code == 200, answer.text
        return JobId(answer.json()["id"])

    def get(self, job_id: JobId) -> dict[str, Any]:
        return self.api.get(f"videos/{job_id}").json()

    def worker(self) -> WorkerInfo:
        """Return the one worker that lives; the wire does not tell process ids."""
        until(lambda: any(psutil.pid_exists(worker.pid) for worker in self.store.workers()))
        return next(worker for worker in self.store.workers() if psutil.pid_exists(worker.pid))

    def until_denoising(self, job_id: JobId) -> None:
        def is_denoising() -> bool:
            progress = self.store.get(job_id).progress
            return progress is not None and progress.stage is Stage.DENOISE and progress.step >= 1

        until(is_denoising)

    def until_done(self, job_id: JobId) -> Job:
        until(lambda: self.store.get(job_id).status in {JobStatus.COMPLETED, JobStatus.FAILED})
        return self.store.get(job_id)

    def there(self) -> set[str]:
        """Return the ids of all videos, and the paths of all their files."""
        ids = {video["id"] for video in self.api.get("videos").json()["data"]}
        return ids | {str(path) for path in self.settings.assets_dir.rglob("*") if path.is_file()}

    def assert_made_once(self, job_id: JobId, before: Collection[str] = ()) -> None:
        """The job is completed, whole, and all that came is it, its three files and the last preview."""
        assert self.get(job_id)["status"] == "completed"
        names = {Path(it).name for it in self.there().difference(before)}
        assert names - {"preview.webp"} == {job_id, *(variant.filename for variant in Variant)}
        video = self.assets.path(job_id, Variant.VIDEO)
        assert media.probe(video).shape == self.store.get(job_id).request.delivery
        assert self.api.get(f"videos/{job_id}/content").content == video.read_bytes()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*options: str) -> Server:
        started.append(Server(tmp_path / "data", *options))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose workers come and go."""
    with Server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


def test_a_join_survives_its_worker(server: Server, tmp_path: Path) -> None:
    """No model is loaded yet: the clip comes from a file, and joining it needs none."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(movie(frames=160, fps=8))
    shape = VideoShape(160, 96, 160, 8)
    now = time.time()
    request = GenerationRequest("a ball", "", shape, shape, 3, 20, 4.0)
    made = Job(new_job_id(now), "sora-2", "homereel-mini", JobStatus.COMPLETED, request, now)
    server.store.add(made, max_queued=9)
    server.assets.put(made.id, Variant.VIDEO, clip)
    answer = server.api.post("videos/join", json={"videos": [{"id": made.id}] * 8})
    assert answer.status_code == 200, answer.text
    job_id = JobId(answer.json()["id"])

    def is_joining() -> bool:
        progress = server.store.get(job_id).progress
        return progress is not None and progress.stage is Stage.MUX

    until(is_joining)
    os.kill(server.worker().pid, signal.SIGKILL)
    job = server.until_done(job_id)
    assert (job.error, job.attempts) == (None, 2)
    assert media.probe(server.assets.path(job_id, Variant.VIDEO)).shape.frames == 8 * 160


def test_a_video_survives_its_worker(server: Server) -> None:
    before = server.there()
    job_id = server.post(num_inference_steps=40)
    server.until_denoising(job_id)
    victim = server.worker()
    os.kill(victim.pid, signal.SIGKILL)
    job = server.until_done(job_id)
    assert job.error is None
    assert job.attempts == 2
    assert job.worker != victim.id
    server.assert_made_once(job_id, before)


def test_a_running_video_can_be_stopped_and_deleted(server: Server) -> None:
    cancelled = server.post(num_inference_steps=100)
    server.until_denoising(cancelled)
    worker = server.worker()
    assert server.api.post(f"videos/{cancelled}/cancel").status_code == 200
    job = server.until_done(cancelled)
    assert server.get(cancelled)["error"]["code"] == "cancelled"
    assert job.progress is not None
    assert job.progress.step < 100

    deleted = server.post(num_inference_steps=100)
    server.until_denoising(deleted)
    assert server.api.delete(f"videos/{deleted}").status_code == 200
    assert server.api.get(f"videos/{deleted}").status_code == 404
    folder = server.settings.assets_dir / deleted
    until(lambda: not server.store.watch(deleted, worker.id).owned and not folder.exists())
    with pytest.raises(JobNotFound):
        server.store.get(deleted)

    # The same worker, its model still loaded, goes on with the next.
    following = server.until_done(server.post())
    assert (following.status, following.worker) == (JobStatus.COMPLETED, worker.id)
    with pytest.raises(AssetMissing):
        server.assets.path(cancelled, Variant.VIDEO)


def test_a_video_survives_the_api_that_accepted_it(serve: Callable[..., Server]) -> None:
    with serve() as first:
        worker = first.worker()
        job_id = first.post(num_inference_steps=4)
        first.process.kill()
        # Nobody works on for a server that is gone.
        until(lambda: not _runs(worker.pid))
    with serve() as second:
        job = second.until_done(job_id)
        assert job.error is None
        assert job.attempts == 1
        second.assert_made_once(job_id)


def _runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_server_that_is_stopped_finishes_what_it_can_and_keeps_the_rest(serve: Callable[..., Server]) -> None:
    with serve("--drain-s", "200") as patient:
        # Long enough to be met in the middle, whatever this process waits for; the second is never made.
        current, following = patient.post(num_inference_steps=40), patient.post(num_inference_steps=100)
        patient.until_denoising(current)
        patient.process.terminate()
        assert patient.process.wait(PATIENCE_S) == 0
        assert patient.store.get(current).status is JobStatus.COMPLETED
        assert patient.store.get(following).status is JobStatus.QUEUED
    with serve("--drain-s", "0") as hasty:
        hasty.until_denoising(following)
        hasty.process.terminate()
        assert hasty.process.wait(PATIENCE_S) == 0
        job = hasty.store.get(following)
        assert (job.status, job.attempts, job.progress) == (JobStatus.QUEUED, 0, None)
        assert hasty.store.workers() == ()
