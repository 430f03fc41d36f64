"""What the server costs: start, memory, time per clip, latency under load, beside a plain diffusers script.

    python scripts/bench_server.py [--rounds 5] [--requests 400] [--device cpu] [--threads 2] [--json]

Clips of the server and of the plain script alternate, so that a machine that is busy with other things disturbs
both alike. Both have the same model, prompt, seed, steps, guidance, shape, threads, priority and OMP_WAIT_POLICY;
the plain script ends with frames in memory, the server with an MP4, a thumbnail and a spritesheet on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import psutil

from pipelines.card import ModelCard
from pipelines.registry import load_registry
from server.devices import find_devices
from server.settings import Settings, worker_environment

MODEL = "homereel-mini"
PROMPT, SEED = "a red ball moving right over a green field, at night", 7
PACKAGES = ("torch", "diffusers", "transformers", "fastapi", "uvicorn", "sqlalchemy")
# Fine against a clip's seconds, and few enough requests not to slow it down.
POLL_S = 0.02
STARTED_WITHIN_S = 120


def wait_for(reached: Callable[[], bool], step_s: float) -> float:
    """Return the seconds until it is so."""
    began = time.perf_counter()
    while not reached():
        if time.perf_counter() - began > STARTED_WITHIN_S:
            raise TimeoutError("the server does not answer")
        time.sleep(step_s)
    return time.perf_counter() - began


class Server:
    """``homereel serve`` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = psutil.Process(process.pid)
        self._api = httpx2.Client(base_url=url, timeout=60)

    def answers(self) -> bool:
        try:
            return self._api.get("/health").is_success
        except httpx2.TransportError:
            return False

    def rss_mb(self) -> float:
        return self.process.memory_info().rss / 1e6

    def post(self) -> str:
        answer = self._api.post("/v1/videos", json={"model": MODEL, "prompt": PROMPT, "seed": SEED})
        return answer.raise_for_status().json()["id"]

    def get(self, video: str) -> dict[str, Any]:
        return self._api.get(f"/v1/videos/{video}").raise_for_status().json()

    def clip(self, wait_s: float = POLL_S) -> tuple[dict[str, Any], float, list[float]]:
        """Make a clip; return it, the seconds it took, and the seconds that each look at its status took."""
        began = time.perf_counter()
        video = self.post()
        looks: list[float] = []
        while True:
            asked = time.perf_counter()
            shown = self.get(video)
            answered = time.perf_counter()
            looks.append(answered - asked)
            if shown["status"] == "failed":
                raise RuntimeError(shown["error"]["message"])
            if shown["status"] == "completed":
                return shown, answered - began, looks
            time.sleep(wait_s)


@contextmanager
def serving(device: str, threads: int | None) -> Generator[tuple[Server, float]]:
    """Yield a server and the seconds from its start to its first answer."""
    command = [sys.executable, "-P", "-m", "server.cli", "serve", "--port", "0", "--devices", device]
    command += ["--log-level", "WARNING"] + ([] if threads is None else ["--threads", str(threads)])
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--data-dir", folder], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            server = Server(process, process.stdout.readline().split()[-1].removesuffix("/v1"))
            wait_for(server.answers, 0.005)
            yield server, time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


@contextmanager
def plain_script(device: str, threads: int | None) -> Generator[Callable[[], float]]:
    """Yield a function that has the plain script make a clip and returns the seconds it took."""
    command = [sys.executable, "-m", "scripts.plain_diffusers", MODEL, device, PROMPT, str(SEED)]
    environment = worker_environment(Settings(threads=threads))
    process = subprocess.Popen(
        command,
        cwd=Path(__file__).resolve().parents[1],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    orders, times = process.stdin, process.stdout

    def clip() -> float:
        print("go", file=orders, flush=True)
        return float(times.readline())

    try:
        yield clip
    finally:
        process.stdin.close()
        process.wait()


def measure(device: str, threads: int | None, rounds: int, requests: int) -> dict[str, Any]:
    measured: dict[str, Any] = {"clip_s": [], "plain_s": [], "stage_s": {}}
    # The server first: the other's imports would slow its start.
    with serving(device, threads) as (server, health_s), plain_script(device, threads) as plain:
        measured |= {"health_s": health_s, "plain_first_clip_s": plain()}
        measured |= {"rss_idle_mb": server.rss_mb(), "first_clip_s": server.clip()[1]}
        for _ in range(rounds):
            video, seconds, _ = server.clip()
            measured["clip_s"].append(seconds)
            for stage, stage_s in video["stage_durations"].items():
                measured["stage_s"].setdefault(stage, []).append(stage_s)
            measured["plain_s"].append(plain())
        looks: list[float] = []
        while len(looks) < requests:
            looks += server.clip(wait_s=0.005)[2]
        measured |= {"status_ms": [1000 * look for look in looks], "rss_after_mb": server.rss_mb()}
    return measured


def machine(card: ModelCard, device: str, threads: int | None) -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return {
        "model": f"{card.id}, weights {card.weights.revision}, on {device}",
        "machine": f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, load {load}",
        "threads": str(threads or "all"),
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
        ),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
    }


def spread(values: Sequence[float], unit: str) -> str:
    """Return the median with the extremes, of how many."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.2f}{unit} ({low:.2f} to {high:.2f}, n={len(values)})"


def report(told: dict[str, str], measured: dict[str, Any]) -> str:
    """Return everything as Markdown."""
    looks = sorted(measured["status_ms"])
    p50, p99 = (looks[min(int(len(looks) * share), len(looks) - 1)] for share in (0.5, 0.99))
    ratios = [clip / plain for clip, plain in zip(measured["clip_s"], measured["plain_s"], strict=True)]
    rows = [
        ("start to the first `/health`", f"{measured['health_s']:.2f} s"),
        ("memory of the API process, idle", f"{measured['rss_idle_mb']:.0f} MB"),
        ("memory of the API process, after the run", f"{measured['rss_after_mb']:.0f} MB"),
        ("first clip, model loaded for it", f"{measured['first_clip_s']:.2f} s"),
        ("clip, POST to `completed`", spread(measured["clip_s"], " s")),
        *((f"… of it {stage}", spread(seconds, " s")) for stage, seconds in measured["stage_s"].items()),
        ("plain diffusers script", spread(measured["plain_s"], " s")),
        ("server / plain script", spread(ratios, "")),
        (
            "status GET while a clip is made",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {looks[-1]:.1f} ms (n={len(looks)})",
        ),
    ]
    facts = "\n".join(f"- {name}: {value}" for name, value in told.items())
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"{facts}\n\n| what | measured |\n|---|---|\n{table}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="clips of each kind")
    parser.add_argument("--requests", type=int, default=400, help="least number of status requests")
    parser.add_argument("--device", default=find_devices()[0])
    parser.add_argument("--threads", type=int, help="CPU threads; default: all cores")
    parser.add_argument("--json", action="store_true", help="print every single measurement")
    options = parser.parse_args()
    card = load_registry().find(MODEL)
    told = machine(card, options.device, options.threads)
    measured = measure(options.device, options.threads, options.rounds, options.requests)
    print(json.dumps(told | measured) if options.json else report(told, measured))


if __name__ == "__main__":
    main()
