"""The plan of every card on 8 to 80 GB, as reviewed: ``python -m scripts.plan_table`` writes it anew."""

from __future__ import annotations

import pytest

from pipelines.card import ModelCard
from pipelines.registry import load_registry
from scripts.plan_table import FOLDER, table

CARDS = [card for card in load_registry().cards.values() if card.weights.components]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_the_plans_of_a_card_are_those_that_were_reviewed(card: ModelCard) -> None:
    path = FOLDER / f"{card.id}.md"
    assert path.exists(), "run: python -m scripts.plan_table"
    assert table(card) == path.read_text(encoding="utf-8"), "if that is meant, run: python -m scripts.plan_table"
