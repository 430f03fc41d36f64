"""Speed and memory of models on this machine, beside plain diffusers with the same weights.

    python -m scripts.benchmark wan2.1-t2v-1.3b --seconds 5 --offload none model --baseline
    python -m scripts.benchmark wan2.2-ti2v-5b --cap-gb 24 --steps 10
    python -m scripts.benchmark wan2.1-t2v-14b --quantisation none fp8 --step-cache 0 0.05 0.2    # what it costs in dB
    python -m scripts.benchmark all --tiny --device cpu          # that all of it runs, on any machine
    python -m scripts.benchmark - <lines                         # each line of standard input is one such command

Every configuration runs in a process of its own: one cold clip and --runs warm ones. With --random-weights (the
default where a model is not installed) the model is built at its true size from its published configuration: speed
and memory do not depend on what it knows. Every later configuration of a clip is compared with the first, frame by
frame. Rows go to JSONL as they are made; the table and plots come from there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipelines.holdings import installed
from pipelines.needs import Demand, needs, typical_request
from pipelines.plan import MemoryPlan, Offload, Quantisation
from pipelines.registry import load_registry
from scripts import measuring, random_weights
from scripts.makers import Task, has_plain
from scripts.measuring import Measured
from scripts.plot_results import report, table

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "xformers")
LEAVE_S = 10
_TASK, _MEASURED = TypeAdapter(Task), TypeAdapter(Measured)


def machine(device: str) -> dict[str, str]:
    """Return what the figures were measured with."""
    facts = {"python": platform.python_version(), "device": device, "processor": platform.processor() or "unknown"}
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    if device.startswith("cuda"):
        query = "name,memory.total,driver_version,power.limit,clocks.max.sm"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "-i", device.partition(":")[2] or "0"]
        found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        facts |= dict(zip(query.split(","), (part.strip() for part in found.split(",")), strict=False))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return facts | {"commit": commit.stdout.strip() or "unknown"}


def run(task: Task, limit_s: float) -> Measured:
    """Measure in a process of its own; whatever ends it is the row's error.

    The process is forked from one that has imported everything and used nothing: importing takes longer than making
    many a clip.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scripts.measuring"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measuring.answer, args=(task, sender))
    process.start()
    sender.close()
    try:
        if receiver.poll(limit_s):
            answer = receiver.recv()
            # It has nothing left to do but to clean up.
            process.join(LEAVE_S)
            return answer
        return Measured(error=f"took more than {limit_s:.0f} s")
    except EOFError:
        process.join()
        return Measured(error=f"ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def row(task: Task, measured: Measured, about: dict[str, str]) -> dict[str, Any]:
    """Return one line of the results, with what follows from the measurements."""
    warm = statistics.median(measured.warm_s) if measured.warm_s else None
    denoise = measured.stage_s.get("denoise")
    step = statistics.median(denoise) / measured.steps if denoise and measured.steps and not task.plain else None
    clip_s = measured.frames / measured.fps if measured.fps else 0.0
    # A step that takes the last one's results computes less than the one that is counted.
    counted = 0.0 if task.plan.step_cache else measured.flops_per_step
    achieved = counted / step if step and counted else None
    return {
        "time": round(time.time()),
        "machine": about,
        "task": _TASK.dump_python(task, mode="json"),
        "measured": _MEASURED.dump_python(measured, mode="json"),
        "warm_median_s": warm,
        "warm_spread_s": [min(measured.warm_s), max(measured.warm_s)] if measured.warm_s else None,
        "s_per_step": step,
        "s_per_output_s": warm / clip_s if warm and clip_s else None,
        "mfu": achieved / measured.matmul_flops if achieved and measured.matmul_flops else None,
        "predicted_peak": predicted(task),
    }


def predicted(task: Task) -> dict[str, int]:
    """Return the peak of live tensors that the plan predicts for each stage; nothing for models that are not whole."""
    if task.tiny:
        return {}
    card = load_registry().cards[task.card]
    demand = Demand.of(typical_request(card, size=task.size, seconds=task.seconds))
    return {stage.value: need.allocated for stage, need in needs(card, demand, task.plan).items()}


def tasks(options: argparse.Namespace, kept: Path) -> list[Task]:
    """Return what to measure, ours and plain in turn, so that both meet the same machine.

    Args:
        options: Of the command line.
        kept: Folder for the frames that others are compared with.
    """
    cards = load_registry().cards
    names = list(filter(_is_built, random_weights.known())) if options.cards == ["all"] else options.cards
    found: list[Task] = []
    for number, (name, size, seconds) in enumerate(product(names, options.size, options.seconds)):
        # What ships is small as it is, and nowhere written down.
        tiny = options.tiny and name in random_weights.known()
        for plan in _plans(options):
            ours = Task(
                name, plan, random=options.random_weights or tiny or not installed(cards[name]), tiny=tiny, size=size,
                seconds=seconds, steps=options.steps, runs=options.runs, cap_gib=options.cap_gb,
                frames=str(kept / f"{number}.npy"),
            )  # fmt: skip
            found.append(ours)
            if options.baseline and not ours.is_lossy and has_plain(cards[name]):
                found.append(replace(ours, plain=True))
    return found


def _is_built(name: str) -> bool:
    """Tell whether weights by chance are stored as the model's are: in files that pack them, none are."""
    return all(part.stored is None for part in load_registry().cards[name].weights.components.values())


def _plans(options: argparse.Namespace) -> list[MemoryPlan]:
    """Return every combination of what was asked for, in the order in which it was."""
    dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    chosen = product(options.offload, options.quantisation, options.attention, options.step_cache)
    return [
        MemoryPlan(
            options.device, dtype, quantisation=quantisation, offload=offload, tiled=options.tiled,
            text_encoder_on_cpu=options.text_encoder_on_cpu, attention=attention, compiled=options.compile,
            step_cache=step_cache,
        )
        for offload, quantisation, attention, step_cache in chosen
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.cards == ["-"]:
        return max((main(shlex.split(line)) for line in sys.stdin if line.strip()), default=0)
    options.into.mkdir(parents=True, exist_ok=True)
    about, failed = machine(options.device), 0
    path = options.into / f"{options.name}.jsonl"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as kept:
        for task in tasks(options, Path(kept)):
            measured = run(task, options.limit_s)
            rows.append(row(task, measured, about))
            with path.open("a") as lines:
                lines.write(json.dumps(rows[-1]) + "\n")
            # Not fitting is a result; making the wrong clip is not.
            failed += bool(measured.error) and not measured.error.startswith("out of memory")
            print(table(rows, only=len(rows) - 1, heading=len(rows) == 1), flush=True)
    report(path, options.into)
    return 1 if failed else 0


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cards", nargs="+", help="ids of cards, or all that can be built")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--offload", nargs="+", type=Offload, default=[Offload.NONE], choices=list(Offload))
    parser.add_argument(
        "--quantisation", nargs="+", type=Quantisation, default=[Quantisation.NONE], choices=list(Quantisation)
    )
    parser.add_argument(
        "--step-cache", nargs="+", type=float, default=[0.0], help="lossy; see the setting of that name"
    )
    parser.add_argument("--attention", nargs="+", default=["native"])
    parser.add_argument("--tiled", action="store_true", help="decode tile by tile")
    parser.add_argument("--compile", action="store_true", help="compile the denoiser's blocks")
    parser.add_argument("--text-encoder-on-cpu", action="store_true")
    parser.add_argument("--size", nargs="+", type=_size, default=[None], help="WIDTHxHEIGHT, one or more")
    parser.add_argument("--seconds", nargs="+", type=float, default=[None])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--runs", type=int, default=3, help="warm clips after the cold one")
    parser.add_argument("--cap-gb", type=float, default=0.0, help="let the process have no more of the device, in GiB")
    parser.add_argument("--limit-s", type=float, default=600.0, help="give up on a configuration after so long")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--tiny", action="store_true", help="as small as can be: checks that all of it runs")
    parser.add_argument("--baseline", action="store_true", help="also make the clip with diffusers alone")
    parser.add_argument("--into", type=Path, default=Path("scripts/results"))
    parser.add_argument("--name", default="benchmark", help="name of the files with the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
