"""``homereel resume``: go on after ``homereel pause``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from server.cli.configuration import PLACE, add_settings, opened, settings_from
from server.cli.outcome import Outcome
from server.control import Control

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_settings(parser, PLACE)


def run(options: Namespace) -> int:
    """Go on where the videos were left."""
    with opened(settings_from(options)) as engine:
        was_paused = Control(engine, time.time).resume()
    print("the queue goes on" if was_paused else "the queue was not paused")
    return Outcome.DONE
