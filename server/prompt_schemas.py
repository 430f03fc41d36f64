"""The wire of the prompt library: templates, composing, starred prompts, the log, and what two runs differ in."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from server.jobs import Job
from server.library import OwnTemplate, Star
from server.parameters import Name, Prompt, Text
from server.prompts import MAX_BEATS, MAX_SLOTS, MAX_VALUE, ShippedTemplate, Slot, Template
from server.schemas import Video


class BeatBody(BaseModel):
    """A template by its id, and what its slots are filled with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: Name
    slots: Annotated[dict[str, Annotated[Text, Field(max_length=MAX_VALUE)]], Field(max_length=MAX_SLOTS)] = {}


class Compose(BaseModel):
    """The parameters of a composition."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beats: Annotated[list[BeatBody], Field(min_length=1, max_length=MAX_BEATS)] = Field(
        description="a list of one beat, or of two that follow each other, such as "
        "{'template': 'tracking-shot', 'slots': {'subject': 'a fox'}}"
    )


class TemplateCreate(BaseModel):
    """The parameters of a template of one's own; ``server.prompts.Template`` says what goes together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[Text, Field(min_length=1, max_length=200)] = Field(description="a name of 1 to 200 characters")
    description: Annotated[Text, Field(max_length=500)] = Field(default="", description="up to 500 characters")
    text: Annotated[Text, Field(min_length=1, max_length=2000)] = Field(
        description="up to 2,000 characters with slots {like_this}, and [what goes if its slot is empty] in brackets"
    )
    slots: Annotated[list[Slot], Field(max_length=MAX_SLOTS)] = Field(
        default=[], description="a list of slots such as {'name': 'subject', 'label': 'Who or what'}"
    )


class TemplateUpdate(BaseModel):
    """What is to be different about a template of one's own. Text and slots go together, as when it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[Text, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="a name of 1 to 200 characters"
    )
    description: Annotated[Text, Field(max_length=500)] | None = Field(default=None, description="up to 500 characters")
    text: Annotated[Text, Field(min_length=1, max_length=2000)] | None = Field(
        default=None, description="up to 2,000 characters with slots {like_this}"
    )
    slots: Annotated[list[Slot], Field(max_length=MAX_SLOTS)] | None = Field(
        default=None, description="a list of slots such as {'name': 'subject', 'label': 'Who or what'}"
    )
    revision: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="the revision that was seen; another one's change is then not overwritten (409)"
    )


class StarCreate(BaseModel):
    """The parameters of a starred prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description="the text to keep")
    negative_prompt: Text = Field(default="", description="a text that says what not to show")
    note: Annotated[Text, Field(max_length=500)] = Field(default="", description="up to 500 characters")


class PromptTemplate(BaseModel):
    """A template on the wire."""

    id: str
    object: Literal["prompt.template"] = "prompt.template"
    name: str
    description: str
    text: str
    slots: tuple[Slot, ...]
    shipped: bool = Field(description="Whether it came with Homereel; the others are one's own.")
    created_at: int | None
    revision: int | None = Field(description="Counts the changes of one's own from 1; null for what ships.")

    @classmethod
    def of(cls, template: ShippedTemplate | OwnTemplate) -> PromptTemplate:
        """Say a template of either kind."""
        if isinstance(template, ShippedTemplate):
            return cls(id=template.id, shipped=True, created_at=None, revision=None, **_said(template))
        made, number = int(template.created_at), template.revision
        return cls(id=template.id, shipped=False, created_at=made, revision=number, **_said(template.template))


class PromptTemplateList(BaseModel):
    """All templates: those that ship with the project, then one's own."""

    object: Literal["list"] = "list"
    data: list[PromptTemplate]


class Composed(BaseModel):
    """A prompt, ready for POST /v1/videos."""

    object: Literal["prompt.composed"] = "prompt.composed"
    prompt: str


class StarredPrompt(BaseModel):
    """A prompt that was kept."""

    id: str
    object: Literal["prompt.starred"] = "prompt.starred"
    prompt: str
    negative_prompt: str
    note: str
    created_at: int

    @classmethod
    def of(cls, star: Star) -> StarredPrompt:
        """Say a star."""
        return cls(
            id=star.id,
            prompt=star.prompt,
            negative_prompt=star.negative_prompt,
            note=star.note,
            created_at=int(star.created_at),
        )


