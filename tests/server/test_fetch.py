from __future__ import annotations

import functools
import io
import itertools
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme

from server import fetch
from server.fetch import AddressRefused, FetchError, FetchFailed, check_public, is_public, pinned_client
from server.settings import Settings
from tests.server.web_servers import WebServer, sends, web_server

GUARDED = Settings(data_dir=Path("/nowhere"))
OPEN = Settings(data_dir=Path("/nowhere"), allow_private_fetch=True)
# Both are this machine; the tests take one for the internet, the other for what only this machine can reach.
OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.1"


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.215.14", "100.128.0.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.127.255.255", "100.100.100.200", "192.0.0.192", "192.0.2.1"),
        *("198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1", "239.255.255.250", "240.0.0.1"),
        *("255.255.255.255", "192.88.99.1", "168.63.129.16"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "2606:4700:4700::1111%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("fec0::1", "2001:db8::1", "3fff::1", "100::1", "::127.0.0.1", "::1.1.1.1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::101:101"),
        *("2002:7f00:1::", "2002:101:101::", "2001:0:101:101::"),
        *("", "localhost", "1.1.1", "01.1.1.1"),
    ],
)
def test_every_other_address_is_not(address: str) -> None:
    assert not is_public(address)


def knows(**hosts: Sequence[str]) -> Callable[[str, int], Sequence[str]]:
    """Return a resolver; dashes in the hosts' names are underscores here, dots double ones."""
    table = {name.replace("__", ".").replace("_", "-"): addresses for name, addresses in hosts.items()}

    def resolve(host: str, port: int) -> Sequence[str]:
        if host not in table:
            raise OSError("unknown")
        return table[host]

    return resolve


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "no url",
            "//host/x",
            "/x",
            "file:///etc/passwd",
            "ftp://host/",
            "gopher://host/",
            "data:,x",
            "https:///x",
        ),
        *("javascript:alert(1)", "https://user@host/", "https://user:secret@host/", "http://:pw@host/"),
        *("https://[::1", "https://host:99999999/", "https://\ud800/", "http://a b/", "https://h/" + "x" * 5000),
    ],
)
def test_what_is_not_a_plain_web_address_is_refused_before_any_name_is_looked_up(url: str) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError(host)

    for settings in (GUARDED, OPEN):
        with pytest.raises(AddressRefused):
            check_public(url, settings, resolve)


@pytest.mark.parametrize(
    "url",
    ["http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://[::ffff:7f00:1]/"],
)
def test_numbers_are_addresses_in_every_notation(url: str) -> None:
    with pytest.raises(FetchError):
        check_public(url, GUARDED)


def test_all_addresses_of_a_name_must_be_public() -> None:
    resolve = knows(good=["1.1.1.1", "2606:4700::1"], bad=["1.1.1.1", "10.0.0.1"], empty=[])
    assert check_public("https://good/x?y=1", GUARDED, resolve).host == "good"
    with pytest.raises(AddressRefused, match="bad is not an address of the public internet"):
        check_public("https://bad/", GUARDED, resolve)
    assert check_public("https://bad/", OPEN, resolve)
    for url in ("https://empty/", "https://unknown/"):
        with pytest.raises(FetchFailed, match="no address"):
            check_public(url, GUARDED, resolve)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server(OUTSIDE) as server:
        yield server


@pytest.fixture
def inside() -> Iterator[WebServer]:
    with web_server(INSIDE) as server:
        yield server


@pytest.fixture(autouse=True)
def one_address_counts_as_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda address: address == OUTSIDE or is_public(address))


def fetched(url: str, settings: Settings = GUARDED, max_bytes: int = 1000, **client: Any) -> bytes:
    into = io.BytesIO()
    client = {"resolve": knows(outside=[OUTSIDE], inside=[INSIDE]), **client}
    open_client = functools.partial(pinned_client, **client)
    fetch.fetch(url, into, settings, max_bytes=max_bytes, open_client=open_client)
    return into.getvalue()


