"""``homereel resume``: go on after ``homereel pause``."""

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
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings(parser, PLACE)


def run(options: Namespace) -> int:
    """Go on where the videos were left."""
    with opened(settings_from(options)) as engine:
        was_paused = Control(engine, time.time).resume()
    said = "the queue goes on" if was_paused else "the queue was not paused"
    print(json.dumps({"paused": False, "was_paused": was_paused}) if options.json else said)
    return Outcome.DONE
