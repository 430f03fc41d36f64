"""Requests to addresses that clients name. They must not reach what only this machine can reach.

Every address that a name leads to must be public, and the connection goes to an address that was looked at: there is
no second look-up that could answer differently. Neither redirects nor proxies from the environment are followed
unasked, and one deadline covers everything from the look-up of the name to the last byte.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import httpcore2
import httpx2

if TYPE_CHECKING:
    import ssl

    from server.settings import Settings

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
"""From a host and a port to the addresses behind it, as text.

Raises:
    OSError: There are none.
"""

MAX_URL = 4096
MAX_PORT = 65_535
REDIRECTS = 3
TOTAL_S = 30.0
# A name or an address; an IPv6 address without brackets and without a zone.
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_REDIRECT = frozenset({301, 302, 303, 307, 308})
# Global unicast; whatever else IPv6 has is local, reserved, or IPv4 in disguise.
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
# How networks without IPv4 write the addresses of the rest of the internet (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, and the metadata service of a cloud
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "168.63.129.16/32",  # Azure's platform, which answers its own virtual machines only
        "2001::/32",  # Teredo: IPv4 inside
        "2002::/16",  # 6to4: IPv4 inside
        "3fff::/20",  # documentation
    )
)


class FetchError(Exception):
    """An address could not be used; the message is for whoever named it."""

    code = "fetch_failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class AddressRefused(FetchError):
    """The address is of a kind that is never asked."""

    code = "address_not_allowed"


class FetchFailed(FetchError):
    """It was asked, and did not answer as it should."""


def system_resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Tell whether an IP address belongs to the public internet, in whichever way it is written."""
    try:
        # A zone names one of this machine's interfaces.
        ip = ipaddress.ip_address(address) if "%" not in address else None
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _IPV6_UNICAST:
            return False
    if ip is None or not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip in network for network in _NOT_PUBLIC)


def parse_url(url: str) -> httpx2.URL:
    """Return an http or https URL that names a host and nothing secret. Nobody is asked.

    Raises:
        AddressRefused: It is something else.
    """
    if len(url) > MAX_URL:
        raise AddressRefused(f"The URL is longer than {MAX_URL} characters.")
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise AddressRefused("This is not a URL that can be read.") from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise AddressRefused("The URL must start with https:// or http:// and name a host.")
    if not _HOST.fullmatch(_host_of(parsed)) or not 0 < _port_of(parsed) <= MAX_PORT:
        raise AddressRefused("The URL's host or port cannot be read.")
    if parsed.userinfo:
        raise AddressRefused("The URL must not contain a user name or a password.")
    return parsed


def check_public(url: str, settings: Settings, resolve: Resolve = system_resolve) -> httpx2.URL:
    """Return the URL if it may be asked: every address of its host is public, or the settings allow others.

    Raises:
        AddressRefused: It may not.
        FetchFailed: Its host cannot be found.
    """
    parsed = parse_url(url)
    _checked_addresses(_host_of(parsed), _port_of(parsed), resolve, allow_private=settings.allow_private_fetch)
    return parsed


def _host_of(url: httpx2.URL) -> str:
    """Return the host as it is looked up: not in the letters that its owner writes it with."""
    return url.raw_host.decode("ascii")


def _port_of(url: httpx2.URL) -> int:
    return url.port if url.port is not None else {"http": 80, "https": 443}[url.scheme]


def pinned_client(
    settings: Settings,
    *,
    total_s: float = TOTAL_S,
    resolve: Resolve = system_resolve,
    now: Callable[[], float] = time.monotonic,
    verify: ssl.SSLContext | bool = True,
) -> httpx2.Client:
    """Return a client for one exchange, which must be over ``total_s`` seconds from now.

    It looks at the addresses itself whenever it connects; a request raises ``FetchError`` where they may not be
    asked, ``httpx2.HTTPError`` where the exchange fails. It follows no redirects.
    """
    pool = httpcore2.ConnectionPool(
        ssl_context=httpx2.create_ssl_context(verify=verify),
        max_keepalive_connections=0,
        network_backend=_PinnedBackend(resolve, _Deadline(total_s, now), allow_private=settings.allow_private_fetch),
    )
    return httpx2.Client(transport=_PoolTransport(pool), timeout=total_s, follow_redirects=False, trust_env=False)


def fetch(
    url: str,
    target: BinaryIO,
    settings: Settings,
    *,
    max_bytes: int,
    open_client: Callable[[Settings], httpx2.Client] = pinned_client,
) -> None:
    """Write what is at the URL into ``target``: at most ``max_bytes``, after at most three redirects.

    What the other side calls it counts nothing; whoever reads the bytes must look at them.

    Raises:
        AddressRefused: The URL, or one that it redirects to, may not be asked.
        FetchFailed: There is no such thing, it is too large or takes too long.
    """
    place = parse_url(url)
    try:
        with open_client(settings) as client:
            for _ in range(REDIRECTS + 1):
                # Compressed answers could be a thousand times what was sent.
                headers = {"accept": "image/*, video/*;q=0.8", "accept-encoding": "identity"}
                with client.stream("GET", place, headers=headers) as answer:
                    if answer.status_code not in _REDIRECT:
                        return _keep(answer, target, max_bytes)
                    place = parse_url(str(place.join(answer.headers.get("location", ""))))
                # Cookies are how one site could make us carry something to another.
                client.cookies.clear()
    except httpx2.TimeoutException as error:
        raise FetchFailed(f"{place.host} took too long to answer.") from error
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
        raise FetchFailed(f"{place.host} could not be asked: {type(error).__name__}.") from error
    raise FetchFailed(f"The URL redirects more than {REDIRECTS} times.")