def test_content_is_fetched_with_nothing_that_says_who_asks(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens there: a request that went through the proxy would fail.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answers["/a"] = sends(b"picture", set_cookie="id=7; Path=/", content_type="text/html")
    assert fetched(f"http://outside:{server.port}/a") == b"picture"
    (asked,) = server.asked
    assert asked["host"] == f"outside:{server.port}"
    assert set(asked) <= {":path", "host", "accept", "accept-encoding", "connection", "user-agent"}


def test_private_addresses_can_be_allowed(inside: WebServer) -> None:
    inside.answers["/a"] = sends(b"picture")
    url = f"http://inside:{inside.port}/a"
    with pytest.raises(AddressRefused):
        fetched(url)
    assert inside.asked == []
    assert fetched(url, OPEN) == b"picture"


def test_redirects_are_followed_three_times(server: WebServer) -> None:
    for number in range(4):
        server.answers[f"/{number}"] = sends(b"", 302, location=f"/{number + 1}", set_cookie="id=7")
    server.answers["/4"] = sends(b"picture")
    assert fetched(f"http://outside:{server.port}/1") == b"picture"
    assert all("cookie" not in asked for asked in server.asked)
    with pytest.raises(FetchFailed, match="redirects more than 3 times"):
        fetched(f"http://outside:{server.port}/0")


@pytest.mark.parametrize(
    "target", ["http://inside:{port}/secret", "http://127.0.0.1:{port}/secret", "file:///etc/passwd"]
)
def test_a_redirect_to_a_place_that_may_not_be_asked_is_refused(
    server: WebServer, inside: WebServer, target: str
) -> None:
    def resolve(host: str, port: int) -> Sequence[str]:
        return {"outside": [OUTSIDE], "inside": [INSIDE]}.get(host, [host])

    inside.answers["/secret"] = sends(b"secret")
    server.answers["/a"] = sends(b"", 307, location=target.format(port=inside.port))
    with pytest.raises(AddressRefused):
        fetched(f"http://outside:{server.port}/a", resolve=resolve)
    assert inside.asked == []


def test_the_address_that_was_looked_at_is_the_one_that_is_asked(server: WebServer, inside: WebServer) -> None:
    """DNS rebinding: the name leads to a public address when it is checked, to a private one a moment later."""
    lookups: list[str] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        lookups.append(host)
        return [OUTSIDE] if len(lookups) == 1 else [INSIDE]

    server.answers["/a"] = sends(b"picture")
    assert fetched(f"http://rebinding:{server.port}/a", resolve=resolve) == b"picture"
    assert lookups == ["rebinding"]
    with pytest.raises(AddressRefused):
        fetched(f"http://rebinding:{server.port}/a", resolve=resolve)
    assert inside.asked == []


def test_a_redirect_to_the_same_name_is_looked_at_anew(server: WebServer, inside: WebServer) -> None:
    answers = itertools.chain([[OUTSIDE]], itertools.repeat([INSIDE]))
    server.answers["/a"] = sends(b"", 302, location="/secret")
    with pytest.raises(AddressRefused):
        fetched(f"http://rebinding:{server.port}/a", resolve=lambda host, port: next(answers))
    assert len(server.asked) == 1


def test_the_next_address_is_tried_where_nobody_answers(server: WebServer) -> None:
    server.answers["/a"] = sends(b"picture")
    # Nothing listens at that address.
    addresses = ["127.0.0.3", OUTSIDE]
    assert fetched(f"http://two:{server.port}/a", OPEN, resolve=lambda host, port: addresses) == b"picture"


def test_names_and_certificates_stay_those_of_the_url(server: WebServer) -> None:
    authority = trustme.CA()
    names: list[str | None] = []
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("outside").configure_cert(ours)
    ours.sni_callback = lambda connection, name, context: names.append(name)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    resolve = knows(outside=[OUTSIDE], other=[OUTSIDE])
    with web_server(OUTSIDE, tls=ours) as secure:
        secure.answers["/a"] = sends(b"picture")
        url = f"https://outside:{secure.port}/a"
        assert fetched(url, verify=theirs, resolve=resolve) == b"picture"
        assert names == ["outside"]
        assert secure.asked[0]["host"] == f"outside:{secure.port}"
        with pytest.raises(FetchFailed):
            fetched(f"https://other:{secure.port}/a", verify=theirs, resolve=resolve)
        with pytest.raises(FetchFailed):
            fetched(url, resolve=resolve)
        assert len(secure.asked) == 1


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x" * 10_000)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (sends(b"x" * 1001), "larger than"),
        (endless, "larger than"),
        (sends(b"", 404), "status 404"),
        (sends(b"partial", 206), "status 206"),
        (sends(b"packed", content_encoding="gzip"), "compressed"),
        (sends(b"", 302), "redirects|URL"),
        (lambda handler: handler.wfile.write(b"not HTTP at all\r\n\r\n"), "could not be asked"),
        (lambda handler: None, "could not be asked"),
    ],
)
def test_what_does_not_answer_properly_is_refused(server: WebServer, answer: Any, complaint: str) -> None:
    server.answers["/a"] = answer
    with pytest.raises(FetchFailed, match=complaint):
        fetched(f"http://outside:{server.port}/a")


def test_as_much_as_is_allowed_is_taken(server: WebServer) -> None:
    server.answers["/a"] = sends(b"x" * 1000)
    assert len(fetched(f"http://outside:{server.port}/a", max_bytes=1000)) == 1000


def test_nobody_listening_is_an_error_like_others() -> None:
    with web_server(OUTSIDE) as server:
        pass
    with pytest.raises(FetchFailed, match="could not be asked"):
        fetched(f"http://outside:{server.port}/a")


def test_the_deadline_covers_the_whole_exchange(server: WebServer) -> None:
    """Every wait is short enough by itself; it is their sum that counts."""
    held = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b"x")
            handler.wfile.flush()
        held.wait(60)

    server.answers["/a"] = drip
    # Ten seconds pass between any two looks at the clock.
    clock = itertools.count(0, 10)
    try:
        with pytest.raises(FetchFailed, match="too long"):
            fetched(f"http://outside:{server.port}/a", total_s=35, now=lambda: next(clock))
    finally:
        held.set()


def test_a_resolver_that_hangs_is_waited_for_no_longer_than_the_deadline() -> None:
    held = threading.Event()

    def resolve(host: str, port: int) -> Sequence[str]:
        held.wait(60)
        return []

    try:
        with pytest.raises(FetchFailed, match="too long"):
            fetched("http://slow/", resolve=resolve, total_s=0.05)
    finally:
        held.set()


def test_other_callers_get_a_client_with_the_same_guard(server: WebServer, inside: WebServer) -> None:
    resolve = knows(outside=[OUTSIDE], inside=[INSIDE])
    server.answers["/hook"] = sends(b"", 302, location="/elsewhere")
    with pinned_client(GUARDED, total_s=10, resolve=resolve) as client:
        assert client.get(f"http://outside:{server.port}/hook").status_code == 302
        with pytest.raises(AddressRefused):
            client.post(f"http://inside:{inside.port}/hook", content=b"{}")
        with pytest.raises(httpx2.ConnectError):
            client.get("http://outside:1/")
    assert inside.asked == []
