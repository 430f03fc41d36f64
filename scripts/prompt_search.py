"""How long the log takes to find a prompt among thousands: in the database, and over HTTP.

    python scripts/prompt_search.py [--prompts 10000] [--rounds 200] [--into scripts/results/prompt-search.md]

A temporary database is filled with finished videos whose prompts are composed of the shipped templates, every one
different; then each question is asked many times, in turns, by a client on a real socket and at the store itself.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from pipelines.types import GenerationRequest, VideoShape
from server.app import create_app
from server.jobs import NOBODY, Job, JobStatus, new_job_id
from server.prompts import Beat, Template, compose, shipped
from server.selection import Filter, words_of
from server.settings import Settings
from server.store import JobStore

SHAPE = VideoShape(16, 96, 160, 8)
RARE = "heliotrope"
AT_ONCE = 500
# As the route asks.
LATEST: dict[str, Any] = {"after": None, "limit": 20, "newest_first": True, "owner": NOBODY}
# What is asked: of how it is called, the words, and the model if there is one.
QUESTIONS: tuple[tuple[str, str, str | None], ...] = (
    ("one prompt, by a word that no other has", RARE, None),
    ("one prompt, by the beginning of that word", RARE[:6], None),
    ("two words, some prompts have both", "lanterns drummer", None),
    ("a word of one prompt in seven", "aerial", None),
    ("a word that every prompt has", "the", None),
    ("the same, of a model that made a third", "the", "sora-2-pro"),
    ("a word that no prompt has", "xylophone", None),
    ("no words: the newest", "", None),
)


def prompts(count: int, chance: random.Random) -> list[str]:
    """Return prompts as people compose them, every one different, the rare word in one from the middle."""
    templates = list(shipped().values())
    made: set[str] = set()
    while len(made) < count:
        beats = [Beat(template, _values(template, chance)) for template in chance.sample(templates, 2)]
        made.add(f"{compose(beats)} Take {len(made)}.")
    found = sorted(made)
    chance.shuffle(found)
    found[count // 2] += f" The {RARE} is in bloom."
    return found


def _values(template: Template, chance: random.Random) -> dict[str, str]:
    return {slot.name: chance.choice(slot.suggestions) for slot in template.slots}


def fill(store: JobStore, texts: Sequence[str]) -> None:
    began = time.time() - len(texts)
    for start in range(0, len(texts), AT_ONCE):
        jobs = [_job(text, began + start + i) for i, text in enumerate(texts[start : start + AT_ONCE])]
        store.add(*jobs, max_queued=1)


def _job(prompt: str, created_at: float) -> Job:
    request = GenerationRequest(prompt, "", SHAPE, SHAPE, int(created_at), 20, 4.0)
    model = "sora-2-pro" if int(created_at) % 3 == 0 else "sora-2"
    return Job(new_job_id(created_at), model, "homereel-mini", JobStatus.COMPLETED, request, created_at)


@contextmanager
def served(settings: Settings) -> Generator[httpx2.Client]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(uvicorn.Config(create_app(settings, supervise=False), log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as client:
                client.get("/health").raise_for_status()
                yield client
        finally:
            server.should_exit = True
            thread.join()


def timed(ask: Callable[[], Any]) -> float:
    began = time.perf_counter()
    ask()
    return 1000 * (time.perf_counter() - began)


def told(took_ms: Sequence[float]) -> str:
    ordered = sorted(took_ms)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    return f"p50 {statistics.median(ordered):.1f} ms, p95 {p95:.1f} ms, max {ordered[-1]:.1f} ms (n={len(ordered)})"


def machine() -> list[str]:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    names = [line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "fastapi", "uvicorn", "pydantic"))
    return [
        f"- machine: {names[0] if names else platform.machine()}, {os.cpu_count()} cores, load {load}",
        f"- versions: Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {versions}",
    ]


def _cpu_lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else []


def measure(count: int, rounds: int, folder: Path) -> list[str]:
    settings = Settings(data_dir=folder / "data", max_videos=10 * count)
    store = JobStore.open(settings.database_url)
    began = time.perf_counter()
    fill(store, prompts(count, random.Random(7)))
    filled_s = time.perf_counter() - began
    inside: dict[str, list[float]] = {name: [] for name, _, _ in QUESTIONS}
    outside: dict[str, list[float]] = {name: [] for name, _, _ in QUESTIONS}
    found: dict[str, int] = {}
    with served(settings) as client:
        for _, (name, words, model) in itertools.product(range(rounds), QUESTIONS):
            only = Filter(model=model, words=words_of(words))
            query = {key: value for key, value in (("q", words), ("model", model)) if value}
            inside[name].append(timed(partial(store.list, **LATEST, only=only)))
            outside[name].append(timed(partial(client.get, "/v1/prompts/log", params=query)))
        for name, words, model in QUESTIONS:
            query = {key: value for key, value in (("q", words), ("model", model)) if value}
            entries = client.get("/v1/prompts/log", params=query).raise_for_status().json()["data"]
            found[name] = sum(len(entry["videos"]) for entry in entries)
    store.close()
    size_mb = sum(path.stat().st_size for path in settings.data_dir.glob("*.sqlite*")) / 1e6
    rows = [f"| {name} | {found[name]} | {told(inside[name])} | {told(outside[name])} |" for name in inside]
    return [
        f"- {count:,} prompts, all different, put in within {filled_s:.1f} s; database {size_mb:.0f} MB",
        "",
        "| question, the first 20 answers | found | in the database | `GET /v1/prompts/log` |",
        "|---|---|---|---|",
        *rows,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--into", type=Path, help="write the result there too")
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        lines = [*before, *measure(options.prompts, options.rounds, Path(folder))]
    print("\n".join(lines))
    if options.into:
        options.into.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
