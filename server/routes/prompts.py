"""The prompt library: templates, composing, starred prompts, the log, and the difference between two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field, ValidationError

from pipelines.card import MAX_PROMPT
from server.answers import positions, searched
from server.deps import BodyDep, Caller, CallerDep, Services, ServicesDep, valid_id
from server.errors import NO_RETRY, ApiError, InvalidRequest
from server.jobs import JobId
from server.library import STAR_ID, TEMPLATE_ID, NotInLibrary, OwnTemplate, TemplateChanged
from server.parameters import Name
from server.prompt_schemas import (
    Compose,
    Composed,
    PromptDeleted,
    PromptDiff,
    PromptLog,
    PromptTemplate,
    PromptTemplateList,
    StarCreate,
    StarredPrompt,
    StarredPromptList,
    TemplateCreate,
    TemplateUpdate,
)
from server.prompts import BadSlot, Beat, ShippedTemplate, Template, compose, shipped
from server.quota import Quota
from server.schemas import DEFAULT_PAGE, MAX_PAGE, Video
from server.selection import Filter
from server.store import JobNotFound
from server.validation import openapi_body, validated

router = APIRouter(prefix="/v1/prompts", tags=["prompts"])

TemplateId = Annotated[str, Path(description="Id of a prompt template")]
StarId = Annotated[str, Path(description="Id of a starred prompt")]
_Limit = Annotated[int, Query(ge=0, le=MAX_PAGE)]
_BAD_CURSOR = "'after' must be the last_id of the page before."


class _TemplateChanged(ApiError):
    """Somebody changed the template since it was seen."""

    status = 409
    code = "template_changed"


@router.get("/templates")
def list_prompt_templates(caller: CallerDep, services: ServicesDep) -> PromptTemplateList:
    """List all templates: those that ship with Homereel, then one's own."""
    every = [*shipped().values(), *services.library.templates(caller.owner)]
    return PromptTemplateList(data=[PromptTemplate.of(template) for template in every])


@router.post("/templates", openapi_extra=openapi_body(TemplateCreate, {}))
def create_prompt_template(body: BodyDep, caller: CallerDep, services: ServicesDep) -> PromptTemplate:
    """Keep a template of one's own."""
    asked = validated(TemplateCreate, body.fields(), {})
    quota = Quota("templates", services.settings.max_templates)
    return PromptTemplate.of(services.library.add_template(_checked(asked.model_dump()), caller.owner, quota))


@router.get("/templates/{template_id}")
def retrieve_prompt_template(template_id: TemplateId, caller: CallerDep, services: ServicesDep) -> PromptTemplate:
    """Describe one template."""
    return PromptTemplate.of(_template(template_id, caller, services))


@router.post("/templates/{template_id}", openapi_extra=openapi_body(TemplateUpdate, {}))
def update_prompt_template(
    template_id: TemplateId, body: BodyDep, caller: CallerDep, services: ServicesDep
) -> PromptTemplate:
    """Change a template of one's own; what is left out stays. With ``revision``, only the one that was seen."""
    asked = validated(TemplateUpdate, body.fields(), {})
    changes = asked.model_dump(exclude={"revision"}, exclude_none=True)
    found = _own(template_id, caller, services, "changed")
    while True:
        if asked.revision is not None and asked.revision != found.revision:
            message = f"'{found.template.name}' has been changed meanwhile; it is at revision {found.revision} now."
            raise _TemplateChanged(message, param="revision", headers=NO_RETRY)
        template = _checked(found.template.model_dump() | changes)
        try:
            return PromptTemplate.of(services.library.change_template(found, template, caller.owner))
        except TemplateChanged as error:
            found = error.now


@router.delete("/templates/{template_id}")
def delete_prompt_template(template_id: TemplateId, caller: CallerDep, services: ServicesDep) -> PromptDeleted:
    """Forget a template of one's own."""
    _own(template_id, caller, services, "deleted")
    services.library.delete_template(template_id, caller.owner)
    return PromptDeleted(id=template_id, object="prompt.template.deleted")


