"""``homereel prune``: remove the files of old videos, in the folder itself; a running server does not mind."""

from __future__ import annotations

import json
import re
import time
from argparse import ArgumentTypeError
from datetime import datetime
from typing import TYPE_CHECKING

from server.assets import AssetStore
from server.cli.configuration import PLACE, add_settings, opened, settings_from
from server.cli.outcome import Failure, Outcome
from server.retention import Ended, Pruner
from server.settings import Settings
from server.space import GB

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_AGE = re.compile(rf"(\d+(?:\.\d+)?)([{''.join(_UNITS)}])")


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument(
        "--older-than", type=_age, metavar="AGE", help="videos completed longer ago, such as 30d, 2w or 12h"
    )
    parser.add_argument(
        "--to-gb", type=_gigabytes, metavar="N", help="the oldest, until all videos together take N GB at most"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per video")
    add_settings(parser, (*PLACE, "disk_budget_gb"))


def run(options: Namespace) -> int:
    """Choose, show and remove. Starred videos, and those that wait or run, are never chosen."""
    settings = settings_from(options)
    with opened(settings) as engine:
        pruner = Pruner(engine, AssetStore(settings.assets_dir))
        chosen = _chosen(options, settings, pruner)
        removed = frozenset(() if options.dry_run else pruner.remove(video.id for video in chosen))
    for video in chosen:
        _show(video, options, is_removed=video.id in removed)
    if not options.json:
        counted = chosen if options.dry_run else [video for video in chosen if video.id in removed]
        verb = "would go" if options.dry_run else "removed"
        print(f"{len(counted)} videos, {_amount(sum(video.size for video in counted))} {verb}")
    return Outcome.DONE


def _chosen(options: Namespace, settings: Settings, pruner: Pruner) -> list[Ended]:
    """Return what either option chooses, the oldest first; without any, what the budget does."""
    budget_gb = options.to_gb
    if budget_gb is None and options.older_than is None:
        budget_gb = settings.disk_budget_gb
        if budget_gb is None:
            raise Failure("say what may go: --older-than 30d, --to-gb 50, or a --disk-budget-gb", Outcome.MISUSED)
    chosen: dict[str, Ended] = {}
    if options.older_than is not None:
        before = time.time() - options.older_than
        chosen |= {video.id: video for video in pruner.oldest() if video.completed_at < before}
    if budget_gb is not None:
        chosen |= {video.id: video for video in pruner.over_budget(budget_gb * GB)}
    return sorted(chosen.values(), key=lambda video: video.completed_at)


def _show(video: Ended, options: Namespace, *, is_removed: bool) -> None:
    if options.json:
        print(json.dumps({**video._asdict(), "removed": is_removed}))
        return
    day = datetime.fromtimestamp(video.completed_at).astimezone().strftime("%Y-%m-%d %H:%M")
    kept = "" if is_removed or options.dry_run else "  (starred meanwhile: kept)"
    print(f"{video.id}  {day}  {_amount(video.size):>9}{kept}")


def _amount(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"


def _age(text: str) -> float:
    """Read a time span in seconds.

    Raises:
        ArgumentTypeError: It is none.
    """
    found = _AGE.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is not an age such as 30d, 2w or 12h")
    return float(found[1]) * _UNITS[found[2]]


def _gigabytes(text: str) -> float:
    """Read an amount of GB.

    Raises:
        ArgumentTypeError: It is none.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text) is None:
        raise ArgumentTypeError(f"{text!r} is not a number of GB")
    return float(text)
