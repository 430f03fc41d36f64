"""The models that benchmarks build are those that the cards speak of."""

import pytest

from pipelines.plan import MemoryPlan
from pipelines.registry import load_registry
from scripts import random_weights
from scripts.measuring import Task, measure

CARDS = load_registry().cards
# A family that is taken out may leave them behind.
KNOWN = [card for card in random_weights.known() if card in CARDS]


@pytest.mark.parametrize("card", KNOWN)
def test_parameters_are_those_on_the_card(card: str) -> None:
    counted, named = random_weights.parameters(card), CARDS[card].weights.components
    assert counted.keys() == named.keys()
    for part, count in counted.items():
        assert named[part].params == pytest.approx(count, rel=0.01), part


@pytest.mark.parametrize("card", [card for card in KNOWN if "distilled" not in card])
def test_a_tiny_one_makes_a_clip(card: str) -> None:
    done = measure(Task(card, MemoryPlan("cpu"), tiny=True, runs=0))
    assert done.error == ""
    assert done.frames == CARDS[card].shape.min_frames


def test_what_nobody_wrote_down_is_said_to_be_so() -> None:
    with pytest.raises(KeyError, match="no configuration"):
        random_weights.architecture("homereel-mini")
