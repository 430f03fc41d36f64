"""Kill the worker, the server or both at random instants while clips are made, and count what is lost.

    python -m scripts.chaos [--kills 200] [--seed 1] [--into scripts/results]

A client keeps the queue filled and repeats a request until it is answered, as the SDKs do. A second one downloads
whatever is there, all the time. At the end every clip is compared, frame by frame, with one of the same request that
nobody disturbed. The exit status is 1 if anything accepted was lost, made twice, served half or came out different.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import httpx2
import psutil
from sqlalchemy import func, select

from pipelines.footage import frames
from pipelines.types import Stage
from scripts.victims import Victims
from server.assets import AssetStore, Variant
from server.jobs import Job, JobId, JobProgress, JobStatus
from server.store import JobStore
from server.tables import event

Victim: TypeAlias = Literal["worker", "server", "both"]
Moment: TypeAlias = Literal["at any time", "once it works", "once it denoises"]

# How many clips wait while the storm goes on.
DEPTH = 4
# That nothing more happens is the only failure of a wait.
PATIENCE_S = 600.0
# What every clip of the storm is one of. Some take several checkpoints, others come from a picture of the queue's.
REQUESTS: tuple[dict[str, object], ...] = (
    {"prompt": "a red ball bouncing on a green field", "seconds": "1", "num_inference_steps": 4},
    {"prompt": "a blue square drifting left over sand at dusk", "seconds": "1", "num_inference_steps": 12},
    {"prompt": "a yellow star moving right, at night", "seconds": "1", "num_inference_steps": 30},
    {"prompt": "a white triangle on a grey street", "seconds": "1", "num_inference_steps": 8, "size": "96x160"},
)
_MAKING = frozenset({Stage.DENOISE, Stage.DECODE, Stage.MUX})
_NOWHERE = JobProgress(Stage.LOAD, 0, 1, 0)
# For one moment.
LONGEST_WAIT_S = 30.0


@dataclass
class Findings:
    """What came of it; every count but the first two and ``repeated`` should be 0."""

    accepted: int = 0
    completed: int = 0
    lost: list[str] = field(default_factory=list[str])
    duplicates: list[str] = field(default_factory=list[str])
    half_served: list[str] = field(default_factory=list[str])
    unequal: list[str] = field(default_factory=list[str])
    left_over: list[str] = field(default_factory=list[str])
    database: str = "ok"
    repeated: int = 0

    @property
    def are_good(self) -> bool:
        wrong = (self.lost, self.duplicates, self.half_served, self.unequal, self.left_over)
        return not any(wrong) and self.database == "ok" and self.accepted == self.completed > 0


@dataclass
class Storm:
    """Kills, and what was going on when they came."""

    kills: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.kills.total()


class Customer:
    """Asks for clips and repeats itself until it is answered; downloads what it finds."""

    def __init__(self, victims: Victims, dice: random.Random, kinds: int) -> None:
        self._victims = victims
        self._dice = dice
        self.kinds = kinds
        self.accepted: dict[JobId, int] = {}
        self.seen: dict[tuple[JobId, Variant], set[str]] = {}
        self.downloads = 0
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=self._ask), threading.Thread(target=self._download)]

    def come(self) -> None:
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        self._leaving.set()
        for thread in self._threads:
            thread.join()

    def post(self, number: int, key: str) -> JobId:
        """Return the id of a clip that has been accepted, however often the connection broke before."""
        kind = number % self.kinds
        body = {**REQUESTS[kind % len(REQUESTS)], "seed": 1000 + kind}
        while True:
            with suppress(httpx2.TransportError):
                answer = self._victims.api().post("/v1/videos", json=body, headers={"idempotency-key": key})
                if answer.status_code == 200:
                    return JobId(answer.json()["id"])
                if answer.status_code < 500 and answer.status_code != 429:
                    raise RuntimeError(answer.text)
            time.sleep(0.05)

    def _ask(self) -> None:
        number = 0
        while not self._leaving.is_set():
            if self._victims.open_jobs() < DEPTH:
                self.accepted[self.post(number, f"storm-{number}")] = number
                number += 1
            self._leaving.wait(0.05)

    def _download(self) -> None:
        """Take everything that is offered: it has to be whole, and always the same."""
        while not self._leaving.wait(0.02):
            known = list(self.accepted)
            if not known:
                continue
            # The newest are the ones that are being written.
            job_id, variant = self._dice.choice(known[-2 * DEPTH :]), self._dice.choice(list(Variant))
            with suppress(httpx2.TransportError):
                answer = self._victims.api().get(f"/v1/videos/{job_id}/content", params={"variant": variant})
                if answer.status_code == 200:
                    self.downloads += 1
                    self.seen.setdefault((job_id, variant), set()).add(_digest(answer.content))


def storm(victims: Victims, dice: random.Random, kills: int, calm: float) -> Storm:
    """Kill so many times, with pauses that are ``calm`` times as long as usual."""
    done, began = Storm(), time.monotonic()
    while done.total < kills:
        _wait_for(dice.choice(get_args(Moment)), victims, dice, calm)
        victim: Victim = dice.choices(get_args(Victim), weights=(5, 3, 2))[0]
        job = victims.job_at_work()
        at = "idle" if job is None else "claimed" if job.progress is None else job.progress.stage.value
        victims.kill(worker=victim != "server", server=victim != "worker", server_first=dice.random() < 0.5)
        done.kills[victim, at] += 1
        victims.revive()
    done.seconds = time.monotonic() - began
    return done


def _wait_for(moment: Moment, victims: Victims, dice: random.Random, calm: float) -> None:
    """Let some time pass; up to a few seconds, and not for ever where the moment does not come."""
    if moment == "at any time":
        time.sleep(calm * dice.uniform(0, 3))
        return
    deadline = time.monotonic() + LONGEST_WAIT_S
    while time.monotonic() < deadline and not _has_come(moment, victims.job_at_work()):
        time.sleep(0.005)
    time.sleep(calm * dice.uniform(0, 1.0))


def _has_come(moment: Moment, job: Job | None) -> bool:
    # Decoding, muxing and saving take less than the fifth of a second after which a worker tells of them: they are
    # hit by waiting for the denoising, and then some time.
    return job is not None and (moment == "once it works" or (job.progress or _NOWHERE).stage in _MAKING)


def calm_down(victims: Victims) -> None:
    """Wait until everything that was accepted has come to its end, undisturbed."""
    deadline = time.monotonic() + PATIENCE_S
    while victims.open_jobs():
        if time.monotonic() > deadline:
            raise TimeoutError("the queue does not move")
        time.sleep(0.1)


def verify(customer: Customer, victims: Victims, twins: dict[int, str]) -> Findings:
    """Look at everything that was accepted, in the database, in the folder and over the wire."""
    found = Findings(accepted=len(customer.accepted), database=victims.integrity())
    store, assets = victims.store, victims.assets
    rows = store.list(after=None, limit=100_000, newest_first=False).jobs
    mine = [job for job in rows if job.id in customer.accepted]
    found.lost = [job_id for job_id in customer.accepted if job_id not in {job.id for job in rows}]
    found.lost += [f"{job.id} {job.error and job.error.code}" for job in mine if job.status is not JobStatus.COMPLETED]
    strangers = {job.id for job in rows} - set(customer.accepted) - set(victims.calm_jobs)
    found.duplicates = [*sorted(strangers), *_told_twice(store)]
    for job in mine:
        if job.status is JobStatus.COMPLETED:
            found.completed += 1
            found.repeated += job.attempts > 1
            _look_at(job, customer, assets, twins, found)
    return found


def _look_at(job: Job, customer: Customer, assets: AssetStore, twins: dict[int, str], found: Findings) -> None:
    for variant in Variant:
        kept = _digest(assets.path(job.id, variant).read_bytes())
        if customer.seen.get((job.id, variant), {kept}) != {kept}:
            found.half_served.append(f"{job.id} {variant}")
    number = customer.accepted[job.id] % len(twins)
    if frame_hash(assets.path(job.id, Variant.VIDEO)) != twins[number]:
        found.unequal.append(job.id)
    files = {str(path.name) for path in assets.path(job.id, Variant.VIDEO).parent.rglob("*") if path.is_file()}
    found.left_over += sorted(files - {variant.filename for variant in Variant} - {"preview.webp"})


def _told_twice(store: JobStore) -> list[str]:
    """Return the clips whose end was told more than once, or never."""
    ended = select(event.c.subject, func.count()).where(event.c.type == "video.completed").group_by(event.c.subject)
    with store.engine.connect() as db:
        return [f"{subject} completed {count} times" for subject, count in db.execute(ended) if count != 1]


def frame_hash(video: Path) -> str:
    """Return a hash of the frames of a clip, decoded to RGB."""
    pixels = blake2b(digest_size=16)
    for frame in frames(video):
        pixels.update(frame.tobytes())
    return pixels.hexdigest()


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def undisturbed(customer: Customer, victims: Victims) -> dict[int, str]:
    """Make every kind of clip once more in peace, and return the hashes of their frames."""
    ids = {number: customer.post(number, f"calm-{number}") for number in range(customer.kinds)}
    victims.calm_jobs = list(ids.values())
    calm_down(victims)
    return {number: frame_hash(victims.assets.path(job_id, Variant.VIDEO)) for number, job_id in ids.items()}


def run(
    folder: Path, *, kills: int, seed: int, kinds: int = 2 * len(REQUESTS), calm: float = 1.0
) -> tuple[Storm, Customer, Findings]:
    """Let a storm pass over a server in ``folder``, with so many different requests."""
    dice = random.Random(seed)
    with Victims(folder) as victims:
        customer = Customer(victims, random.Random(seed + 1), kinds)
        customer.come()
        try:
            passed = storm(victims, dice, kills, calm)
        finally:
            customer.leave()
        calm_down(victims)
        return passed, customer, verify(customer, victims, undisturbed(customer, victims))


def table(passed: Storm, customer: Customer, found: Findings) -> str:
    """Return what happened, as Markdown."""
    stages = sorted({at for _, at in passed.kills})
    lines = [f"| killed | {' | '.join(stages)} | all |", f"|---|{'---|' * (len(stages) + 1)}"]
    for victim in get_args(Victim):
        counts = [passed.kills[victim, at] for at in stages]
        lines.append(f"| {victim} | {' | '.join(map(str, counts))} | {sum(counts)} |")
    lines += ["", "| what | count |", "|---|---|"]
    counted = {
        "kills (SIGKILL)": passed.total,
        "seconds of storm": round(passed.seconds),
        "clips accepted": found.accepted,
        "clips completed": found.completed,
        "clips whose worker was lost at least once": found.repeated,
        "downloads while the storm went on": customer.downloads,
        "accepted clips lost or failed": len(found.lost),
        "duplicates: rows, or ends told twice": len(found.duplicates),
        "half-written files served": len(found.half_served),
        "clips whose frames differ from their undisturbed twins": len(found.unequal),
        "files left over": len(found.left_over),
        "database": found.database,
    }
    return "\n".join(lines + [f"| {name} | {count} |" for name, count in counted.items()])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", type=Path, help="folder for chaos.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        passed, customer, found = run(Path(folder), kills=options.kills, seed=options.seed)
    told = table(passed, customer, found)
    print(told)
    wrong = [*found.lost, *found.duplicates, *found.half_served, *found.unequal, *found.left_over]
    print(json.dumps(wrong, indent=1) if wrong else "nothing is lost")
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        machine = f"{psutil.cpu_count()} CPUs, {platform.platform()}, Python {platform.python_version()}, torch"
        head = f"# Chaos\n\n`python -m scripts.chaos --kills {options.kills} --seed {options.seed}` on {machine}"
        (options.into / "chaos.md").write_text(f"{head} {version('torch')}:\n\n{told}\n")
    return 0 if found.are_good else 1


if __name__ == "__main__":
    sys.exit(main())
