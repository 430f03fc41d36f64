"""Webhook endpoints: create, look at, list, change, delete, give a new secret, test."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import httpx2
from fastapi import APIRouter, Depends, Path, Query
from starlette.datastructures import FormData

from server import delivery
from server.deps import BodyDep, CallerDep, Services, ServicesDep
from server.errors import NO_RETRY, InvalidRequest, NotFound, quoted
from server.fetch import AddressRefused, FetchError, FetchFailed, check_public
from server.forms import Body, Fields
from server.outbox import WEBHOOK_TYPES, EventType
from server.routes.health import own_version
from server.schemas import DEFAULT_PAGE, MAX_PAGE
from server.validation import openapi_body, validated
from server.webhook_schemas import (
    EndpointCreate,
    EndpointTest,
    EndpointUpdate,
    SecretRotation,
    WebhookEndpoint,
    WebhookEndpointDeleted,
    WebhookEndpointList,
    WebhookEndpointTested,
    WebhookEndpointWithSecret,
    WebhookEventTypes,
)
from server.webhooks import EndpointChange, EndpointNotFound, TooManyEndpoints, is_endpoint_id

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

router = APIRouter(prefix="/v1", tags=["webhooks"])


def _path_id(webhook_endpoint_id: Annotated[str, Path(description="Id of a webhook endpoint")]) -> str:
    return webhook_endpoint_id


EndpointId = Annotated[str, Depends(_path_id)]


@router.post("/webhook_endpoints", openapi_extra=openapi_body(EndpointCreate, {}))
def create_webhook_endpoint(body: BodyDep, caller: CallerDep, services: ServicesDep) -> WebhookEndpointWithSecret:
    """Name an address that is told when a video or a batch comes to its end. Only this answer shows its secret."""
    create = validated(EndpointCreate, body.fields(), {})
    _check_address(create.url, services)
    types = _unique(create.event_types)
    try:
        made = services.endpoints.add(caller.owner, create.name, create.url, types)
    except TooManyEndpoints as error:
        message = f"There are {error.limit} webhook endpoints, which is the limit; delete one first."
        raise InvalidRequest(message, code="too_many_webhook_endpoints") from error
    return WebhookEndpointWithSecret.with_secret(made)


@router.get("/webhook_endpoints")
def list_webhook_endpoints(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = DEFAULT_PAGE,
) -> WebhookEndpointList:
    """List endpoints, the newest first; go on with ``after=last_id``, also if that one is deleted."""
    if after is not None and not is_endpoint_id(after):
        raise InvalidRequest("'after' must be the last_id of the page before.", param="after")
    return WebhookEndpointList.of(services.endpoints.list(caller.owner, after=after, limit=limit))


@router.get("/webhook_endpoints/{webhook_endpoint_id}")
def retrieve_webhook_endpoint(endpoint_id: EndpointId, caller: CallerDep, services: ServicesDep) -> WebhookEndpoint:
    """Describe one endpoint."""
    with _known(endpoint_id):
        return WebhookEndpoint.of(services.endpoints.get(endpoint_id, caller.owner))


@router.post("/webhook_endpoints/{webhook_endpoint_id}", openapi_extra=openapi_body(EndpointUpdate, {}))
def update_webhook_endpoint(
    endpoint_id: EndpointId, body: BodyDep, caller: CallerDep, services: ServicesDep
) -> WebhookEndpoint:
    """Change an endpoint. What waits to be delivered goes to its new address."""
    update = validated(EndpointUpdate, body.fields(), {})
    types = None if update.event_types is None else _unique(update.event_types)
    with _known(endpoint_id):
        services.endpoints.get(endpoint_id, caller.owner)
        if update.url is not None:
            _check_address(update.url, services)
        change = EndpointChange(update.name, update.url, types)
        return WebhookEndpoint.of(services.endpoints.change(endpoint_id, caller.owner, change))


@router.delete("/webhook_endpoints/{webhook_endpoint_id}")
def delete_webhook_endpoint(
    endpoint_id: EndpointId, caller: CallerDep, services: ServicesDep
) -> WebhookEndpointDeleted:
    """Delete an endpoint and what waits to be delivered to it."""
    with _known(endpoint_id):
        services.endpoints.delete(endpoint_id, caller.owner)
    return WebhookEndpointDeleted(id=endpoint_id)


@router.post("/webhook_endpoints/{webhook_endpoint_id}/rotate_secret", openapi_extra=openapi_body(SecretRotation, {}))
def rotate_webhook_secret(
    endpoint_id: EndpointId, body: BodyDep, caller: CallerDep, services: ServicesDep
) -> WebhookEndpointWithSecret:
    """Give an endpoint a new secret. The old one ends at once, or goes on beside it for a day."""
    rotation = validated(SecretRotation, _fields_or_none(body), {})
    keep_old = rotation.keep_old_secret_active_for_24_hours
    with _known(endpoint_id):
        rotated = services.endpoints.rotate(endpoint_id, caller.owner, keep_old=keep_old)
    return WebhookEndpointWithSecret.with_secret(rotated)


@router.post("/webhook_endpoints/{webhook_endpoint_id}/test", openapi_extra=openapi_body(EndpointTest, {}))
def run_webhook_test(
    endpoint_id: EndpointId, body: BodyDep, caller: CallerDep, services: ServicesDep
) -> WebhookEndpointTested:
    """Deliver a made-up event now, once, and tell what the receiver answered."""
    test = validated(EndpointTest, body.fields(), {})
    with _known(endpoint_id):
        endpoint = services.endpoints.get(endpoint_id, caller.owner)
    try:
        with services.fetches.taken():
            status = delivery.send_sample(
                services.post, own_version(), endpoint, EventType(test.event_type), services.now()
            )
    except (FetchError, httpx2.HTTPError) as error:
        message = f"The endpoint could not be reached. {delivery.reason(error)}"
        raise InvalidRequest(message, code="webhook_unreachable", headers=NO_RETRY) from error
    return WebhookEndpointTested(webhook_endpoint_id=endpoint_id, event_type=test.event_type, status_code=status)


@router.get("/webhook_event_types")
def list_webhook_event_types(caller: CallerDep) -> WebhookEventTypes:
    """List what can be delivered."""
    del caller
    return WebhookEventTypes(data=[str(kind) for kind in WEBHOOK_TYPES])


@contextmanager
def _known(endpoint_id: str) -> Generator[None]:
    """Answer 404 if the caller has no such endpoint."""
    try:
        yield
    except EndpointNotFound as error:
        message = f"There is no webhook endpoint {quoted(endpoint_id)}."
        raise NotFound(message, param="webhook_endpoint_id", code="webhook_endpoint_not_found") from error


def _unique(types: Iterable[str]) -> tuple[EventType, ...]:
    return tuple(map(EventType, dict.fromkeys(types)))


def _check_address(url: str, services: Services) -> None:
    try:
        check_public(url, services.settings)
    except AddressRefused as error:
        raise InvalidRequest(error.message, param="url", code=error.code) from error
    except FetchFailed:
        # A name that nobody knows (yet) does no harm: every delivery looks again.
        return


def _fields_or_none(body: Body) -> Fields:
    """Return the parameters of a call that needs none: its body may be empty."""
    if not isinstance(body.content, FormData):
        is_empty = not body.content.read(1)
        body.content.seek(0)
        if is_empty:
            return {}
    return body.fields()
