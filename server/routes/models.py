"""The names that a request's ``model`` may be."""

from __future__ import annotations

from fastapi import APIRouter

from pipelines.errors import UnknownModel, WeightsMissing
from pipelines.registry import Registry
from server.deps import ServicesDep
from server.errors import NotFound
from server.schemas import Model, ModelList

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(services: ServicesDep) -> ModelList:
    """List models whose weights are on this machine, and the aliases that lead to them."""
    models = (_usable(name, services.registry) for name in services.registry.names())
    return ModelList(data=[model for model in models if model is not None])


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
