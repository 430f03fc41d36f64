"""Cards and families by name. A family is found by its file's name; nothing is registered by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from pipelines.base import VideoPipeline
from pipelines.card import Capability, ModelCard, Resolved, Wish
from pipelines.errors import MissingCapability, UnknownModel, WeightsMissing
from pipelines.plan import Device, MemoryPlan
from pipelines.types import DType

_ALIASES = TypeAdapter(dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class Registry:
    """All cards by id, and aliases: each an ordered list of card ids, the first installed one counting."""

    cards: Mapping[str, ModelCard]
    aliases: Mapping[str, tuple[str, ...]]

    def names(self) -> list[str]:
        """Return every name that ``find`` knows, aliases first."""
        return [*self.aliases, *self.cards]

    def find(self, name: str) -> ModelCard:
        """Return the card of a model or alias.

        Raises:
            UnknownModel: There is none; the message lists those that can be used.
            WeightsMissing: There is one, but its weights are not on this machine; the message says how to get them.
        """
        cards = self._meant_by(name)
        usable = next(filter(installed, cards), None)
        if usable is not None:
            return usable
        if cards:
            raise _missing(cards[0])
        here = ", ".join(known for known in self.names() if any(map(installed, self._meant_by(known))))
        raise UnknownModel(f"The model '{name}' does not exist. Models here: {here or 'none'}.", param="model")

    def able(self, capability: Capability | str) -> list[str]:
        """Return the ids of the cards on this machine that have a capability."""
        return [card.id for card in self.cards.values() if capability in card.capabilities and installed(card)]

    def resolve(self, card: ModelCard, wish: Wish) -> Resolved:
        """Apply the card's defaults and rules, and say which other models can what this one cannot.

        Raises:
            UnsupportedShape: The size, length or frame rate cannot be made.
            UnsupportedOption: A parameter is out of range or not honoured by this model.
        """
        try:
            return card.resolve(wish)
        except MissingCapability as error:
            able = ", ".join(self.able(error.capability))
            advice = f"Models here that can: {able}." if able else "No model on this machine can."
            message = f"{error.message} {advice}"
            raise MissingCapability(message, param=error.param or "model", capability=error.capability) from error

    def _meant_by(self, name: str) -> list[ModelCard]:
        return [self.cards[card] for card in self.aliases.get(name, (name,)) if card in self.cards]


def load_registry(folder: Path | None = None) -> Registry:
    """Read ``models/*.yaml`` and ``aliases.yaml``; by default those that ship with the project.

    Raises:
        pydantic.ValidationError: A card or the alias file is not well-formed.
    """
    root = folder or Path(str(files("configs")))
    cards = [ModelCard.model_validate(yaml.safe_load(p.read_text())) for p in sorted((root / "models").glob("*.yaml"))]
    aliases = _ALIASES.validate_python(yaml.safe_load((root / "aliases.yaml").read_text()))
    return Registry({card.id: card for card in cards}, aliases)


def weights_folder(card: ModelCard) -> Path:
    """Return the folder with the card's ``model_index.json``.

    Raises:
        WeightsMissing: The weights are not on this machine.
    """
    if card.weights.package is not None and find_spec(card.weights.package) is not None:
        folder = Path(str(files(card.weights.package)))
        if (folder / "model_index.json").exists():
            return folder
    raise _missing(card)


def _missing(card: ModelCard) -> WeightsMissing:
    weights = card.weights
    if weights.package is not None:
        way = f"They ship with the project, in {weights.package.replace('.', '/')}; this copy of it is incomplete."
    else:
        way = f"They are {weights.repo} at revision {weights.revision}, which this release cannot fetch yet."
    return WeightsMissing(f"The weights of {card.id} are not on this machine. {way}", param="model")


def installed(card: ModelCard) -> bool:
    """Tell whether the card's weights are on this machine."""
    try:
        weights_folder(card)
    except WeightsMissing:
        return False
    return True


def family_of(card: ModelCard) -> type[VideoPipeline[Any, Any]]:
    """Import the card's family. This is where tensor libraries come in, and only into a worker."""
    # The name comes from a validated card, never from a request.
    module = import_module(f"pipelines.families.{card.family}")
    return module.Pipeline


def probe(device: str) -> Device:
    """Return what can be used of a device now. Imports the tensor library: workers alone may ask."""
    return import_module("pipelines.accel.devices").probe(device)


def attention_for(device: str, dtype: DType, wanted: str | None) -> str:
    """Return the attention kernel to use on a GPU, for workers alone: ``wanted`` if it works, else the fastest."""
    return import_module("pipelines.accel.devices").attention_for(device, dtype, wanted)


def release(device: str) -> None:
    """Give the memory of models that are gone back to the device, for workers alone."""
    import_module("pipelines.accel.devices").release(device)


def load_pipeline(card: ModelCard, plan: MemoryPlan) -> VideoPipeline[Any, Any]:
    """Load a model onto the plan's device.

    Raises:
        WeightsMissing: The weights are not on this machine.
        OutOfMemory: The device cannot hold it.
    """
    return family_of(card).load(card, weights_folder(card), plan)
