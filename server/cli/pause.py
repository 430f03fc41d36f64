"""``homereel pause``: have nothing made for a while. What is being made is kept where it is, and goes on later."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from server.cli.configuration import PLACE, add_settings, opened, settings_from
from server.cli.outcome import Outcome
from server.control import Control

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("reason", nargs="?", default="", help="told to whoever waits")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings(parser, PLACE)


def run(options: Namespace) -> int:
    """Pause; it lasts over restarts, until somebody resumes."""
    with opened(settings_from(options)) as engine:
        Control(engine, time.time).pause(options.reason)
    if options.json:
        print(json.dumps({"paused": True, "reason": options.reason}))
        return Outcome.DONE
    print("paused: what is being made is given back after its next steps, and the device freed")
    print("New videos are accepted and wait. Go on with: homereel resume")
    return Outcome.DONE
