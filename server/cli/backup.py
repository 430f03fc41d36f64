"""``homereel backup``: copy database and files into a folder, while the server runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from server.backup import NotPossible, back_up
from server.cli.configuration import PLACE, add_settings, settings_from
from server.cli.models import size_text
from server.cli.outcome import Failure, Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", type=Path, help="where to; what it has already is not copied again")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_settings(parser, PLACE)


def run(options: Namespace) -> int:
    """Copy, and say what there is."""
    try:
        copied = back_up(settings_from(options), options.folder)
    except NotPossible as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"cannot write to {options.folder}: {error.strerror}") from error
    if options.json:
        print(json.dumps(asdict(copied)))
        return Outcome.DONE
    gone = f"; {copied.vanished} were deleted meanwhile" if copied.vanished else ""
    size = size_text(copied.size)
    print(f"{options.folder} has the database and {copied.files} files ({size}), {copied.new} of them new{gone}")
    print(f"A server goes on from there with: homereel serve --data-dir {options.folder}")
    return Outcome.DONE
