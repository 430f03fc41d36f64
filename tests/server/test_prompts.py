"""Templates: every one that ships, every pair of them, and what a template may look like."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from server.parameters import Prompt
from server.prompts import BadSlot, Beat, Template, compose, shipped

PATTERNS = {
    "tracking-shot",
    "static-reveal",
    "aerial-descent",
    "close-up-hold",
    "crowd-pull-back",
    "two-shot",
    "time-of-day",
}
PROMPT: TypeAdapter[str] = TypeAdapter(Prompt)


def filled(template: Template, number: int, *, optional: bool) -> Beat:
    """Fill the slots with what is suggested."""
    slots = [slot for slot in template.slots if slot.required or optional]
    return Beat(template, {slot.name: slot.suggestions[number % len(slot.suggestions)] for slot in slots})


def assert_whole(prompt: str, *beats: Beat) -> None:
    """The prompt is one that can be sent, holds all that was filled in, and nothing of the template's grammar."""
    assert PROMPT.validate_python(prompt) == prompt
    assert not set("{}[]") & set(prompt)
    assert all(value in prompt for beat in beats for value in beat.slots.values())
    assert "  " not in prompt
    assert ".." not in prompt
    assert prompt[0].isupper()
    assert prompt.endswith(".")


def test_the_seven_patterns_ship_and_every_slot_suggests_something() -> None:
    assert set(shipped()) == PATTERNS
    assert all(slot.suggestions for template in shipped().values() for slot in template.slots)


@pytest.mark.parametrize("template", shipped().values(), ids=str)
def test_every_template_composes_with_any_of_its_suggestions(template: Template) -> None:
    for number, optional in itertools.product(range(4), (True, False)):
        beat = filled(template, number, optional=optional)
        assert_whole(compose([beat]), beat)


def test_every_pair_of_templates_composes_two_beats() -> None:
    for first, second in itertools.product(shipped().values(), repeat=2):
        beats = filled(first, 0, optional=True), filled(second, 1, optional=False)
        prompt = compose(beats)
        assert_whole(prompt, *beats)
        assert ". Then, " in prompt


def test_values_fit_into_the_sentence() -> None:
    template = Template.model_validate(
        {
            "name": "t",
            "text": "{who} stands[, {how}]. [{mood}.]",
            "slots": [
                {"name": "who", "label": "Who"},
                {"name": "how", "label": "How", "required": False},
                {"name": "mood", "label": "Mood", "required": False},
            ],
        }
    )
    assert compose([Beat(template, {"who": " a  fox.\n", "mood": ""})]) == "A fox stands."
    assert compose([Beat(template, {"who": "a fox", "how": "still"})]) == "A fox stands, still."
    two = Beat(template, {"who": "Ann", "mood": "Calm"})
    assert compose([two, two]) == "Ann stands. Calm. Then, Ann stands. Calm."
    for value in ("{how}", "[x]", "\\1"):
        assert value in compose([Beat(template, {"who": value})])


@pytest.mark.parametrize(
    ("slots", "slot"), [({}, "subject"), ({"subject": " . "}, "subject"), ({"colour": "red"}, "colour")]
)
def test_a_slot_that_is_empty_or_unknown_is_named(slots: dict[str, str], slot: str) -> None:
    good = filled(shipped()["time-of-day"], 0, optional=False)
    template = shipped()["crowd-pull-back"]
    with pytest.raises(BadSlot) as caught:
        compose([good, Beat(template, slots)])
    assert (caught.value.beat, caught.value.slot) == (1, slot)


@pytest.mark.parametrize(
    "change",
    [
        {"text": "no slot at all"},
        {"text": "{who} and {what}"},
        {"text": "{who} [and so on]"},
        {"text": "{who} [and so on"},
        {"text": "{who} }"},
        {"text": "{Who}"},
        {"slots": [{"name": "who", "label": "Who"}] * 2},
        {"slots": [{"name": "who", "label": "Who", "required": False}]},
        {"slots": [{"name": "who", "label": "Who", "suggestion": ["x"]}]},
        {"txet": "x"},
    ],
    ids=str,
)
def test_a_template_that_is_not_well_formed_is_refused(change: dict[str, Any]) -> None:
    sound = {"name": "t", "text": "{who} stands", "slots": [{"name": "who", "label": "Who"}]}
    Template.model_validate(sound)
    with pytest.raises(ValidationError):
        Template.model_validate(sound | change)
