"""Webhook endpoints on the wire: what OpenAI's clients send and expect."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from server.outbox import WEBHOOK_TYPES
from server.parameters import Name
from server.webhooks import Endpoint, EndpointPage

_TYPES = ", ".join(WEBHOOK_TYPES)


WebhookType = Literal[
    "video.completed",
    "video.failed",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
]
EventTypes = Annotated[list[WebhookType], Field(min_length=1, max_length=100)]
_NAME = "a text of 1 to 200 characters"
_URL = "an https:// or http:// address that takes POST requests"
_SOME_TYPES = f"a list of one or more of: {_TYPES}"


class EndpointCreate(BaseModel):
    """The parameters of a new endpoint. Descriptions complete "Expected …" in an error's sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description=_NAME)
    url: str = Field(description=_URL)
    event_types: EventTypes = Field(description=_SOME_TYPES)


class EndpointUpdate(BaseModel):
    """What is to be different about an endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name | None = Field(default=None, description=_NAME)
    url: str | None = Field(default=None, description=_URL)
    event_types: EventTypes | None = Field(default=None, description=_SOME_TYPES)


class SecretRotation(BaseModel):
    """How a secret is replaced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_old_secret_active_for_24_hours: bool = Field(
        default=False, description="true or false; true signs with both secrets for a day"
    )


class EndpointTest(BaseModel):
    """What an endpoint is tested with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_type: WebhookType = Field(description=f"one of: {_TYPES}")


class WebhookEndpoint(BaseModel):
    """An endpoint on the wire."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    name: str
    url: str
    event_types: list[str]
    created_at: int
    updated_at: int
    signing_secret_hint: str

    @classmethod
    def of(cls, endpoint: Endpoint) -> WebhookEndpoint:
        """Say an endpoint in OpenAI's words, without its secret."""
        return cls(
            id=endpoint.id,
            name=endpoint.name,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            created_at=int(endpoint.created_at),
            updated_at=int(endpoint.updated_at),
            signing_secret_hint=endpoint.hint,
        )


class WebhookEndpointWithSecret(WebhookEndpoint):
    """An endpoint with its secret, which is shown when it is made and never again."""

    signing_secret: str

    @classmethod
    def with_secret(cls, endpoint: Endpoint) -> WebhookEndpointWithSecret:
        """Say an endpoint in OpenAI's words."""
        return cls(**WebhookEndpoint.of(endpoint).model_dump(), signing_secret=endpoint.secret)


class WebhookEndpointList(BaseModel):
    """One page. The SDKs go on with ``after=last_id`` while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[WebhookEndpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: EndpointPage) -> WebhookEndpointList:
        """Say a page in OpenAI's words."""
        data = [WebhookEndpoint.of(endpoint) for endpoint in page.endpoints]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=page.has_more)


class WebhookEndpointDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookEndpointTested(BaseModel):
    """The answer to a test. Whether the receiver was content, ``status_code`` tells."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class WebhookEventTypes(BaseModel):
    """What can be delivered."""

    object: Literal["list"] = "list"
    data: list[str]
