"""``homereel list``: the models this installation knows. Reads the cards; needs no server."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.table import Column, Table

from pipelines.fitting import least_vram
from pipelines.holdings import as_installed, size_of
from pipelines.needs import GIB
from server.cli.models import registry, size_text
from server.cli.outcome import Outcome
from server.cli.words import print_wide

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from pipelines.card import ModelCard


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object per model")


def run(options: Namespace) -> int:
    """Print every card, and under which other names it is known."""
    known = registry()
    for complaint in known.unreadable:
        print(f"cannot be read: {complaint}", file=sys.stderr)
    rows = [
        _row(card, tuple(alias for alias, cards in known.aliases.items() if card.id in cards))
        for card in known.cards.values()
    ]
    if options.json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return Outcome.DONE
    columns = [
        Column(name, no_wrap=True) for name in ("model", "licence", "size", "seconds", "VRAM", "here", "also called")
    ]
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        here = size_text(row.bytes) if row.installed else "no"
        licence = f"{row.licence} *" if row.duties else row.licence
        seconds = f"up to {row.max_seconds:g}"
        others = f" and {len(row.sizes) - 1} more" if len(row.sizes) > 1 else ""
        size = f"{' '.join(row.sizes[:1])}{others}"
        table.add_row(row.id, licence, size, seconds, _vram(row.vram_bytes), here, " ".join(row.aliases))
    print_wide(table)
    for licence, said in sorted({(row.licence, duty) for row in rows for duty in row.duties}):
        print(f"* {licence}: {said}")
    print(
        "Fetch one with: homereel pull MODEL. VRAM is the least, slowly and with RAM enough; more: homereel plan MODEL."
    )
    return Outcome.DONE


def _vram(size: int | None) -> str:
    return "none" if size is None else f"from {math.ceil(size / GIB)} GiB"


@dataclass(frozen=True)
class _Row:
    id: str
    name: str
    licence: str
    sizes: tuple[str, ...]
    fps: int
    max_seconds: float
    vram_bytes: int | None
    installed: bool
    bytes: int
    duties: tuple[str, ...]
    aliases: tuple[str, ...]


def _row(card: ModelCard, aliases: tuple[str, ...]) -> _Row:
    here = as_installed(card)
    card = here or card
    return _Row(
        id=card.id,
        name=card.name,
        licence=card.licence.id,
        sizes=tuple(str(size) for size in card.shape.sizes),
        fps=card.shape.fps,
        max_seconds=card.shape.max_seconds,
        vram_bytes=least_vram(card),
        installed=here is not None,
        bytes=size_of(card) if here else 0,
        duties=tuple(card.licence.duties),
        aliases=aliases,
    )
