"""``homereel restore``: with which parameters an MP4 was made, and if wanted the same video again."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.client import Client
from server.cli.local import connected_or_own
from server.cli.orders import Wanted, add_output, check_output, make
from server.cli.outcome import Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("file", type=Path, metavar="FILE.mp4", help="a video that Homereel made")
    parser.add_argument("--make", action="store_true", help="make it again")
    add_output(parser)


def run(options: Namespace) -> int:
    """Print the parameters, one a line; or make the video again and print where it is."""
    check_output(options.output)
    with connected_or_own() as client:
        told = client.upload("/v1/videos/restore", {}, options.file).json()
        for warning in told["warnings"]:
            print(f"homereel: note: {warning}", file=sys.stderr)
        if options.make:
            again = partial(Client.make, path="/v1/videos", fields=told["parameters"])
            return make(client, [Wanted(again, options.output)], as_json=options.json)
    if options.json:
        print(json.dumps(told))
        return Outcome.DONE
    for name, value in told["parameters"].items():
        print(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    for part in told["parts"]:
        print(f"joined from: {part['video']} frames {part['start_frame']} to {part['end_frame'] - 1}")
    return Outcome.DONE
