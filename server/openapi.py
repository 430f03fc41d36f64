"""What the API's description says beyond its routes: short names of operations, what follows what, how keys travel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from server.auth import PUBLIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from fastapi.routing import APIRoute

# The id in an answer of the one kind is the path parameter of what can be done with it next.
_FOLLOWED_BY = {
    "Video": "video_id",
    "Character": "character_id",
    "FileObject": "file_id",
    "BatchObject": "batch_id",
    "PromptTemplate": "template_id",
    "StarredPrompt": "star_id",
    "WebhookEndpointWithSecret": "webhook_endpoint_id",
}
_BEARER: dict[str, Any] = {"type": "http", "scheme": "bearer", "description": "A key from `homereel keys create`"}
_HEADER: dict[str, Any] = {"type": "apiKey", "in": "header", "name": "api-key", "description": "The same key"}


def operation_id(route: APIRoute) -> str:
    """Name an operation as its function is named; code generators make methods of these."""
    return route.name


def complete(app: FastAPI) -> None:
    """Let the app describe itself with links and keys. To be called once all routes are included."""
    described = app.openapi

    def with_the_rest() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = described()
            _lift_definitions(document)
            _add_links(document)
            _add_keys(document)
        return described()

    app.openapi = with_the_rest


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _lift_definitions(document: dict[str, Any]) -> None:
    """Put what the bodies' schemas define where they refer to."""
    for _, _, operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            document["components"]["schemas"] |= content["schema"].pop("$defs", {})


def _add_links(document: dict[str, Any]) -> None:
    """Say which operations take the id that a creation answers with."""
    links: dict[str, Any] = {}
    takers: dict[str, list[str]] = {}
    for path, _, operation in _operations(document):
        for parameter in _FOLLOWED_BY.values():
            if f"{{{parameter}}}" in path:
                name = operation["operationId"]
                takers.setdefault(parameter, []).append(name)
                links[name] = {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
    for _, method, operation in _operations(document):
        answer = operation["responses"].get("200", {})
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        made = _FOLLOWED_BY.get(schema.get("$ref", "").rpartition("/")[2])
        if method == "post" and made:
            answer["links"] = {name: {"$ref": f"#/components/links/{name}"} for name in takers[made]}
    document["components"]["links"] = links


def _add_keys(document: dict[str, Any]) -> None:
    """Say how a key is sent. None is needed while a server has none, which is what the empty alternative means."""
    document["components"]["securitySchemes"] = {"bearer": _BEARER, "header": _HEADER}
    document["security"] = [{}, {"bearer": []}, {"header": []}]
    for path, _, operation in _operations(document):
        if path in PUBLIC:
            operation["security"] = []
