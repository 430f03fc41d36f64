"""Cards and families by name. A family is found by its file's name; nothing is registered by hand."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from pipelines.base import VideoPipeline
from pipelines.card import Capability, ModelCard, Resolved, Wish
from pipelines.errors import MissingCapability, UnknownModel, UnsupportedShape
from pipelines.fitting import fits
from pipelines.holdings import as_installed, weights_folder, weights_missing
from pipelines.plan import Device, MemoryPlan
from pipelines.types import DType, GenerationRequest

# With libyaml a command starts a quarter of a second sooner; its packages for some systems come without.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# How many models an error names at most.
MOST_NAMED = 12
_ALIASES = TypeAdapter(dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class Registry:
    """All cards by id, and aliases.

    Attributes:
        cards: By their ids.
        aliases: Each an ordered list of card ids. The first counts that is installed, can do what is asked for, and
            whose licence is open to everybody, or accepted: nobody gets a licence's duties by a name of somebody else.
        accepted: Ids of licences that are accepted although they exclude or limit somebody.
        unreadable: What is wrong with cards that were added and cannot be used, a sentence each.
    """

    cards: Mapping[str, ModelCard]
    aliases: Mapping[str, tuple[str, ...]]
    accepted: frozenset[str] = frozenset()
    unreadable: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Return every name that ``find`` knows, aliases first."""
        return [*self.aliases, *self.cards]

    def find(self, name: str) -> ModelCard:
        """Return the card of a model or alias, without what is not on this machine.

        Raises:
            UnknownModel: There is none; the message lists those that can be used.
            WeightsMissing: There is one, but its weights are not on this machine; the message says how to get them.
        """
        usable = self._usable(name)
        if usable:
            return usable[0]
        cards = self._meant_by(name)
        if cards:
            raise weights_missing(cards[0])
        here = [known for known in self.names() if any(map(as_installed, self._meant_by(known)))]
        more = f" and {len(here) - MOST_NAMED} more" if len(here) > MOST_NAMED else ""
        listed = ", ".join(here[:MOST_NAMED]) + more
        raise UnknownModel(f"The model '{name}' does not exist. Models here: {listed or 'none'}.", param="model")

    def choose(self, name: str, wish: Wish, device: Device | None = None) -> tuple[ModelCard, Resolved]:
        """Return the card of a model or alias, and what it makes of a wish.

        Of an alias's cards the first is taken that can do it and fits the device. If none fits, the first that can
        do it: making the plan then says what is missing.

        Raises:
            UnknownModel: There is no such name.
            WeightsMissing: Its weights are not on this machine.
            UnsupportedShape: The size, length or frame rate cannot be made.
            UnsupportedOption: A parameter is out of range or not honoured by any of them.
        """
        first = self.find(name)
        able: list[tuple[ModelCard, Resolved]] = []
        for card in self._usable(name):
            try:
                able.append((card, card.resolve(wish)))
            except MissingCapability:
                continue
        if not able:
            return first, self.resolve(first, wish)
        chosen = able[0]
        if device is not None and len(able) > 1:
            chosen = next(((card, made) for card, made in able if fits(card, made.request, device)), chosen)
        self._check_stages(chosen[0], chosen[1].request)
        return chosen

    def able(self, capability: Capability | str) -> list[str]:
        """Return the ids of the cards on this machine that have a capability."""
        return [card.id for card in self.cards.values() if capability in card.capabilities and as_installed(card)]

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

    def _check_stages(self, card: ModelCard, request: GenerationRequest) -> None:
        """Refuse to scale a clip to a size that the model makes by itself once all of it is here."""
        wanted, source = request.delivery, request.source
        whole = self.cards.get(card.id, card).shape
        if card.shape.has_two_stages or whole.first_stage(wanted) == wanted or (source and source.use == "edit"):
            return
        sizes = ", ".join(map(str, card.shape.sizes))
        raise UnsupportedShape(
            f"{card.id} is here in one stage, in which it makes {sizes}. For {wanted.size}, fetch the rest of it with: "
            f"homereel pull {card.id}",
            param="video" if source else "size",
        )

    def _usable(self, name: str) -> list[ModelCard]:
        """Return the cards that a name may stand for here, the best first."""
        free_to_choose = name in self.aliases
        return [
            card
            for card in map(as_installed, self._meant_by(name))
            if card and (not free_to_choose or card.licence.is_open or card.licence.id in self.accepted)
        ]

    def _meant_by(self, name: str) -> list[ModelCard]:
        return [self.cards[card] for card in self.aliases.get(name, (name,)) if card in self.cards]


