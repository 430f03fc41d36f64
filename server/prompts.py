"""Prompt templates: sentences with slots, and how they become a prompt of one or two beats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_BEATS = 2
MAX_SLOTS, MAX_SUGGESTIONS, MAX_VALUE = 16, 24, 500
_SLOT = re.compile(r"\{([a-z][a-z0-9_]*)\}")
# A part of the sentence that is left out unless all its slots are filled.
_OPTION = re.compile(r"\[([^\[\]]*)\]")
_SPACES = re.compile(r"\s+")
_SlotName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
_Short = Annotated[str, Field(min_length=1, max_length=200)]


class Slot(BaseModel):
    """A place in a template that is filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _SlotName
    label: _Short
    suggestions: Annotated[tuple[_Short, ...], Field(max_length=MAX_SUGGESTIONS)] = ()
    required: bool = True


class Template(BaseModel):
    """A sentence with slots, written ``{name}``; what stands in ``[square brackets]`` goes if a slot in it is empty."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Short
    description: Annotated[str, Field(max_length=500)] = ""
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    slots: Annotated[tuple[Slot, ...], Field(max_length=MAX_SLOTS)] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Template:
        names = [slot.name for slot in self.slots]
        used = set(_SLOT.findall(self.text))
        outside = set(_SLOT.findall(_OPTION.sub("", self.text)))
        if len(set(names)) < len(names):
            raise ValueError("Two slots have the same name.")
        if used != set(names):
            odd = ", ".join(sorted(used ^ set(names)))
            raise ValueError(f"Text and slots differ: {odd}.")
        if re.search(r"[{}\[\]]", _OPTION.sub(r"\1", _SLOT.sub("", self.text))):
            raise ValueError("A bracket of the text has no counterpart; slots are {like_this}, options [like this].")
        if any(not _SLOT.search(option) for option in _OPTION.findall(self.text)):
            raise ValueError("There is no slot between two square brackets.")
        bare = sorted(slot.name for slot in self.slots if not slot.required and slot.name in outside)
        if bare:
            raise ValueError(f"Slots that may be empty belong in square brackets: {', '.join(bare)}.")
        return self


class ShippedTemplate(Template):
    """A template of ``configs/prompts``; ``id`` is the name of its file."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


class Beat(NamedTuple):
    """A template and what its slots are filled with."""

    template: Template
    slots: Mapping[str, str]


class BadSlot(Exception):
    """A slot of the beat (counted from 0) is missing, or there is none of that name."""

    def __init__(self, beat: int, slot: str, message: str) -> None:
        super().__init__(message)
        self.beat = beat
        self.slot = slot
        self.message = message


def compose(beats: Sequence[Beat]) -> str:
    """Return the prompt of one beat, or of two that follow each other.

    Raises:
        BadSlot: A required slot is empty, or a value is for a slot that the template does not have.
    """
    sentences = [_filled(number, beat) for number, beat in enumerate(beats)]
    first, *rest = sentences
    return " ".join([first[:1].upper() + first[1:], *(f"Then, {sentence}" for sentence in rest)])


def _filled(number: int, beat: Beat) -> str:
    template = beat.template
    values = {name: _clean(value) for name, value in beat.slots.items()}
    known = [slot.name for slot in template.slots]
    for name in values:
        if name not in known:
            there_are = f"There are: {', '.join(known)}." if known else "It has none."
            raise BadSlot(number, name, f"'{template.name}' has no slot '{name}'. {there_are}")
    for slot in template.slots:
        if slot.required and not values.get(slot.name):
            raise BadSlot(number, slot.name, f"'{template.name}' needs '{slot.name}': {slot.label}.")

    def kept(option: re.Match[str]) -> str:
        return option[1] if all(values.get(name) for name in _SLOT.findall(option[1])) else ""

    pattern = _OPTION.sub(kept, template.text)
    if number and not pattern.startswith("{") and not pattern[:2].isupper():
        # Within a sentence; a name that fills a slot keeps its capital.
        pattern = pattern[:1].lower() + pattern[1:]
    text = _SLOT.sub(lambda slot: values[slot[1]], pattern)
    sentence = _SPACES.sub(" ", text).strip()
    return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."


def _clean(value: str) -> str:
    """Return a value as it can stand inside of a sentence."""
    return _SPACES.sub(" ", value).strip(" .,;")


@cache
def shipped() -> Mapping[str, ShippedTemplate]:
    """Return the templates that ship with the project, by id, in the order of their names.

    Raises:
        ValueError: One of the files is not well-formed.
    """
    folder = Path(str(files("configs"))) / "prompts"
    found = [_read(path) for path in sorted(folder.glob("*.yaml"))]
    return {template.id: template for template in found}


def _read(path: Path) -> ShippedTemplate:
    template = ShippedTemplate.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    if template.id != path.stem:
        raise ValueError(f"{path.name} calls itself {template.id}")
    return template
