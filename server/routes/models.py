"""The names that a request's ``model`` may be, and models on their way to this machine."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from pipelines.card import ModelCard
from pipelines.errors import UnknownModel, WeightsMissing
from pipelines.holdings import installed, origins
from pipelines.plan import Device
from pipelines.registry import Registry
from server.deps import BodyDep, Caller, CallerDep, Services, ServicesDep
from server.errors import ApiError, Forbidden, InvalidRequest, NotFound
from server.jobs import NOBODY
from server.pulls import PullState, PullUnderway
from server.schemas import Model, ModelList, ModelPull, PullCreate
from server.validation import openapi_body, validated

router = APIRouter(prefix="/v1/models", tags=["models"])

ModelId = Annotated[str, Path(description="Id of a model")]
# Whether there is room, and a way in, is known after one answer of the hub.
_FIRST_WORD_S = 20.0


class _CannotPull(ApiError):
    """The model cannot be fetched, or not now."""

    status = 409
    code = "pull_in_progress"


@router.get("")
def list_models(
    services: ServicesDep,
    every: Annotated[bool, Query(alias="all", description="Also those whose weights are not here.")] = False,  # noqa: FBT002
) -> ModelList:
    """List models whose weights are on this machine, and the aliases that lead to them."""
    registry, device = services.registry, services.device()
    usable = [model for name in registry.names() if (model := _usable(name, registry, device))]
    here = {model.card for model in usable}
    if not every:
        return ModelList(data=usable)
    absent = [card for card in registry.cards.values() if card.id not in here]
    others = [Model.of(card.id, card, device, installed=False) for card in absent]
    for model in others:
        model.pull = _told(services.pulls.state(model.card))
    return ModelList(data=[*usable, *others])


@router.get("/{model}")
def retrieve_model(model: ModelId, services: ServicesDep) -> Model:
    """Describe one model."""
    try:
        return Model.of(model, services.registry.find(model), services.device())
    except (UnknownModel, WeightsMissing) as error:
        raise NotFound(error.message, param="model", code=error.code) from error


@router.post("/{model}/pull", status_code=202, openapi_extra=openapi_body(PullCreate, {}))
def pull_model(model: ModelId, body: BodyDep, caller: CallerDep, services: ServicesDep) -> ModelPull:
    """Fetch a model's weights from the hub. What has arrived stays when it is interrupted; the next time goes on.

    Ours alone. One model at a time; asking again while it comes says how far it is.
    """
    card = _card(model, caller, services)
    asked = validated(PullCreate, body.fields(), {})
    if not origins(card.weights) or installed(card):
        raise _CannotPull(f"{card.id} is on this machine already.", param="model", code="model_installed")
    accepted = {asked.accept_licence, *services.settings.accept_licences}
    if not card.licence.is_open and card.licence.id not in accepted:
        raise InvalidRequest(
            f"The licence {card.licence.id} ({card.licence.url}) has to be accepted first: "
            f"{'; '.join(card.licence.duties)}. Read it, and send its id as accept_licence.",
            param="accept_licence",
            code="licence_not_accepted",
        )
    try:
        state = services.pulls.start(card.id, wait_s=_FIRST_WORD_S)
    except PullUnderway as error:
        raise _CannotPull(f"{error.model} is being fetched; one model comes at a time.", param="model") from error
    if state.status == "failed":
        raise _CannotPull(state.error_message, param="model", code=state.error_code)
    return ModelPull.of(state)


@router.get("/{model}/pull")
def retrieve_model_pull(model: ModelId, caller: CallerDep, services: ServicesDep) -> ModelPull:
    """Tell how far a model is on its way, or how the last attempt of this server ended. Ours alone."""
    return _known(services.pulls.state(_card(model, caller, services).id))


@router.delete("/{model}/pull")
def cancel_model_pull(model: ModelId, caller: CallerDep, services: ServicesDep) -> ModelPull:
    """Stop fetching a model; what has arrived stays for the next time. Ours alone."""
    return _known(services.pulls.cancel(_card(model, caller, services).id))


def _card(model: str, caller: Caller, services: Services) -> ModelCard:
    if caller.owner != NOBODY and not services.settings.allow_pulls:
        raise Forbidden(
            "On a server with keys, models are fetched by `homereel pull` on its machine, unless it was started with "
            "--allow-pulls.",
            code="pulls_not_allowed",
        )
    if (card := services.registry.cards.get(model)) is None:
        raise NotFound(f"There is no model {model!r}; GET /v1/models?all=true lists them.", param="model")
    return card


def _told(state: PullState | None) -> ModelPull | None:
    return None if state is None else ModelPull.of(state)


def _known(state: PullState | None) -> ModelPull:
    if state is None:
        raise NotFound("This server has not fetched this model.", param="model")
    return ModelPull.of(state)


def _usable(name: str, registry: Registry, device: Device | None) -> Model | None:
    try:
        return Model.of(name, registry.find(name), device)
    except (UnknownModel, WeightsMissing):
        return None
