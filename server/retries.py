"""Requests that come again: recognised by what is in them, and answered with what the first one made.

The SDKs post three times when a connection breaks, without any key; only a header counts up.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from starlette.datastructures import Headers, UploadFile

from server.errors import NO_RETRY, InvalidRequest, NotFound
from server.intake import KeyReused, KeySpent
from server.jobs import Attempt, Job, Owner

if TYPE_CHECKING:
    from starlette.requests import Request

    from server.deps import Caller, Services
    from server.forms import Fields, Value

KEY_HEADER, COUNT_HEADER = "idempotency-key", "x-stainless-retry-count"
MAX_KEY = 255

Make: TypeAlias = Callable[[Attempt], tuple[Job, ...]]


class Turns:
    """Lets a repeated request wait until those before it are through, so that it finds what they made.

    The first may still be at work, unaware that nobody listens any more, when the second arrives. One set of turns
    serves one API process; across several, idempotency keys still hold, by the database.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets = itertools.count()
        self._at_work: dict[tuple[Owner, str], list[tuple[int, bool]]] = {}

    @contextmanager
    def taken(self, key: tuple[Owner, str], *, is_retry: bool) -> Generator[bool]:
        """Work on a request that may be under way already.

        Yields:
            Whether to look for what another attempt made: it is a retry, or a retry of it has overtaken it.
        """
        with self._changed:
            ticket = (next(self._tickets), is_retry)
            line = self._at_work.setdefault(key, [])
            waits = is_retry or any(other_is_retry for _, other_is_retry in line)
            line.append(ticket)
            # Those ahead have their threads already: they never wait for one that this wait occupies.
            self._changed.wait_for(lambda: not waits or line[0] == ticket)
        try:
            yield waits
        finally:
            with self._changed:
                line.remove(ticket)
                if not line:
                    self._at_work.pop(key, None)
                self._changed.notify_all()


def once(request: Request, fields: Fields, caller: Caller, services: Services, make: Make) -> tuple[Job, ...]:
    """Return what ``make`` makes, or what it made when the same request came before.

    Args:
        request: Says in its headers whether it may have come before.
        fields: Its parameters, whole; read, and left as they are.
        caller: Whose request it is.
        services: Where earlier ones are found.
        make: Called with the attempt, which it passes to the store; it may take ``fields`` apart.

    Raises:
        InvalidRequest: The idempotency key cannot be one, or stands for another request.
        NotFound: What the earlier request made has been deleted.
    """
    digest = digest_of(request.url.path, fields)
    with services.turns.taken((caller.owner, digest), is_retry=_is_retry(request.headers)) as is_retry:
        attempt = Attempt(digest, _key(request.headers), is_retry)
        try:
            return services.store.made_before(caller.owner, attempt) or make(attempt)
        except KeyReused as error:
            message = "This Idempotency-Key was sent before, with another request. Use a new one for every request."
            raise InvalidRequest(message, param=KEY_HEADER, code="idempotency_key_reused", headers=NO_RETRY) from error
        except KeySpent as error:
            message = "What was made under this Idempotency-Key has been deleted since."
            raise NotFound(message, param=KEY_HEADER, code="video_not_found") from error


def digest_of(path: str, fields: Fields) -> str:
    """Return what two requests share if they ask for the same: the boundary between a form's parts does not count."""
    # Sorted, since nothing says in which order a client writes its fields.
    text = json.dumps([path, _plain(dict(fields))], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Value) -> object:
    match value:
        case UploadFile():
            value.file.seek(0)
            content = hashlib.file_digest(value.file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
            value.file.seek(0)
            # No text of a request that is carried out contains this character.
            return f"\0{content}"
        case dict():
            return {name: _plain(inner) for name, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _is_retry(headers: Headers) -> bool:
    count = headers.get(COUNT_HEADER, "")
    return count.isdecimal() and int(count[:9]) > 0


def _key(headers: Headers) -> str | None:
    key = headers.get(KEY_HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        message = f"Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters."
        raise InvalidRequest(message, param=KEY_HEADER, headers=NO_RETRY)
    return key
