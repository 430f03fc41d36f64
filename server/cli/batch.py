"""``homereel batch``: a file of requests, one JSON object a line, becomes a folder of videos."""

from __future__ import annotations

import json
import re
import sys
import time
from argparse import ArgumentTypeError
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from server.cli.client import Busy
from server.cli.local import connected_or_own
from server.cli.orders import Order, cancel, file_name, look, report
from server.cli.outcome import Failure, Outcome
from server.cli.progress import Bars

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from server.cli.client import Client

MAX_AT_ONCE = 16


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE.jsonl",
        help="each line the parameters of a video, or a line of POST /v1/batches; - reads standard input",
    )
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="where the videos go")
    parser.add_argument(
        "--at-once", type=_count, default=4, metavar="N", help="videos that wait or run at a time (default: 4)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line of the file")


@dataclass(frozen=True)
class _Line:
    """A request of the file."""

    number: int
    name: str | None
    fields: dict[str, Any]


def run(options: Namespace) -> int:
    """Make all of them; one that fails does not keep the others from being made."""
    lines = _read(options.file)
    folder: Path = options.output.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot write to {folder}: {error.strerror}", Outcome.MISUSED) from error
    with connected_or_own() as client, Bars(min(options.at_once, len(lines))) as bars:
        return _Run(client, folder, bars, as_json=options.json).all(lines, options.at_once)


class _Run:
    """The videos of one file, a few of them at a time."""

    def __init__(self, client: Client, folder: Path, bars: Bars, *, as_json: bool) -> None:
        self._client = client
        self._folder = folder
        self._bars = bars
        self._as_json = as_json
        self._open: dict[int, Order] = {}
        self._taken: set[Path] = set()
        self._outcome = Outcome.DONE

    def all(self, lines: list[_Line], at_once: int) -> Outcome:
        """Make every line's video."""
        waiting = deque(lines)
        free = list(range(min(at_once, len(lines))))
        try:
            while waiting or self._open:
                while waiting and free and self._ask(waiting[0], free):
                    waiting.popleft()
                if self._open:
                    self._look(free)
        except (Failure, KeyboardInterrupt):
            cancel(self._client, list(self._open.values()))
            raise
        return self._outcome

    def _ask(self, line: _Line, free: list[int]) -> bool:
        """Ask for a line's video; tell whether the line is dealt with."""
        try:
            video = self._client.make("/v1/videos", line.fields)
        except Busy as busy:
            # Of our own videos one will end; of other people's, after a while.
            if not self._open:
                time.sleep(busy.retry_s)
            return False
        except Failure as failure:
            if failure.is_connection:
                raise
            self._refused(line, failure)
            return True
        path = self._folder / f"{_plain(line.name)}.mp4" if line.name else self._folder / file_name(video)
        if path in self._taken or path.exists():
            # Two lines may have one prompt and one seed; what is there already stays.
            path = path.with_stem(f"{path.stem}-{line.number}")
        self._taken.add(path)
        self._open[free.pop()] = Order(video, path)
        return True

    def _look(self, free: list[int]) -> None:
        slot = min(self._open, key=lambda slot: self._open[slot].next_look)
        order = self._open[slot]
        look(self._client, order, self._bars, slot)
        if not order.is_open:
            del self._open[slot]
            free.append(slot)
            self._outcome = max(self._outcome, report(order, as_json=self._as_json))

    def _refused(self, line: _Line, failure: Failure) -> None:
        print(f"homereel: line {line.number}: {failure}", file=sys.stderr)
        if self._as_json:
            print(json.dumps({"line": line.number, "name": line.name, "error": str(failure), "path": None}))
        self._outcome = Outcome.FAILED


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_AT_ONCE:
        raise ArgumentTypeError(f"must be a number from 1 to {MAX_AT_ONCE}")
    return int(text)


def _read(source: Path) -> list[_Line]:
    """Return the lines; a file with a line that is none is refused before anything is made."""
    try:
        text = sys.stdin.read() if str(source) == "-" else source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"cannot read {source}: {error}", Outcome.MISUSED) from error
    lines = [_line(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise Failure(f"there is no request in {source}", Outcome.MISUSED)
    return lines


def _line(number: int, text: str) -> _Line:
    try:
        said: object = json.loads(text)
    except ValueError as error:
        raise Failure(f"line {number} is not JSON: {error}", Outcome.MISUSED) from error
    if not isinstance(said, dict):
        raise Failure(f"line {number} is not a JSON object", Outcome.MISUSED)
    fields = cast("dict[str, Any]", said)
    name, body = fields.get("custom_id"), fields.get("body")
    if isinstance(body, dict):
        return _Line(number, str(name) if name else None, cast("dict[str, Any]", body))
    return _Line(number, None, fields)


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:100] or "video"
