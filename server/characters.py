"""Characters: named subjects of clips or pictures that videos can show again. A row each, and a folder."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, NewType

from sqlalchemy import Engine, RowMapping, delete, insert, select, true

from server import database
from server.ids import shape_of
from server.jobs import Owner
from server.quota import Quota
from server.tables import character as characters

CharacterId = NewType("CharacterId", str)

PREFIX = "char_"
CHARACTER_ID = shape_of(PREFIX)
_ORIGINAL, _STILL = "original", "still"


class CharacterNotFound(Exception):
    """There is no such character, or it has been deleted."""

    def __init__(self, character_id: str) -> None:
        super().__init__(f"no character {character_id}")
        self.character_id = character_id


@dataclass(frozen=True)
class Character:
    """A character. ``kind`` is what it was made from; ``created_at`` is in Unix seconds."""

    id: CharacterId
    owner: Owner
    name: str
    kind: Literal["video", "image"]
    created_at: float


class CharacterPage(NamedTuple):
    """A part of a list, and whether more follows."""

    characters: tuple[Character, ...]
    has_more: bool


class CharacterStore:
    """All characters, of everybody. A row is there only if its files are."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._folder = folder

    def original_path(self, character_id: CharacterId, suffix: str) -> Path:
        """Return where the clip or picture of a character belongs."""
        return self._folder / character_id / f"{_ORIGINAL}{suffix}"

    def still_path(self, character_id: CharacterId) -> Path:
        """Return where the picture of a character belongs that was made of its clip."""
        return self._folder / character_id / f"{_STILL}.png"

    def add(self, character: Character, quota: Quota | None = None) -> None:
        """Keep a character whose files are in place. When this returns, it survives a loss of power.

        Raises:
            QuotaExceeded: Its owner has as many as may be.
        """
        with self._writes.begin() as db:
            if quota is not None:
                quota.check(db, characters, character.owner, 1)
            db.execute(insert(characters).values(vars(character)))

    def get(self, character_id: str, owner: Owner | None = None) -> Character:
        """Return the character.

        Here and below, whoever names an ``owner`` finds only what is that owner's.

        Raises:
            CharacterNotFound: There is none.
        """
        mine = true() if owner is None else characters.c.owner == owner
        with self._reads.connect() as db:
            row = db.execute(select(characters).where(characters.c.id == character_id, mine)).mappings().one_or_none()
        if row is None:
            raise CharacterNotFound(character_id)
        return _character_from(row)

    def picture(self, character: Character) -> Path:
        """Return the file of the picture that shows the character.

        Raises:
            CharacterNotFound: It has been deleted meanwhile.
        """
        name = _STILL if character.kind == "video" else _ORIGINAL
        found = next((self._folder / character.id).glob(f"{name}.*"), None)
        if found is None:
            raise CharacterNotFound(character.id)
        return found

    def clip(self, character: Character) -> Path | None:
        """Return the file of the clip that a character was made from; None if it was a picture.

        Raises:
            CharacterNotFound: It has been deleted meanwhile.
        """
        if character.kind != "video":
            return None
        found = next((self._folder / character.id).glob(f"{_ORIGINAL}.*"), None)
        if found is None:
            raise CharacterNotFound(character.id)
        return found

    def list(self, *, after: str | None, limit: int, newest_first: bool, owner: Owner | None = None) -> CharacterPage:
        """Return up to ``limit`` characters in order of creation, those that follow ``after`` if it is given."""
        column = characters.c.id
        query = select(characters).limit(limit + 1).order_by(column.desc() if newest_first else column.asc())
        if owner is not None:
            query = query.where(characters.c.owner == owner)
        if after is not None:
            query = query.where(column < after if newest_first else column > after)
        with self._reads.connect() as db:
            found = [_character_from(row) for row in db.execute(query).mappings()]
        return CharacterPage(tuple(found[:limit]), has_more=len(found) > limit)

    def delete(self, character_id: str, owner: Owner | None = None) -> None:
        """Forget the character and its files. Videos that show it have copies of what they need.

        Raises:
            CharacterNotFound: There is none.
        """
        character = self.get(character_id, owner)
        with self._writes.begin() as db:
            db.execute(delete(characters).where(characters.c.id == character.id))
        self.discard(character.id)

    def discard(self, character_id: CharacterId) -> None:
        """Remove the files of a character without a row; none being there is fine."""
        shutil.rmtree(self._folder / character_id, ignore_errors=True)

    def sweep(self, before: float) -> int:
        """Remove files that belong to no character and are older than a Unix time; return how many folders they were.

        They are what a crash leaves of a character that was being made or deleted.
        """
        swept = 0
        for folder in self._folder.glob(f"{PREFIX}*"):
            with contextlib.suppress(CharacterNotFound, FileNotFoundError):
                if folder.stat().st_mtime >= before or self.get(folder.name):
                    continue
            self.discard(CharacterId(folder.name))
            swept += 1
        return swept


def _character_from(row: RowMapping) -> Character:
    return Character(**row)
