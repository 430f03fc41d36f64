"""Characters: make, look at, list, delete."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query

from server.casting import PORTRAIT, character, create_character
from server.character_schemas import Character, CharacterDeleted, CharacterList
from server.characters import CHARACTER_ID
from server.deps import BodyDep, CallerDep, ServicesDep
from server.errors import InvalidRequest
from server.parameters import CharacterCreate
from server.schemas import DEFAULT_PAGE, MAX_PAGE
from server.validation import openapi_body

router = APIRouter(prefix="/v1/videos/characters", tags=["characters"])

CharacterId = Annotated[str, Path(description="Id of a character")]


@router.post("", openapi_extra=openapi_body(CharacterCreate, PORTRAIT))
def create_one_character(body: BodyDep, caller: CallerDep, services: ServicesDep) -> Character:
    """Keep a character that a clip or a picture shows, for use in videos."""
    return Character.of(create_character(body.fields(), caller, services))


@router.get("")
def list_characters(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = DEFAULT_PAGE,
    order: Literal["asc", "desc"] = "desc",
) -> CharacterList:
    """List characters by creation, the newest first; go on with ``after=last_id``."""
    if after is not None and not CHARACTER_ID.fullmatch(after):
        raise InvalidRequest("'after' must be the last_id of the page before.", param="after")
    page = services.characters.list(after=after, limit=limit, newest_first=order == "desc", owner=caller.owner)
    return CharacterList.of(page.characters, has_more=page.has_more)


@router.get("/{character_id}")
def retrieve_character(character_id: CharacterId, caller: CallerDep, services: ServicesDep) -> Character:
    """Describe one character."""
    return Character.of(character(character_id, caller, services))


@router.delete("/{character_id}")
def delete_character(character_id: CharacterId, caller: CallerDep, services: ServicesDep) -> CharacterDeleted:
    """Forget a character. Videos that were asked for with it are made all the same."""
    found = character(character_id, caller, services)
    services.characters.delete(found.id, caller.owner)
    return CharacterDeleted(id=found.id)
