"""Addresses that clients name (SSRF): however they are written, another port of this machine is never reached.

Nothing but the system's resolver is replaced. The trap listens on every address of the loopback interface; who connects
to it has got through, whatever is answered then.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server import delivery, fetch
from server.deps import Services
from server.jobs import NOBODY, JobError, JobId, WorkerId
from server.outbox import EventType
from server.settings import Settings
from tests.server.routes.conftest import movie, picture, refused
from tests.server.web_servers import sends, web_server

PUBLIC_ADDRESS, OUTSIDE = "93.184.215.14", "127.0.0.2"


class Trap:
    """A listening socket that counts who connects, on IPv4 and IPv6."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port: int = self._socket.getsockname()[1]
        self.caught = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.caught += 1
                connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture(scope="module")
def open_trap() -> Iterator[Trap]:
    trap = Trap()
    yield trap
    trap.close()


@pytest.fixture
def trap(open_trap: Trap) -> Iterator[Trap]:
    yield open_trap
    assert open_trap.caught == 0


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What names lead to, one list of addresses for every look-up; the last one stays."""
    table: dict[str, list[list[str]]] = {}
    asked = socket.getaddrinfo

    def look_up(host: str, port: int, *rest: Any, **named: Any) -> Any:
        answers = table.get(host.removesuffix("."))
        if answers is None:
            return asked(host, port, *rest, **named)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


def test_the_trap_catches_whoever_gets_through(tmp_path: Path) -> None:
    trap, careless = Trap(), Settings(data_dir=tmp_path, allow_private_fetch=True)
    for host in ("127.0.0.1", "[::1]", "localhost"):
        with pytest.raises(fetch.FetchFailed):
            fetch.fetch(f"http://{host}:{trap.port}/", io.BytesIO(), careless, max_bytes=9)
    assert trap.caught == 3
    trap.close()


LOOPBACK = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://LOCALHOST.:{port}/", "http://127.1:{port}/",
    "http://127.0.1:{port}/", "http://2130706433:{port}/", "http://0x7f000001:{port}/", "http://0x7f.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/", "http://127.255.255.254:{port}/", "http://0.0.0.0:{port}/", "http://0:{port}/",
    "http://[::1]:{port}/", "http://[::]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/", "http://[::127.0.0.1]:{port}/", "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/", "http://[::1%25lo]:{port}/", "http://[fe80::1%25lo]:{port}/",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}/",
    "http://127。0。0。1:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://example.com@127.0.0.1:{port}/", "http://127.0.0.1:{port}\\@example.com/", "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1\t:{port}/", "http://127.0.0.1:{port}/\r\nHost: example.com", " http://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}/",
    "//127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_GET", "file://127.0.0.1:{port}/etc/passwd", "ftp://127.0.0.1:{port}/",
    "http://inside.example:{port}/", "http://mixed.example:{port}/", "http://mapped.example:{port}/",
    "http://metadata.example/latest/meta-data/", "http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/",
]  # fmt: skip


@pytest.fixture
def loopback(names: dict[str, list[list[str]]]) -> None:
    names["inside.example"] = [["127.0.0.1"]]
    names["mixed.example"] = [[PUBLIC_ADDRESS, "127.0.0.1"]]
    names["mapped.example"] = [["::ffff:127.0.0.1"]]
    names["metadata.example"] = [["169.254.169.254"]]


REFUSALS = {"address_not_allowed", "fetch_failed"}


@pytest.mark.usefixtures("loopback", "unharmed")
@pytest.mark.parametrize("url", LOOPBACK)
def test_no_picture_is_fetched_from_inside(client: TestClient, trap: Trap, url: str) -> None:
    reference = {"image_url": url.format(port=trap.port)}
    error = refused(client.post("/v1/videos", json={"prompt": "a red ball", "input_reference": reference}))
    assert (error["param"], error["code"] in REFUSALS) == ("input_reference.image_url", True)


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("url", LOOPBACK)
def test_no_webhook_leads_inside(client: TestClient, services: Services, trap: Trap, url: str) -> None:
    body = {"name": "x", "url": url.format(port=trap.port), "event_types": ["video.completed"]}
    answer = client.post("/v1/webhook_endpoints", json=body)
    if answer.status_code == 200:
        # A name that nobody knows: it may be known tomorrow. It is looked at again before anything is sent.
        endpoint = answer.json()["id"]
        sample = client.post(f"/v1/webhook_endpoints/{endpoint}/test", json={"event_type": "video.completed"})
        assert refused(sample)["code"] == "webhook_unreachable"
        client.delete(f"/v1/webhook_endpoints/{endpoint}")
    else:
        assert (refused(answer)["param"], refused(answer)["code"]) == ("url", "address_not_allowed")


def in_json(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos", json={"prompt": "x", "input_reference": {"image_url": url}})


def in_a_form(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos", files={"prompt": (None, "x"), "input_reference[image_url]": (None, url)})


def as_text(client: TestClient, url: str) -> Any:
    text = json.dumps({"image_url": url})
    return client.post("/v1/videos", files={"prompt": (None, "x"), "input_reference": (None, text)})


def as_last_frame(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos", json={"prompt": "x", "last_frame": {"image_url": url}})


def in_an_estimate(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos/estimate", json={"prompt": "x", "input_reference": {"image_url": url}})


def in_variations(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos/variations", json={"prompt": "x", "n": 2, "input_reference": {"image_url": url}})


def as_a_character(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos/characters", json={"name": "x", "image": {"image_url": url}})


def as_a_clip(client: TestClient, url: str) -> Any:
    return client.post("/v1/videos/edits", json={"prompt": "x", "video": {"video_url": url}})


WAYS = [
    in_json, in_a_form, as_text, as_last_frame, in_an_estimate, in_variations, as_a_character, as_a_clip
]  # fmt: skip


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_name_an_address_is_guarded(
    client: TestClient, trap: Trap, way: Callable[[TestClient, str], Any]
) -> None:
    refused(way(client, f"http://127.0.0.1:{trap.port}/"))


@pytest.mark.usefixtures("unharmed")
def test_a_batch_does_not_fetch_from_inside_either(client: TestClient, services: Services, trap: Trap) -> None:
    body = {"prompt": "x", "input_reference": {"image_url": f"http://127.0.0.1:{trap.port}/"}}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": body}
    upload = {"file": ("in.jsonl", json.dumps(line).encode())}
    file = client.post("/v1/files", data={"purpose": "batch"}, files=upload).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/videos", "completion_window": "24h"}
    batch = client.post("/v1/batches", json=asked).json()["id"]
    for _ in range(10_000):
        ended = client.get(f"/v1/batches/{batch}").json()
        if ended["status"] == "completed":
            break
    else:
        raise AssertionError("it never ended")
    assert ended["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert "address_not_allowed" in client.get(f"/v1/files/{ended['error_file_id']}/content").text


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/", "http://[::1]:{port}/", "//localhost:{port}/x"])
def test_no_redirect_leads_inside(
    client: TestClient, trap: Trap, monkeypatch: pytest.MonkeyPatch, status: int, target: str
) -> None:
    is_public = fetch.is_public
    monkeypatch.setattr(fetch, "is_public", lambda address: address == OUTSIDE or is_public(address))
    with web_server(OUTSIDE) as outside:
        outside.answers["/a.png"] = sends(b"", status, location=target.format(port=trap.port))
        error = refused(in_json(client, f"http://{OUTSIDE}:{outside.port}/a.png"))
        assert error["code"] == "address_not_allowed"
        assert [asked[":path"] for asked in outside.asked] == ["/a.png"]


@pytest.mark.usefixtures("unharmed")
def test_a_name_that_changes_its_mind_leads_nowhere(
    client: TestClient, trap: Trap, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the name is somebody's out there, until he sends whoever asks to the same name once more."""
    is_public = fetch.is_public
    monkeypatch.setattr(fetch, "is_public", lambda address: address == OUTSIDE or is_public(address))
    with web_server(OUTSIDE) as outside:
        names["rebinding.example"] = [[OUTSIDE], ["127.0.0.1"]]
        outside.answers["/a.png"] = sends(b"", 302, location=f"http://rebinding.example:{trap.port}/")
        error = refused(in_json(client, f"http://rebinding.example:{outside.port}/a.png"))
        assert error["code"] == "address_not_allowed"
        assert len(outside.asked) == 1