def _keep(answer: httpx2.Response, target: BinaryIO, max_bytes: int) -> None:
    host = answer.url.host
    if answer.status_code != 200:
        raise FetchFailed(f"{host} answered with status {answer.status_code}.")
    if answer.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise FetchFailed(f"{host} sends it compressed, which it was asked not to.")
    kept = 0
    for chunk in answer.iter_raw():
        kept += len(chunk)
        if kept > max_bytes:
            raise FetchFailed(f"What {host} sends is larger than {max_bytes / 1e6:g} MB.")
        rest = memoryview(chunk)
        while rest:
            # A file without a buffer may take less than it is given.
            rest = rest[target.write(rest) :]


class _Deadline:
    """The moment at which everything must be over."""

    def __init__(self, total_s: float, now: Callable[[], float]) -> None:
        self._now = now
        self._end = now() + total_s

    def left_s(self, late: type[Exception], at_most: float | None = None) -> float:
        """Return the seconds that are left, or raise ``late``."""
        left = self._end - self._now()
        if left <= 0:
            raise late("the time for the whole exchange is over")
        return left if at_most is None else min(left, at_most)


def _checked_addresses(host: str, port: int, resolve: Resolve, *, allow_private: bool) -> Sequence[str]:
    try:
        addresses = list(dict.fromkeys(resolve(host, port)))
    except (OSError, UnicodeError) as error:
        raise FetchFailed(f"There is no address for {host}.") from error
    if not addresses:
        raise FetchFailed(f"There is no address for {host}.")
    if not allow_private and not all(is_public(address) for address in addresses):
        raise AddressRefused(
            f"{host} is not an address of the public internet. "
            "Whoever runs this server can permit that with HOMEREEL_ALLOW_PRIVATE_FETCH."
        )
    return addresses


class _PinnedBackend(httpcore2.NetworkBackend):
    """Connects to checked addresses only; names and certificates stay those of the URL."""

    def __init__(self, resolve: Resolve, deadline: _Deadline, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._deadline = deadline
        self._allow_private = allow_private
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Resolve, look at all addresses, connect to the first that answers."""
        failure: Exception = httpcore2.ConnectError(host)
        for address in self._addresses(host, port):
            left_s = self._deadline.left_s(httpcore2.ConnectTimeout, timeout)
            try:
                stream = self._sockets.connect_tcp(address, port, left_s, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def _addresses(self, host: str, port: int) -> Sequence[str]:
        """Look the name up in a thread, as the system's resolver knows no time limit."""
        outcome: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()

        def look_up() -> None:
            try:
                outcome.put(_checked_addresses(host, port, self._resolve, allow_private=self._allow_private))
            except Exception as error:  # noqa: BLE001 - raised where the answer is waited for
                outcome.put(error)

        left_s = self._deadline.left_s(httpcore2.ConnectTimeout)
        threading.Thread(target=look_up, name="resolve", daemon=True).start()
        try:
            found = outcome.get(timeout=left_s)
        except Empty as error:
            raise httpcore2.ConnectTimeout(host) from error
        if isinstance(found, Exception):
            raise found
        return found


class _TimedStream(httpcore2.NetworkStream):
    """A connection whose every wait ends at the deadline: a drop of data now and then does not extend it."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has come."""
        return self._stream.read(max_bytes, self._deadline.left_s(httpcore2.ReadTimeout, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write everything."""
        self._stream.write(buffer, self._deadline.left_s(httpcore2.WriteTimeout, timeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Return the connection, encrypted."""
        left_s = self._deadline.left_s(httpcore2.ConnectTimeout, timeout)
        return _TimedStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the connection knows of itself."""
        return self._stream.get_extra_info(info)


class _PoolTransport(httpx2.BaseTransport):
    """Lets a client use a pool of ours; its own transport offers no way to say how connections are made."""

    def __init__(self, pool: httpcore2.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request."""
        url = request.url
        sent = httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=cast("Iterable[bytes]", request.stream),
            extensions=request.extensions,
        )
        with _translated():
            answer = self._pool.handle_request(sent)
        return httpx2.Response(
            answer.status,
            headers=answer.headers,
            stream=_PoolStream(answer),
        )

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class _PoolStream(httpx2.SyncByteStream):
    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _translated():
            yield from cast("Iterable[bytes]", self._answer.stream)

    def close(self) -> None:
        self._answer.close()


@contextmanager
def _translated() -> Generator[None]:
    """Raise the pool's errors as the client's."""
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise httpx2.TimeoutException(str(error)) from error
    except httpcore2.ConnectError as error:
        raise httpx2.ConnectError(str(error)) from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol) as error:
        raise httpx2.TransportError(str(error)) from error
