"""``homereel list``: the models this installation knows. Reads the cards; needs no server."""

from __future__ import annotations

import json
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
    aliases = {
        card: [alias for alias, cards in registry.aliases.items() if card in cards] for card in registry.cards
    }
    if options.json:
        for card in registry.cards.values():
            print(json.dumps(_facts(card, aliases[card.id])))
        return Outcome.DONE
    table = Table("model", "licence", "sizes", "seconds", "installed", "also called", box=None, pad_edge=False)
    for card in registry.cards.values():
        facts = _facts(card, aliases[card.id])
        cells = [card.id, card.licence.id, " ".join(facts["sizes"]), f"up to {facts['max_seconds']}"]
        table.add_row(*cells, "yes" if facts["installed"] else "no", " ".join(facts["aliases"]))
    Console(soft_wrap=True).print(table)
    return Outcome.DONE


def _facts(card: ModelCard, aliases: list[str]) -> dict[str, object]:
    return {
        "id": card.id,
        "name": card.name,
        "licence": card.licence.id,
        "sizes": [str(size) for size in card.shape.sizes],
        "fps": card.shape.fps,
        "max_seconds": card.shape.max_frames // card.shape.fps,
        "installed": installed(card),
        "aliases": aliases,
    }
