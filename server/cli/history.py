"""``homereel history``: what has been asked for, and what became of it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Column, Table

from server.cli.local import connected_or_own
from server.cli.outcome import Outcome
from server.cli.progress import describe
from server.cli.words import print_wide, shown
from server.jobs import JobStatus
from server.schemas import VideoList

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from server.schemas import Video

_PAGE = 100


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("words", nargs="*", metavar="WORD", help="only videos whose prompts have all of these words")
    parser.add_argument("--model", help="only what this model was asked for")
    parser.add_argument("--status", choices=[*JobStatus], help="only those in this state")
    parser.add_argument("--starred", action="store_true", help="only those that are starred")
    parser.add_argument("-n", "--limit", type=int, default=20, metavar="N", help="how many, the newest first")
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")


def run(options: Namespace) -> int:
    """Print the videos, the newest first."""
    with connected_or_own() as client:
        videos: list[Video] = []
        after, has_more = None, True
        while has_more and len(videos) < options.limit:
            answer = client.ask(
                "GET",
                "/v1/videos",
                q=" ".join(options.words) or None,
                model=options.model,
                status=options.status,
                starred=True if options.starred else None,
                limit=min(_PAGE, options.limit - len(videos)),
                after=after,
            )
            page = VideoList.model_validate(answer)
            videos += page.data
            after, has_more = page.last_id, page.has_more
    if options.json:
        for video in videos:
            print(json.dumps(video.model_dump(mode="json")))
    elif videos:
        print_wide(_table(videos))
    else:
        print("nothing yet" if not options.words else "no prompt has these words")
    return Outcome.DONE


def _table(videos: list[Video]) -> Table:
    # An id is there to be copied: it is never cut short, however narrow the terminal.
    identity = Column("video", min_width=max(len(video.id) for video in videos), no_wrap=True)
    table = Table(identity, "asked", "state", "model", "size", "seconds", "seed", "prompt", box=None, pad_edge=False)
    for video in videos:
        asked = datetime.fromtimestamp(video.created_at).astimezone().strftime("%Y-%m-%d %H:%M")
        state = f"{describe(video)}{' *' if video.starred else ''}"
        facts = (video.model, video.size, video.seconds, str(video.seed))
        table.add_row(video.id, asked, state, *facts, shown(video.prompt or ""))
    return table
