"""What the commands about models share: cards and sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from pipelines.registry import Registry, load_registry
from server.cli.outcome import Failure, Outcome
from server.settings import Settings

if TYPE_CHECKING:
    from pipelines.card import ModelCard


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


def size_text(size: int) -> str:
    """Return bytes as people read them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