def test_a_webhook_whose_name_changes_its_mind_is_not_delivered(
    client: TestClient, services: Services, trap: Trap, names: dict[str, list[list[str]]]
) -> None:
    """The address is public when the endpoint is made, and inside when there is something to deliver."""
    names["rebinding.example"] = [[PUBLIC_ADDRESS]]
    body = {"name": "x", "url": f"http://rebinding.example:{trap.port}/", "event_types": ["video.failed"]}
    endpoint = client.post("/v1/webhook_endpoints", json=body).json()["id"]
    names["rebinding.example"] = [["127.0.0.1"]]
    video = client.post("/v1/videos", json={"prompt": "x"}).json()["id"]
    assert services.store.claim(JobId(video), WorkerId("w"), 60)
    assert services.store.fail(JobId(video), WorkerId("w"), JobError("bad_output", "It is black."))
    queue = delivery.DeliveryQueue(services.store.engine, services.now)
    # The app's own thread may be at it already.
    for found in queue.claim({}, 10):
        with pytest.raises(fetch.AddressRefused):
            delivery.send(services.post, "1", found, services.now())
    sample = client.post(f"/v1/webhook_endpoints/{endpoint}/test", json={"event_type": "video.failed"})
    assert refused(sample)["code"] == "webhook_unreachable"
    client.delete(f"/v1/webhook_endpoints/{endpoint}")
    client.delete(f"/v1/videos/{video}")


@pytest.mark.parametrize("inner", ["http://127.0.0.1:{port}/", "file:///etc/passwd"])
def test_what_was_fetched_is_not_followed(client: TestClient, trap: Trap, inner: str) -> None:
    """Pictures and clips may name further addresses inside; nobody reads them."""
    target = inner.format(port=trap.port)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>'.encode()
    refused(in_json(client, f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"))
    playlist = movie()[:24] + f"\n#EXTM3U\n#EXTINF:1,\n{target}\n".encode()
    files = {"video": ("x.mp4", playlist, "video/mp4")}
    refused(client.post("/v1/videos/edits", data={"prompt": "x"}, files=files))
    profile = picture("PNG") + f"\n{target}\n".encode()
    answer = in_json(client, f"data:image/png;base64,{base64.b64encode(profile).decode()}")
    client.delete(f"/v1/videos/{answer.json()['id']}")


def test_an_endpoint_for_events_of_nobody_else(services: Services) -> None:
    """Deliveries carry ids alone: whoever receives one by mistake learns nothing of a prompt."""
    sent = delivery.payload("evt_1", EventType.VIDEO_FAILED, "video_1", 1.0)
    assert set(json.loads(sent)) == {"id", "object", "created_at", "type", "data"}
    assert json.loads(sent)["data"] == {"id": "video_1"}
    assert services.endpoints.list(NOBODY, after=None, limit=10).endpoints == ()
