"""Every card that ships can be used as it stands."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.card import ModelCard, Wish
from pipelines.needs import least_wish
from pipelines.registry import load_registry

REGISTRY = load_registry()


def wish(card: ModelCard, size: tuple[int, int] | None = None) -> Wish:
    """Return as little as the card needs to be told."""
    return replace(least_wish(card, Path("unread.png")), size=size)


@pytest.mark.parametrize("card", REGISTRY.cards.values(), ids=lambda card: card.id)
def test_a_card_resolves_its_own_defaults(card: ModelCard) -> None:
    request = card.resolve(wish(card)).request
    assert request.shape.size == str(card.shape.sizes[0])
    assert card.shape.frames_for(request.shape.frames) == request.shape.frames
    assert request.num_inference_steps == card.sampling.num_inference_steps


@pytest.mark.parametrize("card", REGISTRY.cards.values(), ids=lambda card: card.id)
def test_a_card_makes_each_of_its_native_sizes_without_scaling(card: ModelCard) -> None:
    for size in card.shape.sizes:
        resolved = card.resolve(wish(card, (size.width, size.height)))
        assert resolved.request.shape.size == resolved.request.delivery.size == str(size)


def test_every_alias_names_cards_that_exist() -> None:
    assert {card for cards in REGISTRY.aliases.values() for card in cards} <= set(REGISTRY.cards)