class StarredPromptList(BaseModel):
    """One page, the newest first; go on with ``after=last_id`` while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[StarredPrompt]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, stars: Sequence[Star], *, has_more: bool) -> StarredPromptList:
        """Wrap a page's stars."""
        first, last = (stars[0].id, stars[-1].id) if stars else (None, None)
        return cls(data=[StarredPrompt.of(star) for star in stars], first_id=first, last_id=last, has_more=has_more)


class PromptDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["prompt.template.deleted", "prompt.starred.deleted"]
    deleted: Literal[True] = True


class PromptEntry(BaseModel):
    """A prompt of the log, and what was made of it; runs of one prompt that follow each other are one entry."""

    object: Literal["prompt.entry"] = "prompt.entry"
    prompt: str
    created_at: int = Field(description="When the latest of its videos was asked for.")
    videos: list[Video]


class PromptLog(BaseModel):
    """One page, the newest first; ``last_id`` is that of its last video: go on with ``after=last_id``."""

    object: Literal["list"] = "list"
    data: list[PromptEntry]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, videos: Sequence[Video], *, has_more: bool) -> PromptLog:
        """Wrap a page's videos, which are in order."""
        entries: list[PromptEntry] = []
        for prompt, group in groupby(videos, lambda video: video.prompt or ""):
            same = list(group)
            entries.append(PromptEntry(prompt=prompt, created_at=same[0].created_at, videos=same))
        first, last = (videos[0].id, videos[-1].id) if videos else (None, None)
        return cls(data=entries, first_id=first, last_id=last, has_more=has_more)


class Difference(BaseModel):
    """A parameter that is not the same in two runs."""

    name: str
    a: JsonValue
    b: JsonValue


class WordChange(BaseModel):
    """A piece of the prompt: in both, only in ``a`` (removed), or only in ``b`` (added)."""

    kind: Literal["same", "removed", "added"]
    text: str


class PromptDiff(BaseModel):
    """What two runs differ in."""

    object: Literal["prompt.diff"] = "prompt.diff"
    a: str
    b: str
    differences: list[Difference] = Field(description="The parameters that differ; none if both are the same request.")
    words: list[WordChange] = Field(description="The prompt of a, and how it becomes that of b, word by word.")

    @classmethod
    def of(cls, a: Job, b: Job) -> PromptDiff:
        """Compare two runs."""
        one, other = _parameters(a), _parameters(b)
        found = [Difference(name=name, a=one[name], b=other[name]) for name in one if one[name] != other[name]]
        return cls(a=a.id, b=b.id, differences=found, words=word_changes(a.request.prompt, b.request.prompt))


def _said(template: Template) -> dict[str, Any]:
    return {name: getattr(template, name) for name in ("name", "description", "text", "slots")}


def word_changes(a: str, b: str) -> list[WordChange]:
    """Return how one text becomes another, word by word; spaces belong to the word before them."""
    one, other = (re.findall(r"\s*\S+\s*", text) for text in (a, b))
    changes: list[WordChange] = []

    def add(kind: Literal["same", "removed", "added"], words: list[str]) -> None:
        if words:
            changes.append(WordChange(kind=kind, text="".join(words)))

    for tag, i, j, k, m in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            add("same", one[i:j])
        else:
            add("removed", one[i:j])
            add("added", other[k:m])
    return changes


def _parameters(job: Job) -> dict[str, JsonValue]:
    request = job.request
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "model": job.model,
        "card": job.card,
        "size": request.delivery.size,
        "seconds": f"{request.delivery.seconds:.12g}",
        "fps": request.delivery.fps,
        "num_frames": request.delivery.frames,
        "seed": request.seed,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "guidance_scale_2": request.guidance_scale_2,
        "flow_shift": request.flow_shift,
        "step_cache": request.step_cache,
        "generate_sound": request.sound,
        "lora": [{"name": lora.name, "weight": lora.weight} for lora in request.loras],
        "pictures": [condition.frame for condition in request.conditions],
        "characters": len(request.references),
        "strength": request.source.strength if request.source and request.source.use == "edit" else None,
        "made_by": job.origin.kind if job.origin else "creation",
        "made_from": job.origin.video if job.origin else None,
        "joined_from": [*job.origin.videos] if job.origin else [],
    }
