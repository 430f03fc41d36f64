"""``homereel generate``: one prompt becomes one video file, or several that differ by their seed."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.local import connected_or_own
from server.cli.outcome import Failure, Outcome
from server.cli.progress import Bars
from server.jobs import TERMINAL, JobStatus

if TYPE_CHECKING:
    from pydantic import JsonValue

    from server.cli.client import Client
    from server.schemas import Video

MAX_CLIPS = 100
SEEDS = 2**31
# Options that travel as they are: flag, name on the wire, type, help.
_SETTINGS: tuple[tuple[str, str, type, str], ...] = (
    ("--seconds", "seconds", str, "length of the video"),
    ("--size", "size", str, "WIDTHxHEIGHT of the file"),
    ("--negative", "negative_prompt", str, "what to steer away from"),
    ("--model", "model", str, "which model makes it (see: homereel list)"),
    ("--steps", "num_inference_steps", int, "denoising steps"),
    ("--guidance", "guidance_scale", float, "how closely to follow the prompt"),
)


@dataclass(frozen=True)
class Plan:
    """One video to ask for. Without a seed the server draws one; without a path the file is named after it."""

    seed: int | None
    path: Path | None


@dataclass
class Order:
    """A video that the server has accepted: how far it is, when to look again, and the file once it is made."""

    video: Video
    path: Path | None
    next_look: float = 0.0
    made: Path | None = None


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="what to show; - reads it from standard input")
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help="read the prompt from a text file")
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.mp4", help="default: named after prompt and seed")
    parser.add_argument("--seed", type=int, help="same request, same seed, same frames")
    parser.add_argument("--n", type=_clip_count, default=1, metavar="N", help="make N videos with seeds S, S+1, ...")
    parser.add_argument("--image", type=Path, metavar="FILE", help="picture that becomes the first frame")
    for flag, name, kind, summary in _SETTINGS:
        parser.add_argument(flag, dest=name, type=kind, help=summary)
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")


def run(options: Namespace) -> int:
    """Make the videos; print the path of each, or its JSON."""
    fields: dict[str, JsonValue] = {"prompt": _prompt(options)}
    fields |= {name: getattr(options, name) for _, name, _, _ in _SETTINGS if getattr(options, name) is not None}
    plans = _plans(options.seed, options.output, options.n)
    _check_output(options.output)
    orders: list[Order] = []
    with connected_or_own() as client, Bars(len(plans)) as bars:
        try:
            for plan in plans:
                seeded = fields if plan.seed is None else fields | {"seed": plan.seed}
                orders.append(Order(client.create(seeded, options.image), plan.path))
            _wait(client, orders, bars)
        except (Failure, KeyboardInterrupt):
            _cancel(client, orders)
            raise
    return max(_report(order, as_json=options.json) for order in orders)


def _clip_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_CLIPS:
        raise ArgumentTypeError(f"must be a number from 1 to {MAX_CLIPS}")
    return int(text)


def _prompt(options: Namespace) -> str:
    source: Path | None = Path("-") if options.prompt == "-" else options.file
    if (source is None) == (options.prompt in {None, "-"}):
        raise Failure("give one prompt: as a word in quotes, with --file, or as - on standard input", Outcome.MISUSED)
    if source is None:
        return options.prompt
    try:
        return (sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read the prompt from {source}: {error}", Outcome.MISUSED) from error


def _plans(seed: int | None, output: Path | None, count: int) -> list[Plan]:
    if count == 1:
        return [Plan(seed, output)]
    first = secrets.randbelow(SEEDS) if seed is None else seed
    return [
        Plan(first + i, output.with_stem(f"{output.stem}-{i + 1}") if output is not None else None)
        for i in range(count)
    ]


def _check_output(output: Path | None) -> None:
    # Before minutes of work, not after.
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise Failure(f"cannot write {output}: it has to be a file in a folder that exists", Outcome.MISUSED)


def _wait(client: Client, orders: list[Order], bars: Bars) -> None:
    while waiting := [order for order in orders if order.video.status not in TERMINAL]:
        order = min(waiting, key=lambda order: order.next_look)
        time.sleep(max(order.next_look - time.monotonic(), 0))
        order.video, wait_s = client.retrieve(order.video.id)
        order.next_look = time.monotonic() + wait_s
        bars.show(orders.index(order), order.video)
        # At once: what interrupts the other videos does not take this one away.
        if order.video.status is JobStatus.COMPLETED:
            order.made = (order.path or Path(_file_name(order.video))).absolute()
            client.download(order.video.id, order.made)


def _cancel(client: Client, orders: list[Order]) -> None:
    for order in orders:
        if order.video.status in TERMINAL:
            continue
        try:
            client.cancel(order.video.id)
        except Failure as failure:
            print(f"homereel: {order.video.id} could not be cancelled: {failure}", file=sys.stderr)


def _report(order: Order, *, as_json: bool) -> Outcome:
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


def _file_name(video: Video) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", (video.prompt or "video").lower()).strip("-")
    return f"{words[:48].rstrip('-') or 'video'}-{video.seed}.mp4"
