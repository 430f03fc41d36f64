"""The names that a request's ``model`` may be."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from pipelines.errors import UnknownModel, WeightsMissing
from pipelines.registry import Registry
from server.deps import ServicesDep
from server.errors import NotFound
from server.schemas import Model, ModelList

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(
    services: ServicesDep,
    every: Annotated[bool, Query(alias="all", description="Also those whose weights are not here.")] = False,  # noqa: FBT002
) -> ModelList:
    """List models whose weights are on this machine, and the aliases that lead to them."""
    registry = services.registry
    usable = [model for name in registry.names() if (model := _usable(name, registry))]
    here = {model.card for model in usable}
    others = [Model.of(card.id, card, installed=False) for card in registry.cards.values() if card.id not in here]
    return ModelList(data=[*usable, *others] if every else usable)


@router.get("/{model}")
def retrieve_model(model: str, services: ServicesDep) -> Model:
    """Describe one model."""
    try:
        return Model.of(model, services.registry.find(model))
    except (UnknownModel, WeightsMissing) as error:
        raise NotFound(error.message, param="model", code=error.code) from error


def _usable(name: str, registry: Registry) -> Model | None:
    try:
        return Model.of(name, registry.find(name))
    except (UnknownModel, WeightsMissing):
        return None
