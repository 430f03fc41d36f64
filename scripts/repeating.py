"""How much work a kill costs: a process that makes a clip is killed, and another one goes on. See ``recovery``."""

from __future__ import annotations

import multiprocessing
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from pipelines import engine
from pipelines.checkpoint import Checkpoints
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import Progress, Stage
from pipelines.wish import Wish

MODEL, PROMPT = "homereel-mini", "a red ball moving right over a green field"
STEPS = 100
INTERVAL_S = 0.5
_BINS = 5


def make(folder: Path, told: Connection) -> None:
    """Make a clip, from where it was left, and tell of every denoising step and when it was done."""
    card = load_registry().cards[MODEL]
    pipeline = load_pipeline(card, MemoryPlan("cpu"))
    request = card.resolve(Wish(PROMPT, seed=1, num_inference_steps=STEPS)).request

    def report(progress: Progress) -> None:
        if progress.stage is Stage.DENOISE:
            told.send((progress.step, time.monotonic()))

    with Checkpoints(folder, card.id, interval_s=INTERVAL_S) as kept:
        engine.generate(pipeline, request, report, checkpoints=kept)


@contextmanager
def _maker(folder: Path) -> Iterator[tuple[BaseProcess, Connection]]:
    # Forked from a process that has imported everything: that takes longer than the clip.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=make, args=(folder, sender))
    process.start()
    sender.close()
    try:
        yield process, receiver
    finally:
        process.kill()
        process.join()
        receiver.close()


def _steps_until(told: Connection, enough: Callable[[int], bool]) -> dict[int, float]:
    """Return when each step was done, from what arrives until there is enough, or the process is no more."""
    done: dict[int, float] = {}
    try:
        while not done or not enough(max(done)):
            step, at = told.recv()
            done[step] = at
    except EOFError:
        pass
    return done


def _killed(folder: Path, dice: random.Random) -> tuple[int, float, float]:
    """Return the steps and the seconds of work that are done twice, and how long a step takes."""
    target = dice.randrange(1, STEPS)
    with _maker(folder) as (process, told):
        done = _steps_until(told, lambda step: step >= target)
        time.sleep(dice.uniform(0, 0.1))
        process.kill()
        at = time.monotonic()
        process.join()
        done |= _steps_until(told, lambda _step: False)
    with _maker(folder) as (_, told):
        resumed = min(step for step in _steps_until(told, lambda step: step > 0) if step) - 1
    took = [done[step] - done[step - 1] for step in done if step - 1 in done]
    return max(done) - resumed, at - done[resumed], statistics.median(took or [0.0])


def repeated(kills: int) -> str:
    """Kill the process at a random step, and count what the next one does again."""
    dice = random.Random(1)
    steps, seconds, paces = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            again, lost_s, pace = _killed(Path(folder) / str(number), dice)
            steps.append(again)
            seconds.append(lost_s)
            paces.append(pace)
    bins = Counter(int(_BINS * lost / INTERVAL_S) for lost in seconds)
    bound = INTERVAL_S + 2 * max(paces)
    lines = [
        f"A clip of {STEPS} steps of {1000 * statistics.median(paces):.0f} ms (median), its state kept every "
        f"{INTERVAL_S:g} s; SIGKILL at a random step, {kills} times.",
        "",
        f"Repeated: {statistics.median(steps):g} steps (median; {min(steps)} to {max(steps)}), "
        f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f}). "
        f"{sum(lost <= bound for lost in seconds)} of {kills} within the interval and two steps ({bound:.2f} s).",
        "",
        "| work repeated, s | kills |",
        "|---|---|",
    ]
    width = INTERVAL_S / _BINS
    return "\n".join(
        lines + [f"| {k * width:.1f} to {(k + 1) * width:.1f} | {'#' * bins[k]} {bins[k]} |" for k in sorted(bins)]
    )
