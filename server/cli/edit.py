"""``homereel edit``: a video or an MP4, made anew as a prompt says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.cli.anew import COMMON, STRENGTH, carry_out, declare

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_SETTINGS = (*COMMON, STRENGTH)


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    declare(parser, _SETTINGS, takes_file=True)


def run(options: Namespace) -> int:
    """Make it; print where the file is."""
    return carry_out(options, _SETTINGS, "/v1/videos/edits")
