"""Who may ask: keys, their limits, and what an open server refuses to browsers.

A server without keys is open to whoever reaches it; ``homereel serve`` sees to it that those are on this machine.
With the first key it closes: every address but the public ones needs one.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anyio import CapacityLimiter, Lock, to_thread
from starlette.datastructures import Headers, MutableHeaders

from server.deps import Caller
from server.errors import ApiError, Forbidden, RateLimited, Unauthorized, answer, printable, quoted
from server.jobs import NOBODY, Owner
from server.keys import SECRET, ApiKey, KeyStore, digest_of
from server.limits import Bucket
from server.web import is_page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from server.settings import Settings

# What load balancers and container runtimes ask for, and a document that is the same on every server. Whatever is not
# listed needs a key, so a new route is closed until somebody decides otherwise.
PUBLIC = frozenset({"/health", "/ready", "/openapi.json"})
# How long a revoked key may go on, and how long a server without keys stays open after the first one was made.
FRESH_S = 1.0
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")
# Of a key that is refused, so much is quoted, provided that much more of it stays unsaid.
_QUOTED_HEAD, _QUOTED_TAIL, _UNSAID = 3, 2, 11

_HOW = "Send one as 'Authorization: Bearer sk-homereel-…'; `homereel keys create` makes one."


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address. Names other than ``localhost`` count as reachable."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class _Snapshot:
    keys: Mapping[str, ApiKey]
    taken_at: float


class Keyring:
    """The usable keys, read from the database at most ``FRESH_S`` seconds ago. Belongs to one event loop."""

    def __init__(self, store: KeyStore, now: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._now = now
        self._snapshot = _Snapshot({}, float("-inf"))
        self._lock = Lock()
        # A thread of its own: the shared ones may all be busy with uploads.
        self._limiter = CapacityLimiter(1)

    async def is_empty(self) -> bool:
        """Tell whether there are no keys."""
        return not await self._keys(not_before=self._now() - FRESH_S)

    async def find(self, secret: str) -> ApiKey | None:
        """Return the key with this secret, unless it does not exist or has been revoked.

        What is compared are digests, of which a sender cannot choose even the first byte: the time that a comparison
        takes tells nothing about any key.
        """
        asked_at, digest, known = self._now(), digest_of(secret), self._snapshot
        found = (await self._keys(not_before=asked_at - FRESH_S)).get(digest)
        if found is None and SECRET.fullmatch(secret):
            # It may have been made since that look.
            found = (await self._keys(not_before=asked_at, newer_than=known)).get(digest)
        return found

    async def _keys(self, not_before: float, newer_than: _Snapshot | None = None) -> Mapping[str, ApiKey]:
        """Return the keys as they were at ``not_before`` or later. Whoever waits shares the next look."""

        def is_new_enough() -> bool:
            return self._snapshot.taken_at >= not_before and self._snapshot is not newer_than

        if not is_new_enough():
            async with self._lock:
                if not is_new_enough():
                    taken_at = self._now()
                    keys = await to_thread.run_sync(self._store.usable, limiter=self._limiter)
                    self._snapshot = _Snapshot(keys, taken_at)
        return self._snapshot.keys


class Guard:
    """ASGI middleware: finds out who asks, and refuses whoever may not. Routes find the ``Caller`` in their request."""

    def __init__(self, app: ASGIApp, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._now = now
        self._may_be_open = settings.insecure_no_auth or is_loopback(settings.host)
        self._allowed_hosts = frozenset(name.lower() for name in settings.allowed_hosts or ())
        self._buckets: dict[Owner, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or _is_public(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            caller, limits = await self._admit(scope["method"], Headers(scope=scope), scope["app"].state.keyring)
        except ApiError as error:
            await answer(error)(scope, receive, send)
            return

        async def send_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(limits)
            await send(message)

        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send_limits)

    async def _admit(self, method: str, headers: Headers, keyring: Keyring) -> tuple[Caller, Mapping[str, str]]:
        """Return who asks, and the headers that say what is left of their limit.

        Raises:
            ApiError: They may not.
        """
        secret = _secret(headers)
        # Looked for first: the first key of all may be a moment old.
        key = None if secret is None else await keyring.find(secret)
        if key is not None:
            return Caller(key.id), self._count(method, key)
        if await keyring.is_empty():
            self._refuse_foreign_pages(method, headers)
            return Caller(NOBODY), {}
        if secret is None:
            raise _unauthorized(f"You did not provide an API key. {_HOW}")
        message = f"Incorrect API key provided: {_hinted(secret)}. `homereel keys list` shows the ones that exist."
        raise _unauthorized(message, ', error="invalid_token"')

    def _count(self, method: str, key: ApiKey) -> Mapping[str, str]:
        """Count a request against the key's limit and return the headers that say what is left.

        Looking is free: whoever waits for a video polls, and a poll that is refused loses its video.

        Raises:
            RateLimited: It is one too many.
        """
        if key.requests_per_minute is None or method in _READING:
            return {}
        bucket = self._buckets.setdefault(key.id, Bucket(key.requests_per_minute, self._now()))
        left = bucket.take(self._now())
        if left.retry_after_s > 0:
            wait_s = math.ceil(left.retry_after_s)
            message = f"This key may send {left.limit} requests a minute. Try again in {wait_s} s."
            wait = {"retry-after": str(wait_s), "retry-after-ms": str(math.ceil(left.retry_after_s * 1000))}
            raise RateLimited(message, headers={**left.headers(), **wait})
        return left.headers()

    def _refuse_foreign_pages(self, method: str, headers: Headers) -> None:
        """Keep web pages from elsewhere out of a server that needs no key.

        A page cannot read our answers, but it can send: so the origin of whatever changes something must be ours. It
        can also have a name of its own resolve to this machine (DNS rebinding) and is then our origin to the browser:
        so the name that it asks for must be one that nobody out there can own.

        Raises:
            Unauthorized: Without keys, this server serves nobody.
            Forbidden: The name or the origin is foreign.
        """
        if not self._may_be_open:
            raise _unauthorized(f"This server has no keys left and serves nobody without one. {_HOW}")
        host = headers.get("host", "")
        if not self._is_ours(host):
            advice = "If it is, list it in HOMEREEL_ALLOWED_HOSTS, or make a key."
            raise Forbidden(f"{quoted(host)} is not known as a name of this server. {advice}", code="host_not_allowed")
        origin = headers.get("origin")
        if method in _READING or origin is None:
            return
        source = _source(origin)
        is_ours = source == host.lower() or _name(source) in self._allowed_hosts
        if not (source and is_ours):
            message = f"Pages of {quoted(origin)} may not change anything here while this server has no keys."
            raise Forbidden(message, code="origin_not_allowed")

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name in self._allowed_hosts or "." not in name or name.endswith((".localhost", ".local")):
            # Single words and these endings do not exist in the public DNS; neither does the empty name of HTTP/1.0.
            return True
        # A page that asks for a bare address has been given no name to resolve.
        return re.fullmatch(r"[0-9.]+|\[[0-9a-f:.]*\]", name) is not None


def _is_public(method: str, path: str) -> bool:
    # The page has to be there before anybody can give it a key.
    return path in PUBLIC or (method in {"GET", "HEAD"} and is_page(path))


def _secret(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("api-key", "").strip() or None


def _hinted(secret: str) -> str:
    """Return enough of a refused key to recognise it, and too little to use it."""
    if len(secret) < _QUOTED_HEAD + _QUOTED_TAIL + _UNSAID:
        return "***"
    return printable(f"{secret[:_QUOTED_HEAD]}***{secret[-_QUOTED_TAIL:]}")


def _unauthorized(message: str, detail: str = "") -> Unauthorized:
    return Unauthorized(message, headers={"www-authenticate": f'Bearer realm="homereel"{detail}'})


def _source(origin: str) -> str:
    """Return the host and port of an origin; nothing if it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return the lower-case name in a Host header, without its port and the root's full stop."""
    found = _HOST.fullmatch(host)
    return (found[1] if found else host).lower().removesuffix(".")
