"""``homereel join``: videos, or parts of them, one after the other in one file."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from functools import partial
from typing import TYPE_CHECKING

from server.cli.client import Client
from server.cli.local import connected_or_own
from server.cli.orders import Wanted, add_output, check_output, make

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from pydantic import JsonValue

_PART = re.compile(r"(?P<id>[^:]+)(?::(?P<start>\d*)-(?P<end>\d*))?")


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "videos",
        nargs="+",
        type=_part,
        metavar="ID[:START-END]",
        help="a video, or its frames START up to but without END, counted from 0: video_…:8-, video_…:-40",
    )
    add_output(parser)


def run(options: Namespace) -> int:
    """Join them in the given order; print where the file is."""
    check_output(options.output)
    fields: dict[str, JsonValue] = {"videos": options.videos}
    with connected_or_own() as client:
        wanted = Wanted(partial(Client.make, path="/v1/videos/join", fields=fields), options.output)
        return make(client, [wanted], as_json=options.json)


def _part(text: str) -> JsonValue:
    found = _PART.fullmatch(text)
    if found is None:
        raise ArgumentTypeError("must be an id, or one with frames such as video_…:8-40")
    frames = {"start_frame": found["start"], "end_frame": found["end"]}
    return {"id": found["id"]} | {name: int(number) for name, number in frames.items() if number}
