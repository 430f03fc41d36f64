"""``homereel list``: the models this installation knows. Reads the cards; needs no server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pipelines.registry import installed, load_registry
from server.cli.outcome import Outcome

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from pipelines.card import ModelCard


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object per model")


def run(options: Namespace) -> int:
    """Print every card, and under which other names it is known."""
    registry = load_registry()
    rows = [
        _row(card, tuple(alias for alias, cards in registry.aliases.items() if card.id in cards))
        for card in registry.cards.values()
    ]
    if options.json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return Outcome.DONE
    table = Table("model", "licence", "sizes", "seconds", "installed", "also called", box=None, pad_edge=False)
    for row in rows:
        installed_here = "yes" if row.installed else "no"
        seconds = f"up to {row.max_seconds}"
        table.add_row(row.id, row.licence, " ".join(row.sizes), seconds, installed_here, " ".join(row.aliases))
    Console(soft_wrap=True).print(table)
    return Outcome.DONE


@dataclass(frozen=True)
class _Row:
    id: str
    name: str
    licence: str
    sizes: tuple[str, ...]
    fps: int
    max_seconds: int
    installed: bool
    aliases: tuple[str, ...]


def _row(card: ModelCard, aliases: tuple[str, ...]) -> _Row:
    return _Row(
        id=card.id,
        name=card.name,
        licence=card.licence.id,
        sizes=tuple(str(size) for size in card.shape.sizes),
        fps=card.shape.fps,
        max_seconds=card.shape.max_frames // card.shape.fps,
        installed=installed(card),
        aliases=aliases,
    )
