"""What the commands about models share: cards, sizes, and sentences about licences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from pipelines.registry import Registry, load_registry
from server.cli.outcome import Failure, Outcome
from server.settings import Settings

if TYPE_CHECKING:
    from pipelines.card import Licence, ModelCard


def registry() -> Registry:
    """Return the cards that ship and those that were added."""
    settings = Settings()
    return load_registry(own=settings.models_dir, accepted=settings.accept_licences)


def card_of(name: str) -> ModelCard:
    """Return a card by its id.

    Raises:
        Failure: There is none.
    """
    cards = registry().cards
    if name not in cards:
        raise Failure(f"there is no model {name!r}; there are: {', '.join(cards)}", Outcome.MISUSED)
    return cards[name]


def keep(card: ModelCard) -> None:
    """Write a card among one's own, where it comes before one that ships; a card that ships is not kept twice."""
    folder = Settings().models_dir
    path = folder / f"{card.id}.yaml"
    if load_registry().cards.get(card.id) == card:
        path.unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    raw = card.model_dump(mode="json", exclude_defaults=True)
    path.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))


def duties(licence: Licence) -> list[str]:
    """Return what a licence asks of whoever uses a model, a sentence each; nothing for those that are open."""
    said = [f"it gives no rights in: {', '.join(licence.excludes)}"] if licence.excludes else []
    said += [licence.limit] if licence.limit else []
    said += [f"show {licence.attribution!r} beside what is made"] if licence.attribution else []
    return said + (["the hub asks for its acceptance before the download"] if licence.gated else [])


def size_text(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