@router.post("/compose", openapi_extra=openapi_body(Compose, {}))
def compose_prompt(body: BodyDep, caller: CallerDep, services: ServicesDep) -> Composed:
    """Make a prompt of one template, or of two that follow each other. Nothing is kept."""
    asked = validated(Compose, body.fields(), {})
    beats: list[Beat] = []
    for beat in asked.beats:
        found = _template(beat.template, caller, services)
        beats.append(Beat(found.template if isinstance(found, OwnTemplate) else found, beat.slots))
    try:
        prompt = compose(beats)
    except BadSlot as error:
        raise InvalidRequest(
            error.message, param=f"beats[{error.beat}].slots.{error.slot}"[:200], code="invalid_slot"
        ) from error
    if not 1 <= len(prompt) <= MAX_PROMPT:
        message = f"The prompt would have {len(prompt):,} characters; from 1 to {MAX_PROMPT:,} are taken."
        raise InvalidRequest(message, param="beats")
    return Composed(prompt=prompt)


@router.post("/starred", openapi_extra=openapi_body(StarCreate, {}))
def star_prompt(body: BodyDep, caller: CallerDep, services: ServicesDep) -> StarredPrompt:
    """Keep a prompt to find it again. One that is kept already is answered as it is."""
    asked = validated(StarCreate, body.fields(), {})
    quota = Quota("stars", services.settings.max_stars)
    kept = services.library.star(asked.prompt, asked.negative_prompt, asked.note, caller.owner, quota)
    return StarredPrompt.of(kept)


@router.get("/starred")
def list_starred_prompts(
    caller: CallerDep, services: ServicesDep, after: str | None = None, limit: _Limit = DEFAULT_PAGE
) -> StarredPromptList:
    """List starred prompts, the newest first; go on with ``after=last_id``."""
    if after is not None and not STAR_ID.fullmatch(after):
        raise InvalidRequest(_BAD_CURSOR, param="after")
    page = services.library.stars(caller.owner, after=after, limit=limit)
    return StarredPromptList.of(page.stars, has_more=page.has_more)


@router.delete("/starred/{star_id}")
def unstar_prompt(star_id: StarId, caller: CallerDep, services: ServicesDep) -> PromptDeleted:
    """Forget a starred prompt."""
    if not STAR_ID.fullmatch(star_id):
        raise NotInLibrary("starred prompt", star_id)
    services.library.unstar(star_id, caller.owner)
    return PromptDeleted(id=star_id, object="prompt.starred.deleted")


class _Search(BaseModel):
    """What to find in the log."""

    q: Annotated[
        str | None, Field(max_length=500, description="Words, or beginnings of words, that the prompt has all of.")
    ] = None
    model: Annotated[Name | None, Field(description="Only what this model was asked for.")] = None
    after: str | None = None
    limit: Annotated[int, Field(ge=0, le=MAX_PAGE)] = DEFAULT_PAGE


@router.get("/log")
def search_prompt_log(caller: CallerDep, services: ServicesDep, search: Annotated[_Search, Query()]) -> PromptLog:
    """Find prompts by their words, with what was made of them, the newest first; go on with ``after=last_id``."""
    chosen = Filter(model=search.model, words=searched(search.q))
    page = services.store.list(
        after=_cursor(search.after), limit=search.limit, newest_first=True, owner=caller.owner, only=chosen
    )
    places = positions(services)
    return PromptLog.of([Video.of(job, places.get(job.id)) for job in page.jobs], has_more=page.has_more)


@router.get("/diff")
def diff_prompts(
    caller: CallerDep,
    services: ServicesDep,
    a: Annotated[str, Query(description="Id of a video")],
    b: Annotated[str, Query(description="Id of another video")],
) -> PromptDiff:
    """Say in which parameters two videos differ, and how the one's prompt becomes the other's."""
    one, other = (services.store.get(valid_id(video), caller.owner) for video in (a, b))
    return PromptDiff.of(one, other)


def _template(template_id: str, caller: Caller, services: Services) -> ShippedTemplate | OwnTemplate:
    found = shipped().get(template_id)
    if found is not None:
        return found
    if not TEMPLATE_ID.fullmatch(template_id):
        raise NotInLibrary("template", template_id)
    return services.library.template(template_id, caller.owner)


def _own(template_id: str, caller: Caller, services: Services, what: str) -> OwnTemplate:
    found = _template(template_id, caller, services)
    if isinstance(found, ShippedTemplate):
        message = f"'{found.name}' ships with Homereel and stays; one's own templates can be {what}."
        raise InvalidRequest(message, param="template_id", code="template_is_shipped")
    return found


def _checked(values: Mapping[str, Any]) -> Template:
    try:
        return Template.model_validate(values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InvalidRequest(reason, param="text", code="invalid_template") from error


def _cursor(after: str | None) -> JobId | None:
    try:
        return None if after is None else valid_id(after)
    except JobNotFound as error:
        raise InvalidRequest(_BAD_CURSOR, param="after") from error
