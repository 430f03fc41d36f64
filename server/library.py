"""What people keep to use again: templates of their own, and prompts that they starred. A row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row, delete, insert, select, update

from server import database
from server.ids import new_id, shape_of
from server.jobs import Owner
from server.prompts import Template
from server.quota import Quota
from server.tables import prompt_template as templates
from server.tables import starred_prompt as stars

TEMPLATE_PREFIX, STAR_PREFIX = "template_", "star_"
TEMPLATE_ID, STAR_ID = shape_of(TEMPLATE_PREFIX), shape_of(STAR_PREFIX)


class NotInLibrary(Exception):
    """There is no such template or starred prompt, or it has been deleted."""

    def __init__(self, what: str, thing_id: str) -> None:
        super().__init__(f"no {what} {thing_id}")
        self.what = what
        self.thing_id = thing_id


@dataclass(frozen=True)
class OwnTemplate:
    """A template that somebody made; ``created_at`` is in Unix seconds, ``revision`` counts from 1."""

    id: str
    template: Template
    created_at: float
    revision: int = 1


class TemplateChanged(Exception):
    """A template has been changed since it was seen; ``now`` is what it has become."""

    def __init__(self, now: OwnTemplate) -> None:
        super().__init__(f"{now.id} is at revision {now.revision}")
        self.now = now


@dataclass(frozen=True)
class Star:
    """A prompt that somebody wants to find again; ``created_at`` is in Unix seconds."""

    id: str
    prompt: str
    negative_prompt: str
    note: str
    created_at: float


class StarPage(NamedTuple):
    """A part of a list, and whether more follows."""

    stars: tuple[Star, ...]
    has_more: bool


class Library:
    """All templates and starred prompts. Everybody finds their own only."""

    def __init__(self, engine: Engine, now: Callable[[], float]) -> None:
        self._reads = engine
        self._writes = database.durable(engine)
        self._now = now

    def add_template(self, template: Template, owner: Owner, quota: Quota) -> OwnTemplate:
        """Keep a template.

        Raises:
            QuotaExceeded: Its owner has as many as may be.
        """
        now = self._now()
        made = OwnTemplate(new_id(TEMPLATE_PREFIX, now), template, now)
        with self._writes.begin() as db:
            quota.check(db, templates, owner, 1)
            db.execute(insert(templates).values(vars(made) | {"owner": owner}))
        return made

    def templates(self, owner: Owner) -> tuple[OwnTemplate, ...]:
        """Return the owner's templates, the oldest first."""
        query = select(templates).where(templates.c.owner == owner).order_by(templates.c.id)
        with self._reads.connect() as db:
            return tuple(_own(row) for row in db.execute(query))

    def template(self, template_id: str, owner: Owner) -> OwnTemplate:
        """Return a template of the owner's.

        Raises:
            NotInLibrary: There is none.
        """
        query = select(templates).where(templates.c.id == template_id, templates.c.owner == owner)
        with self._reads.connect() as db:
            row = db.execute(query).one_or_none()
        if row is None:
            raise NotInLibrary("template", template_id)
        return _own(row)

    def change_template(self, seen: OwnTemplate, template: Template, owner: Owner) -> OwnTemplate:
        """Write a template anew in the place of the one that was seen.

        Raises:
            TemplateChanged: It is not that one any more.
            NotInLibrary: It is gone.
        """
        new = seen.revision + 1
        same = (templates.c.id == seen.id, templates.c.owner == owner, templates.c.revision == seen.revision)
        with self._writes.begin() as db:
            if db.execute(update(templates).where(*same).values(template=template, revision=new)).rowcount:
                return replace(seen, template=template, revision=new)
        raise TemplateChanged(self.template(seen.id, owner))

    def delete_template(self, template_id: str, owner: Owner) -> None:
        """Forget a template of the owner's.

        Raises:
            NotInLibrary: There is none.
        """
        gone = delete(templates).where(templates.c.id == template_id, templates.c.owner == owner)
        with self._writes.begin() as db:
            if not db.execute(gone).rowcount:
                raise NotInLibrary("template", template_id)

    def star(self, prompt: str, negative_prompt: str, note: str, owner: Owner, quota: Quota) -> Star:
        """Keep a prompt; one that is kept already stays as it is, and is returned.

        Raises:
            QuotaExceeded: Its owner has as many as may be.
        """
        now = self._now()
        made = Star(new_id(STAR_PREFIX, now), prompt, negative_prompt, note, now)
        same = (stars.c.owner == owner, stars.c.prompt == prompt, stars.c.negative_prompt == negative_prompt)
        with self._writes.begin() as db:
            there = db.execute(select(stars).where(*same)).first()
            if there is not None:
                return Star(there.id, there.prompt, there.negative_prompt, there.note, there.created_at)
            quota.check(db, stars, owner, 1)
            db.execute(insert(stars).values(vars(made) | {"owner": owner}))
        return made

    def stars(self, owner: Owner, *, after: str | None, limit: int) -> StarPage:
        """Return up to ``limit`` of the owner's starred prompts, the newest first, those after ``after`` if given."""
        query = select(stars).where(stars.c.owner == owner).order_by(stars.c.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(stars.c.id < after)
        with self._reads.connect() as db:
            found = [Star(r.id, r.prompt, r.negative_prompt, r.note, r.created_at) for r in db.execute(query)]
        return StarPage(tuple(found[:limit]), has_more=len(found) > limit)

    def unstar(self, star_id: str, owner: Owner) -> None:
        """Forget a starred prompt of the owner's.

        Raises:
            NotInLibrary: There is none.
        """
        with self._writes.begin() as db:
            if not db.execute(delete(stars).where(stars.c.id == star_id, stars.c.owner == owner)).rowcount:
                raise NotInLibrary("starred prompt", star_id)


def _own(row: Row[Any]) -> OwnTemplate:
    return OwnTemplate(row.id, row.template, row.created_at, row.revision)
