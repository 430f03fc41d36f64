"""``homereel rm``: remove a model's weights from this machine, or the card of one that was added."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pipelines import snapshot
from pipelines.holdings import as_installed, origins
from pipelines.removal import remove, sharing
from server.cli.models import card_of, registry, size_text
from server.cli.outcome import Failure, Outcome
from server.settings import Settings

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", help="id of the model")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    """Remove what can be fetched again; files and folders of the user's own are never touched."""
    card = card_of(options.model)
    if card.weights.package is not None:
        raise Failure(f"{card.id} is a part of this program")
    own = [str(place) for place in (card.weights.folder, *(t.path for t in card.weights.borrowed.values())) if place]
    if own:
        (Settings().models_dir / f"{card.id}.yaml").unlink(missing_ok=True)
        said = f"{card.id} is no model any more; as it was: {', '.join(own)}"
        print(json.dumps({"model": card.id, "freed_bytes": 0}) if options.json else said)
        return Outcome.DONE
    cache = snapshot.shared_cache()
    others = sharing(card, registry().cards.values())
    needed = f" that {', '.join(other.id for other in others)} can do without" if others else ""
    repositories = " and ".join(dict.fromkeys(origin.repo for origin in origins(card.weights)))
    if not options.yes and not _agreed(
        f"Remove from {cache} what is there of {repositories}{needed}? Other programs may use it. [y/N] "
    ):
        raise Failure("nothing was removed")
    freed = remove(card, others, cache)
    if options.json:
        print(json.dumps({"model": card.id, "freed_bytes": freed, "kept_for": [other.id for other in others]}))
        return Outcome.DONE
    print(f"{card.id}: {size_text(freed)} are free now" if freed else f"{card.id}: nothing was there to be removed")
    if others and as_installed(card):
        print(f"all of it belongs to {', '.join(other.id for other in others)}, too, and stays until they go")
    return Outcome.DONE


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Failure("say --yes where nobody can be asked", Outcome.MISUSED)
    return input(question).strip().lower() in ("y", "yes")
