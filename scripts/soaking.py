"""A long day of a real server: many clips, some cancelled, some failing. Does memory stay flat? See ``recovery``."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from pipelines.registry import load_registry
from pipelines.types import ImageCondition
from pipelines.wish import Wish
from scripts.victims import Victims
from server.jobs import Job, JobId, JobStatus, new_job_id

PROMPT = "a red ball moving right over a green field"
_ENDED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


@dataclass
class _Gauge:
    """What a process held after every job."""

    rss: list[int] = field(default_factory=list[int])
    descriptors: list[int] = field(default_factory=list[int])
    threads: list[int] = field(default_factory=list[int])

    def read(self, process: psutil.Process) -> None:
        self.rss.append(process.memory_info().rss)
        self.descriptors.append(process.num_fds())
        self.threads.append(process.num_threads())


def soak(jobs: int) -> str:
    """Have clips made over HTTP: every fifth is cancelled, every tenth fails; compare the end with the beginning."""
    gauges = {"API": _Gauge(), "worker": _Gauge()}
    ended: Counter[JobStatus] = Counter()
    with tempfile.TemporaryDirectory() as folder, Victims(Path(folder)) as server:
        workers = set[int]()
        for number in range(jobs):
            job = _ended(server, _asked(server, number))
            ended[job.status] += 1
            (worker,) = server.workers()
            workers.add(worker.pid)
            gauges["API"].read(server.server)
            gauges["worker"].read(worker)
        children = len(server.server.children(recursive=True))
    part = max(1, jobs // 4)
    lines = [
        f"{jobs} jobs: " + ", ".join(f"{count} {status}" for status, count in ended.items()) + ".",
        f"{len(workers)} worker process in all, {children} child processes of the server at the end.",
        "",
        f"| process | what | first {part} (median) | last {part} (median) | change |",
        "|---|---|---|---|---|",
    ]
    for name, gauge in gauges.items():
        lines.append(_change(name, "resident memory, MB", [value / 1e6 for value in gauge.rss], part))
        lines.append(_change(name, "open descriptors", gauge.descriptors, part))
        lines.append(_change(name, "threads", gauge.threads, part))
    return "\n".join(lines)


def _asked(server: Victims, number: int) -> JobId:
    """Add a job, and ask for its end at once if it is one of those."""
    if number % 10 == 9:
        # No client can name a picture that is not there; it goes wrong when the worker opens it.
        return _doomed(server)
    body = {"prompt": PROMPT, "seconds": "1", "num_inference_steps": 4, "seed": number}
    job_id = JobId(server.api().post("/v1/videos", json=body).raise_for_status().json()["id"])
    if number % 5 == 2:
        server.api().post(f"/v1/videos/{job_id}/cancel").raise_for_status()
    return job_id


def _doomed(server: Victims) -> JobId:
    request = load_registry().cards["homereel-mini"].resolve(Wish(PROMPT, seconds=1, seed=1)).request
    request = replace(request, conditions=(ImageCondition(Path("/nowhere.png")),))
    now = time.time()
    job = Job(new_job_id(now), "homereel-mini", "homereel-mini", JobStatus.QUEUED, request, now)
    server.store.add(job, max_queued=1000)
    return job.id


def _ended(server: Victims, job_id: JobId) -> Job:
    while (job := server.store.get(job_id)).status not in _ENDED:
        time.sleep(0.02)
    return job


def _change(process: str, what: str, values: Sequence[float], part: int) -> str:
    first, last = statistics.median(values[:part]), statistics.median(values[-part:])
    return f"| {process} | {what} | {first:.4g} | {last:.4g} | {100 * (last / first - 1):+.1f} % |"
