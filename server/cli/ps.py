"""``homereel ps``: who works, what runs, what waits."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from pipelines.needs import GIB
from server.cli.local import connected
from server.cli.outcome import Outcome
from server.cli.progress import clock, describe
from server.cli.words import print_wide, shown

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from server.schemas import Video, Worker


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    """Print the workers, and the videos that have not ended in the order in which they will be made."""
    with connected() as client:
        workers, videos = client.workers(), list(client.open_videos())
    # Running before waiting, and the waiting ones by their place in line.
    videos.sort(key=lambda video: (video.queue_position or 0, video.created_at))
    if options.json:
        bodies = {"workers": [w.model_dump(mode="json") for w in workers]}
        bodies["videos"] = [video.model_dump(mode="json") for video in videos]
        print(json.dumps(bodies))
        return Outcome.DONE
    console = Console(soft_wrap=True)
    if workers:
        print_wide(_worker_table(workers))
    else:
        console.print("no worker is up yet")
    if videos:
        console.print()
        console.print(_video_table(videos))
    return Outcome.DONE


def _worker_table(workers: list[Worker]) -> Table:
    table = Table("device", "state", "memory free", "model loaded", "runs with", "unloads", box=None, pad_edge=False)
    for worker in workers:
        first = (worker.device, "busy" if worker.busy else "idle", _free(worker))
        for loaded in worker.models:
            table.add_row(*first, loaded.model, loaded.plan, _unloads(loaded.unload_at))
            first = ("", "", "")
        if not worker.models:
            table.add_row(*first, worker.model or "-", "", "")
    return table


def _free(worker: Worker) -> str:
    if worker.memory_free_mb is None or worker.memory_total_mb is None:
        return ""
    free, total = (size * 1e6 / GIB for size in (worker.memory_free_mb, worker.memory_total_mb))
    return f"{free:.1f} of {total:.1f} GiB"


def _unloads(at: int | None) -> str:
    return "" if at is None else f"in {clock(max(0, at - time.time()))}"


def _video_table(videos: list[Video]) -> Table:
    # An id is there to be copied: it is never cut short, however narrow the terminal.
    table = Table(
        Column("video", min_width=max(len(video.id) for video in videos)),
        "model",
        "state",
        "%",
        "left",
        "prompt",
        box=None,
        pad_edge=False,
    )
    for video in videos:
        left = clock(video.eta_s) if video.eta_s is not None else ""
        table.add_row(video.id, video.model, describe(video), str(video.progress), left, shown(video.prompt or ""))
    return table
