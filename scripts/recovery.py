"""What it costs to lose nothing, on the model that ships: checkpoints, cancelling, and a long day.

    python -m scripts.recovery overhead     # denoising with and without checkpoints, in turn
    python -m scripts.recovery cancel       # how soon a stage ends that is not wanted any more
    python -m scripts.recovery repeated     # how much is done twice when the process is killed
    python -m scripts.recovery soak         # a server's long day, some jobs cancelled, some failing: is memory flat?

Each prints a table for people, and with --into DIR also writes it to recovery-NAME.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from pipelines import engine
from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.checkpoint import Checkpoints
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import GenerationRequest, Progress, Stage
from pipelines.wish import Wish
from scripts.repeating import repeated
from scripts.soaking import soak
from server.jobs import Job, JobId, JobProgress, JobStatus, WorkerId, new_job_id
from server.lease import BEAT_S, Lease
from server.settings import Settings
from server.store import JobStore
from server.worker import Place, Worker

PROMPT = "a red ball moving right over a green field"
WARM = 2
# What a cancelled job may take to end, besides one step.
BAR_S = 0.2


def card() -> ModelCard:
    return load_registry().cards["homereel-mini"]


def spread(values: Sequence[float], unit: float = 1.0) -> str:
    """Return the median and the range, in units."""
    return f"{statistics.median(values) / unit:.3g} ({min(values) / unit:.3g} to {max(values) / unit:.3g})"


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# -- checkpoints ------------------------------------------------------------------------------------------------------


def overhead(rounds: int) -> str:
    """Denoise the same clip with and without checkpoints, in turn and in changing order."""
    pipeline, model = load_pipeline(card(), MemoryPlan("cpu")), card()
    request = model.resolve(Wish(PROMPT, seed=1)).request
    default_s = Settings().checkpoint_s
    kinds: dict[str, float | None] = {"none": None, f"every {default_s:g} s (default)": default_s, "every step": 0.0}
    took: dict[str, list[float]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, rounds):
            for kind in random.Random(turn).sample(list(kinds), len(kinds)):
                seconds = _denoise(pipeline, request, Path(folder) / f"{turn}-{kind}", model, kinds[kind])
                if turn >= 0:
                    took[kind].append(seconds)
    lines = ["| checkpoints | denoise s, median (range) | beside none, median of rounds |", "|---|---|---|"]
    for kind, each in took.items():
        ratios = [with_ / without for with_, without in zip(each, took["none"], strict=True)]
        lines.append(f"| {kind} | {spread(each)} | {100 * (statistics.median(ratios) - 1):+.2f} % |")
    return "\n".join(lines)


def _denoise(
    pipeline: VideoPipeline[Any, Any], request: GenerationRequest, folder: Path, model: ModelCard, every_s: float | None
) -> float:
    began = ended = 0.0

    def report(progress: Progress) -> None:
        nonlocal began, ended
        if progress.stage is Stage.DENOISE:
            began, ended = began or time.perf_counter(), time.perf_counter()

    kept = None if every_s is None else Checkpoints(folder, model.id, interval_s=every_s)
    engine.generate(pipeline, request, report, checkpoints=kept)
    if kept is not None:
        kept.__exit__(None, None, None)
    return ended - began


# -- cancelling -------------------------------------------------------------------------------------------------------


class _Studio:
    """A store and a worker on a folder, in this process."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder, devices=("cpu",), keep_alive=-1)
        self.store = JobStore.open(self.settings.database_url)
        self.worker = Worker(Place(WorkerId("recovery"), "cpu", os.getpid()), self.settings, self.store)

    def add(self, **changes: object) -> JobId:
        resolved = card().resolve(Wish(PROMPT, seconds=2, seed=1))
        request = replace(resolved.request, **changes)
        now = time.time()
        job = Job(new_job_id(now), "homereel-mini", "homereel-mini", JobStatus.QUEUED, request, now)
        self.store.add(job, max_queued=1000)
        return job.id


@contextmanager
def _listening(heard: Callable[[JobProgress], None]) -> Iterator[None]:
    """Tell of all progress, which the database gets once a second only."""
    note = Lease.note

    def spy(self: Lease, progress: JobProgress) -> None:
        heard(progress)
        note(self, progress)

    Lease.note = spy
    try:
        yield
    finally:
        Lease.note = note