def load_registry(folder: Path | None = None, *, own: Path | None = None, accepted: Iterable[str] = ()) -> Registry:
    """Read ``models/*.yaml`` and ``aliases.yaml``; by default those that ship with the project.

    Args:
        folder: Of other configurations.
        own: Folder of further cards, which ``homereel add`` has written; it need not be there. One that is not
            well-formed is passed over, and said in ``unreadable``: a slip in it must not stop the server.
        accepted: Ids of licences that aliases may lead to although they exclude or limit somebody.

    Raises:
        pydantic.ValidationError: A card that ships, or the alias file, is not well-formed.
    """
    shipped, aliases = _read(folder) if folder else _shipped()
    cards = dict(shipped)
    unreadable: list[str] = []
    for path in sorted(own.glob("*.yaml")) if own else ():
        try:
            card = _card(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            unreadable.append(f"{path}: {_first_complaint(error)}")
        else:
            cards[card.id] = card
    return Registry(cards, aliases, frozenset(accepted), tuple(unreadable))


@cache
def _shipped() -> tuple[Mapping[str, ModelCard], Mapping[str, tuple[str, ...]]]:
    return _read(Path(str(files("configs"))))


def _read(root: Path) -> tuple[Mapping[str, ModelCard], Mapping[str, tuple[str, ...]]]:
    cards = map(_card, sorted((root / "models").glob("*.yaml")))
    return {card.id: card for card in cards}, _ALIASES.validate_python(_yaml(root / "aliases.yaml"))


def _card(path: Path) -> ModelCard:
    return ModelCard.model_validate(_yaml(path))


def _yaml(path: Path) -> object:
    loader = _Loader(path.read_text())
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _first_complaint(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return " ".join(str(error).split())


def family_of(card: ModelCard) -> type[VideoPipeline[Any, Any]]:
    """Import the card's family. This is where tensor libraries come in, and only into a worker."""
    # The name comes from a validated card, never from a request.
    return _imported(f"pipelines.families.{card.family}").Pipeline


def probe(device: str) -> Device:
    """Return what can be used of a device now. Imports the tensor library: workers alone may ask."""
    return _imported("pipelines.accel.devices").probe(device)


def measure(device: str) -> tuple[int, int]:
    """Return free and total bytes of a GPU's memory, for workers alone that have probed it."""
    return _imported("pipelines.accel.devices").measure(device)


def attention_for(device: str, dtype: DType, wanted: str | None) -> str:
    """Return the attention kernel to use on a GPU, for workers alone: ``wanted`` if it works, else the fastest."""
    return _imported("pipelines.accel.devices").attention_for(device, dtype, wanted)


def release(device: str) -> None:
    """Give the memory of models that are gone back to the device, for workers alone."""
    _imported("pipelines.accel.devices").release(device)


def _imported(name: str) -> ModuleType:
    """Import what brings tensor libraries, without looking for garbage among their modules: a fifth of the time."""
    # It recommends a package with which pictures would be prepared in another way than without.
    logging.getLogger("transformers.utils.import_utils").setLevel(logging.ERROR)
    is_first, is_searching = "torch" not in sys.modules, gc.isenabled()
    gc.disable()
    try:
        return import_module(name)
    finally:
        if is_first:
            # Nothing is loaded that could ever be freed.
            gc.freeze()
        if is_searching:
            gc.enable()


def load_pipeline(card: ModelCard, plan: MemoryPlan) -> VideoPipeline[Any, Any]:
    """Load a model onto the plan's device.

    Raises:
        WeightsMissing: The weights are not on this machine.
        OutOfMemory: The device cannot hold it.
    """
    return family_of(card).load(card, weights_folder(card), plan)
