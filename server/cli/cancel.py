"""``homereel cancel``: stop videos that wait or run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from server.cli.local import connected
from server.cli.outcome import Failure, Outcome
from server.jobs import JobStatus

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("ids", nargs="+", metavar="ID", help="the video's id (see: homereel ps)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")


def run(options: Namespace) -> int:
    """Ask for each to be stopped; one that cannot be does not keep the others running."""
    outcome = Outcome.DONE
    with connected() as client:
        for video_id in options.ids:
            try:
                video = client.cancel(video_id)
            except Failure as failure:
                print(f"homereel: {failure}", file=sys.stderr)
                outcome = Outcome.FAILED
                continue
            if video.status is JobStatus.COMPLETED:
                print(f"homereel: {video_id} was completed before", file=sys.stderr)
                outcome = Outcome.FAILED
            elif not options.json:
                print(video_id)
            if options.json:
                print(json.dumps(video.model_dump(mode="json")))
    return outcome