def cancel(rounds: int) -> str:
    """Ask for the end of a job at a random moment of each stage, and measure until the worker is free."""
    stages = (Stage.LOAD, Stage.ENCODE, Stage.DENOISE, Stage.DECODE, Stage.MUX)
    dice = random.Random(1)
    took: dict[Stage, list[float]] = {stage: [] for stage in stages}
    steps: list[float] = []
    fresh: list[float] = []
    after: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        studio = _Studio(Path(folder))
        for turn in range(WARM + rounds):
            for stage in dice.sample(stages, len(stages)):
                if stage is Stage.LOAD:
                    studio.worker._models.clear()  # pyright: ignore[reportPrivateUsage]
                seconds = _cancelled(studio, stage, dice, steps)
                if turn >= WARM and seconds is not None:
                    took[stage].append(seconds)
            after.append(_made(studio))
            fresh.append(_made(studio))
        studio.store.close()
    step = statistics.median(steps)
    lines = [
        f"One step takes {1000 * step:.0f} ms (median); the database is looked at every {1000 * BEAT_S:.0f} ms.",
        "",
        "| stage | cancelled | until the worker is free, ms: median (range) | p99 | one step + 0.2 s |",
        "|---|---|---|---|---|",
    ]
    for stage, each in took.items():
        if not each:
            lines.append(f"| {stage} | 0 | it was over before anybody could cancel it | | |")
            continue
        worst = percentile(each, 0.99)
        verdict = "kept" if worst <= step + BAR_S else "missed"
        lines.append(f"| {stage} | {len(each)} | {spread(each, 1e-3)} | {1000 * worst:.0f} | {verdict} |")
    ratio = statistics.median(a / b for a, b in zip(after, fresh, strict=True))
    lines += [
        "",
        f"The job after a cancelled one takes {ratio:.3f} times as long as one after a finished one (median).",
    ]
    lines += ["", *_histogram([seconds for each in took.values() for seconds in each])]
    return "\n".join(lines)


def _cancelled(studio: _Studio, stage: Stage, dice: random.Random, steps: list[float]) -> float | None:
    """Return the seconds from the wish to the end; None if the job was through before it."""
    job_id = studio.add()
    reached, last = threading.Event(), [0.0]
    wait_steps = dice.randrange(10) if stage is Stage.DENOISE else 0

    def heard(progress: JobProgress) -> None:
        now = time.perf_counter()
        if progress.stage is Stage.DENOISE and progress.step > 1:
            steps.append(now - last[0])
        last[0] = now
        if progress.stage is stage and progress.step >= wait_steps:
            reached.set()

    asked = [0.0]

    def ask() -> None:
        reached.wait(60)
        asked[0] = time.perf_counter()
        studio.store.request_cancel(job_id)

    with _listening(heard):
        asker = threading.Thread(target=ask)
        asker.start()
        studio.worker.run_one()
        ended = time.perf_counter()
        reached.set()
        asker.join()
    return ended - asked[0] if studio.store.get(job_id).status is JobStatus.FAILED else None


def _made(studio: _Studio) -> float:
    job_id = studio.add()
    began = time.perf_counter()
    studio.worker.run_one()
    if studio.store.get(job_id).status is not JobStatus.COMPLETED:
        raise RuntimeError(studio.store.get(job_id).error)
    return time.perf_counter() - began


def _histogram(seconds: Sequence[float], width_ms: int = 50) -> list[str]:
    counts: dict[int, int] = {}
    for each in seconds:
        counts[int(1000 * each) // width_ms] = counts.get(int(1000 * each) // width_ms, 0) + 1
    lines = ["| ms | jobs |", "|---|---|"]
    return lines + [
        f"| {k * width_ms} to {(k + 1) * width_ms} | {'#' * counts[k]} {counts[k]} |" for k in sorted(counts)
    ]


WAYS: dict[str, tuple[Callable[[int], str], int]] = {
    "overhead": (overhead, 15),
    "cancel": (cancel, 20),
    "repeated": (repeated, 40),
    "soak": (soak, 200),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=WAYS)
    parser.add_argument("--rounds", type=int, help="how often; as many as make sense if not given")
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    measure, usual = WAYS[options.what]
    told = measure(options.rounds or usual)
    about = (
        f"`python -m scripts.recovery {options.what}` on {psutil.cpu_count()} CPUs, {platform.machine()}, Python "
        f"{platform.python_version()}, torch {version('torch')}, diffusers {version('diffusers')}, load "
        f"{os.getloadavg()[1]:.1f}"
    )
    print(f"{about}\n\n{told}")
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / f"recovery-{options.what}.md").write_text(f"{about}\n\n{told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
