"""``homereel rm``: remove a model's weights from this machine, or the card of one that was added."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from pipelines import hub, snapshot
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
    """Remove what can be fetched again; a folder of the user's own is never touched."""
    card = card_of(options.model)
    if card.weights.package is not None:
        raise Failure(f"{card.id} is a part of this program")
    if card.weights.folder is not None:
        (Settings().models_dir / f"{card.id}.yaml").unlink(missing_ok=True)
        said = f"{card.id} is no model any more; {card.weights.folder} is as it was"
        print(json.dumps({"model": card.id, "freed_bytes": 0}) if options.json else said)
        return Outcome.DONE
    cache = snapshot.shared_cache()
    shared = [c.id for c in registry().cards.values() if c.weights.repo == card.weights.repo and c.id != card.id]
    further = f", and with it what {', '.join(shared)} has there" if shared else ""
    question = f"Remove {card.weights.repo} from {cache}{further}? Other programs may use it. [y/N] "
    if not options.yes and not _agreed(question):
        raise Failure("nothing was removed")
    try:
        freed = hub.remove(card, cache)
    except hub.HubError as error:
        raise Failure(error.message) from error
    said = f"{card.id}: {size_text(freed)} are free now" if freed else f"{card.id} was not here"
    print(json.dumps({"model": card.id, "freed_bytes": freed}) if options.json else said)
    return Outcome.DONE


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise Failure("say --yes where nobody can be asked", Outcome.MISUSED)
    return input(question).strip().lower() in ("y", "yes")
