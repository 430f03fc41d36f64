"""From a body's fields to validated parameters, and how OpenAPI describes such a body."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile

from pipelines.errors import UnsupportedOption
from server.errors import InvalidRequest, from_validation, quoted
from server.parameters import DEFAULT_MODEL, FOREIGN_PARAMETERS

if TYPE_CHECKING:
    from pydantic import JsonValue

    from server.forms import Fields, Value

P = TypeVar("P", bound=BaseModel)

# Names that have their place, which is not where they were found.
_ELSEWHERE: Mapping[str, str] = {
    "n": "One call makes one video; POST /v1/videos/variations takes 'n', 'seeds' and 'models'.",
    "seeds": "One call makes one video; POST /v1/videos/variations takes 'n', 'seeds' and 'models'.",
    "models": "One call makes one video; POST /v1/videos/variations takes 'n', 'seeds' and 'models'.",
}


@dataclass(frozen=True)
class Medium:
    """How something that is no text or number is given: as JSON, and in a form perhaps as a file too.

    Attributes:
        description: Completes "Expected …", without a full stop.
        schema: What the JSON looks like.
        is_file: Whether a form may carry it as a file.
        is_required: Whether it must be there.
    """

    description: str
    schema: Mapping[str, JsonValue]
    is_file: bool = True
    is_required: bool = False


Media = Mapping[str, Medium]
"""By the parameter's name."""


def validated(parameters: type[P], fields: Fields, media: Media) -> P:
    """Return the parameters that ``fields`` hold, those of ``media`` having been taken out.

    Raises:
        InvalidRequest: One is unknown, malformed or missing.
        UnsupportedOption: One is known from other servers, and not honoured here.
    """
    known = {name: field.description or "" for name, field in parameters.model_fields.items()}
    for name, value in fields.items():
        if isinstance(value, UploadFile):
            raise InvalidRequest(
                f"{quoted(name)} is not a file parameter; send it as text.", param=name, code="invalid_type"
            )
        if name not in known:
            raise _unknown(name, [*known, *media], fields.get("model") or DEFAULT_MODEL)
    try:
        return parameters.model_validate(fields)
    except ValidationError as error:
        raise from_validation(error.errors(include_url=False)[0], known) from error


def _unknown(name: str, known: list[str], model: Value) -> Exception:
    if name in FOREIGN_PARAMETERS:
        return UnsupportedOption(f"The model {quoted(model)} does not honour '{name}'; leave it out.", param=name)
    close = difflib.get_close_matches(name[:40], known, n=1)
    advice = f"Did you mean '{close[0]}'?" if close else f"There are: {', '.join(known)}."
    advice = _ELSEWHERE.get(name, advice)
    return InvalidRequest(f"Unknown parameter: {quoted(name)}. {advice}", param=name, code="unknown_parameter")


def openapi_body(parameters: type[BaseModel], media: Media) -> dict[str, Any]:
    """Describe the body of a call that takes these parameters, for a route's ``openapi_extra``."""
    forms = {
        "application/json": _schema(parameters, media, multipart=False),
        "multipart/form-data": _schema(parameters, media, multipart=True),
    }
    content = {kind: {"schema": schema} for kind, schema in forms.items()}
    return {"requestBody": {"required": True, "content": content}}


def _schema(parameters: type[BaseModel], media: Media, *, multipart: bool) -> dict[str, Any]:
    described = parameters.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, medium in media.items():
        schema = {"type": "string", "format": "binary"} if multipart and medium.is_file else dict(medium.schema)
        if not multipart and not medium.is_required:
            schema = {"anyOf": [schema, {"type": "null"}]}
        described["properties"][name] = {**schema, "description": medium.description}
        if medium.is_required:
            described.setdefault("required", []).append(name)
    return described
