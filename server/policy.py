"""The operator's rules on what may be asked for. There are none unless the operator writes some.

A video that a rule blocks is answered as the hosted service did it: accepted, and failed with ``moderation_blocked``
before anything is spent on it. Rules see texts alone: a picture, a clip or what a model makes of a text is not looked
at.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

import regex
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipelines.types import GenerationRequest
from server.jobs import JobError

# The package has no type information.
_regex: Any = regex
_log = logging.getLogger(__name__)

# The hosted service's words.
BLOCKED = JobError("moderation_blocked", "Your request was blocked by our moderation system.")
# A pattern that takes longer on a text counts as found there: whoever writes the text must not get past it that way.
MATCH_S = 0.25

FieldName: TypeAlias = Literal["prompt", "negative_prompt"]
Action: TypeAlias = Literal["block", "warn", "log"]


class BadPolicy(Exception):
    """The file of rules cannot be read or says something that is no rule."""


def _compilable(pattern: str) -> str:
    try:
        _regex.compile(pattern)
    except _regex.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


def _not_empty(term: str) -> str:
    if not _plain(term):
        raise ValueError(f"{term!r} is an empty term")
    return term


Term = Annotated[str, Field(min_length=1), AfterValidator(_not_empty)]
Pattern = Annotated[str, Field(min_length=1), AfterValidator(_compilable)]


class Rule(BaseModel):
    """What is looked for where, and what follows if it is found.

    Attributes:
        name: Stands in the log, and in the warning if there is one.
        fields: The texts that are looked at.
        terms: Words or groups of words; case, accents, kinds of spaces and letters that look full or thin are one.
        patterns: Regular expressions, searched in the text as it was sent; case counts only after ``(?-i)``.
        action: ``block`` fails the video, ``warn`` adds to its warnings, ``log`` only writes to the log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9 _-]{1,64}$")]
    fields: tuple[FieldName, ...] = ("prompt",)
    terms: tuple[Term, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    action: Action = "block"

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        if not (self.terms or self.patterns) or not self.fields:
            raise ValueError(f"rule {self.name!r} needs terms or patterns, and fields to look at")
        return self


class _Rules(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Verdict:
    """What the rules say to a request: whether it is blocked, and what its maker is told if not."""

    blocked: bool = False
    warnings: tuple[str, ...] = ()


class Policy:
    """The rules that hold while a server runs."""

    def __init__(self, rules: tuple[Rule, ...] = ()) -> None:
        self._rules = [(rule, list(_searches(rule))) for rule in rules]

    @classmethod
    def read(cls, path: Path | None) -> Policy:
        """Return the policy in a YAML file; None is the one without rules.

        Raises:
            BadPolicy: There is no such file, or it says something else; the message names the place.
        """
        if path is None:
            return cls()
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls(_Rules.model_validate(found).rules)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise BadPolicy(f"{path}: {place}: {first['msg']}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
            raise BadPolicy(f"{path}: {reason}") from error

    def judge(self, request: GenerationRequest, job_id: str) -> Verdict:
        """Return what the rules say. What matched is logged by the rule's name, never by the text."""
        found = [rule for rule, searches in self._rules if self._applies(rule, searches, request)]
        for rule in found:
            _log.info("policy_matched id=%s rule=%s action=%s", job_id, rule.name, rule.action)
        warnings = tuple(f"the policy of this server has a remark: {r.name}" for r in found if r.action == "warn")
        return Verdict(any(rule.action == "block" for rule in found), warnings)

    def _applies(self, rule: Rule, searches: list[_Search], request: GenerationRequest) -> bool:
        texts = [getattr(request, field) for field in rule.fields]
        return any(search.finds(text) for text in texts for search in searches)


@dataclass(frozen=True)
class _Search:
    """A compiled expression, and whether it is for texts as they were sent or for plain ones."""

    expression: Any
    is_for_plain: bool

    def finds(self, text: str) -> bool:
        try:
            return self.expression.search(_plain(text) if self.is_for_plain else text, timeout=MATCH_S) is not None
        except TimeoutError:
            _log.warning("policy_pattern_too_slow pattern=%r characters=%d", self.expression.pattern, len(text))
            return True


def _searches(rule: Rule) -> Iterator[_Search]:
    for pattern in rule.patterns:
        yield _Search(_regex.compile(pattern, _regex.IGNORECASE), is_for_plain=False)
    if rule.terms:
        whole = "|".join(_whole(_plain(term)) for term in rule.terms)
        yield _Search(_regex.compile(whole), is_for_plain=True)


def _whole(term: str) -> str:
    """Return the expression of a term that is no part of a longer word, in scripts that part words."""
    before = r"(?<!\w)" if _parts_words(term[0]) else ""
    after = r"(?!\w)" if _parts_words(term[-1]) else ""
    return f"{before}{_regex.escape(term)}{after}"


def _parts_words(character: str) -> bool:
    """Tell whether words are written with spaces in between in the character's script: not in Chinese, or in Thai."""
    return not (unicodedata.east_asian_width(character) in "WF" or "\u0e00" <= character <= "\u0eff")


def _plain(text: str) -> str:
    """Return a text without what does not change how it is read: case, accents, fullwidth forms, invisible signs."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    kept = (" " if c.isspace() else c for c in decomposed if unicodedata.category(c) not in {"Mn", "Cf"})
    return " ".join("".join(kept).split())
