"""Videos on order: wait for them, fetch their files, say what became of each. What all verbs that make videos share."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.outcome import Failure, Outcome
from server.cli.progress import Bars
from server.jobs import TERMINAL, JobStatus

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Sequence

    from server.cli.client import Client
    from server.schemas import Video


@dataclass
class Order:
    """A video that the server has accepted: how far it is, when to look again, and the file once it is made."""

    video: Video
    path: Path | None
    next_look: float = 0.0
    made: Path | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is still something to wait for."""
        return self.video.status not in TERMINAL


@dataclass(frozen=True)
class Wanted:
    """A video to ask for, and where its file goes; without a path it is named after prompt and seed."""

    ask: Callable[[Client], Video]
    path: Path | None = None


def add_output(parser: ArgumentParser) -> None:
    """Declare where the file goes and how the result is printed."""
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="default: named after prompt and seed")
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")


def check_output(output: Path | None) -> None:
    """Refuse a file that cannot be written: before minutes of work, not after."""
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise Failure(f"cannot write {output}: it has to be a file in a folder that exists", Outcome.MISUSED)


def make(client: Client, wanted: Sequence[Wanted], *, as_json: bool) -> Outcome:
    """Ask for the videos, wait for them, and print where each is. An interruption cancels those that are open."""
    orders: list[Order] = []
    with Bars(len(wanted)) as bars:
        try:
            for each in wanted:
                orders.append(Order(each.ask(client), each.path))
            while waiting := [order for order in orders if order.is_open]:
                order = min(waiting, key=lambda order: order.next_look)
                look(client, order, bars, orders.index(order))
        except (Failure, KeyboardInterrupt):
            cancel(client, orders)
            raise
    return max(report(order, as_json=as_json) for order in orders)


def look(client: Client, order: Order, bars: Bars, slot: int) -> None:
    """See how an order is doing, once it is time to; fetch the file if the video is made."""
    time.sleep(max(order.next_look - time.monotonic(), 0))
    order.video, wait_s = client.retrieve(order.video.id)
    order.next_look = time.monotonic() + wait_s
    bars.show(slot, order.video, client)
    # At once: what interrupts the other videos does not take this one away.
    if order.video.status is JobStatus.COMPLETED:
        order.made = (order.path or Path(file_name(order.video))).absolute()
        client.download(order.video.id, order.made)


def cancel(client: Client, orders: Sequence[Order]) -> None:
    """Stop what is still open."""
    for order in orders:
        if not order.is_open:
            continue
        try:
            client.cancel(order.video.id)
        except Failure as failure:
            print(f"homereel: {order.video.id} could not be cancelled: {failure}", file=sys.stderr)


def report(order: Order, *, as_json: bool) -> Outcome:
    """Print where the file is, or why there is none."""
    video, made = order.video, order.made
    if made is None:
        reason = video.error.message if video.error else "for no stated reason"
        print(f"homereel: {video.id} failed: {reason}", file=sys.stderr)
    for warning in video.warnings:
        print(f"homereel: note: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps({**video.model_dump(mode="json"), "path": None if made is None else str(made)}))
    elif made is not None:
        print(made)
    return Outcome.FAILED if made is None else Outcome.DONE


def file_name(video: Video) -> str:
    """Return what a file is called that nobody named."""
    words = re.sub(r"[^a-z0-9]+", "-", (video.prompt or "video").lower()).strip("-")
    return f"{words[:48].rstrip('-') or 'video'}-{video.seed}.mp4"
