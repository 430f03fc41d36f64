"""``homereel serve`` and its worker, to be killed and started again; only processes of its own are touched."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx2
import psutil

from server.assets import AssetStore
from server.jobs import Job, JobId, JobStatus
from server.settings import Settings
from server.store import JobStore

# Otherwise a clip that is hit again and again would be given up, as it should outside of a storm.
MAX_ATTEMPTS = "100000"


class Victims:
    """One server on a data folder that outlives it. ``kill`` and ``revive`` belong to one thread."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._settings = Settings(data_dir=folder / "data")
        self._log = (folder / "log").open("ab")
        # Every step is kept: a storm comes more often than once in five seconds.
        limits = ["--max-attempts", MAX_ATTEMPTS, "--checkpoint-s", "0"]
        command = [sys.executable, "-P", "-m", "server.cli", "serve", "--port", "0", "--devices", "cpu"]
        self._command = [*command, "--data-dir", str(folder / "data"), *limits, *options]
        # Somebody may be asking one of the earlier ones still.
        self._apis: list[httpx2.Client] = []
        self._process = self._start()
        self.store = JobStore.open(self._settings.database_url)
        self.assets = AssetStore(self._settings.assets_dir)
        self.calm_jobs: list[JobId] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._end(self._process)
        for api in self._apis:
            api.close()
        self._log.close()
        self.store.close()

    @property
    def server(self) -> psutil.Process:
        return psutil.Process(self._process.pid)

    def workers(self) -> list[psutil.Process]:
        """Return the server's worker processes, also those that have not said a word yet."""
        with suppress(psutil.NoSuchProcess):
            return [child for child in self.server.children() if _is_worker(child)]
        return []

    def api(self) -> httpx2.Client:
        """Return a client of the server that lives now, or did a moment ago."""
        return self._apis[-1]

    def kill(self, *, worker: bool, server: bool, server_first: bool) -> None:
        """End processes without a word, in either order."""
        victims: list[psutil.Process] = self.workers() if worker else []
        if server:
            victims.insert(0 if server_first else len(victims), self.server)
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()

    def revive(self) -> None:
        """Start the server again, if it has been killed."""
        with suppress(subprocess.TimeoutExpired):
            # Killed or not, that shows at once.
            self._process.wait(0.05)
        if self._process.poll() is not None:
            self._end(self._process)
            self._process = self._start()

    def job_at_work(self) -> Job | None:
        jobs = self.store.list(after=None, limit=100, newest_first=True).jobs
        return next((job for job in jobs if job.status is JobStatus.IN_PROGRESS), None)

    def open_jobs(self) -> int:
        counts = self.store.counts()
        return counts[JobStatus.QUEUED] + counts[JobStatus.IN_PROGRESS]

    def integrity(self) -> str:
        """Return ``ok``, or what SQLite finds wrong with its file."""
        with self.store.engine.connect() as db:
            return str(db.exec_driver_sql("PRAGMA integrity_check").scalar_one())

    def _start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise RuntimeError("the server does not start; its log says why")
        self._apis.append(httpx2.Client(base_url=first.split()[-1].removesuffix("/v1"), timeout=30))
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "server.worker_process" in process.cmdline()
    return False
