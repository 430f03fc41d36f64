"""What every answer tells a browser: guess no types, run nothing but what a page of ours may, let nobody frame it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from server import web

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NEVER = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# A page is made of files of this server alone; what it shows may also be pictures and clips that it holds in memory.
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; manifest-src 'self';"
    f" img-src 'self' blob: data:; media-src 'self' blob:; {_NEVER}"
)
# Whatever else is opened as a document, an upload of somebody's for example, is nothing that may run.
OTHERS = f"default-src 'none'; sandbox; {_NEVER}"

_ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    # Pages from elsewhere may not embed what they cannot read; one on another port of this machine may.
    "cross-origin-resource-policy": "same-site",
}


class SafeHeaders:
    """ASGI middleware: adds these headers to every answer that does not have them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_page = headers.get("content-type", "").startswith("text/html")
                # "Not modified" has no type, and what it says in its headers replaces what the browser had of them.
                is_page |= message["status"] == 304 and scope["path"] == web.PAGE
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                headers.setdefault("content-security-policy", PAGE if is_page else OTHERS)
                if is_page:
                    # No window that opened the page, or that it opened, may reach into it.
                    headers.setdefault("cross-origin-opener-policy", "same-origin")
            await send(message)

        await self._app(scope, receive, send_safe)
