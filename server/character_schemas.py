"""The wire's answers about characters. OpenAI's client knows three keys and two calls of them; the rest is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from server import characters


class Character(BaseModel):
    """A character on the wire. ``id``, ``created_at`` and ``name`` are OpenAI's; the others are ours."""

    id: str
    object: Literal["character"] = "character"
    created_at: int
    name: str
    kind: Literal["video", "image"] = Field(description="What it was made from.")

    @classmethod
    def of(cls, character: characters.Character) -> Character:
        """Say a character in OpenAI's words."""
        return cls(id=character.id, created_at=int(character.created_at), name=character.name, kind=character.kind)


class CharacterList(BaseModel):
    """One page. Go on with ``after=last_id`` while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[Character]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[characters.Character], *, has_more: bool) -> CharacterList:
        """Describe a page."""
        first, last = (found[0].id, found[-1].id) if found else (None, None)
        return cls(data=[Character.of(one) for one in found], first_id=first, last_id=last, has_more=has_more)


class CharacterDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["character.deleted"] = "character.deleted"
    deleted: Literal[True] = True
