"""``homereel extend``: a video or an MP4 goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.cli.anew import COMMON, Setting, carry_out, declare

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_SETTINGS = (Setting("--seconds", "seconds", str, "length of what is added (default: 4)"), *COMMON)


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    declare(parser, _SETTINGS, takes_file=True)
    parser.set_defaults(seconds="4")


def run(options: Namespace) -> int:
    """Make it; print where the file is, which holds the source too."""
    return carry_out(options, _SETTINGS, "/v1/videos/extensions")
