"""``homereel doctor``: whether this machine is fit to make videos, and how to mend what is not."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console

from server.assets import AssetStore
from server.cli.configuration import add_settings, opened, settings_from
from server.cli.models import registry
from server.cli.outcome import Outcome
from server.doctor import Finding, examine
from server.repair import index_again
from server.store import JobStore

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from server.settings import Settings

_MARKS = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "fails": "[red]✗[/]"}


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    add_settings(parser, ("host", "port", "data_dir", "min_free_gb"))
    parser.add_argument(
        "--repair", action="store_true", help="write the records of videos again that have files and no record"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per check")


def run(options: Namespace) -> int:
    """Print every finding as it is made; fail if one fails."""
    settings = settings_from(options)
    if options.repair:
        return _repair(settings, as_json=options.json)
    console = Console(soft_wrap=True, highlight=False)
    outcome = Outcome.DONE
    for finding in examine(settings, registry()):
        if finding.state == "fails":
            outcome = Outcome.FAILED
        if options.json:
            print(json.dumps(asdict(finding)))
        else:
            _print(console, finding)
    return outcome


def _repair(settings: Settings, *, as_json: bool) -> int:
    """Write lost records again, and say of each folder what became of it."""
    with opened(settings) as engine:
        outcomes = list(index_again(JobStore(engine, time.time), AssetStore(settings.assets_dir)))
    for outcome in outcomes:
        if as_json:
            print(json.dumps(asdict(outcome)))
        else:
            print(f"{outcome.job_id}: {outcome.reason or 'has a record again'}")
    if not as_json:
        mended = sum(outcome.reason is None for outcome in outcomes)
        print(f"{mended} records written again; {len(outcomes) - mended} folders left as they are")
    return Outcome.DONE


def _print(console: Console, finding: Finding) -> None:
    console.print(f"{_MARKS[finding.state]} ", end="")
    # Names and messages come from drivers and files: no brackets of theirs may steer this terminal.
    console.print(f"{finding.check}: {finding.message}", markup=False)
    if finding.mend:
        console.print(f"    mend: {finding.mend}", markup=False)
