"""A server, somebody with one of each thing, and somebody else with a key of their own."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.deps import Services
from server.jobs import JobId
from server.keys import KeyStore
from tests.server.routes.conftest import Hand, app_in, picture

LINE = {"custom_id": "a", "method": "POST", "url": "/v1/videos", "body": {"prompt": "a red ball"}}
BATCH = {"endpoint": "/v1/videos", "completion_window": "24h"}


@dataclass
class World:
    """A server with things of one key, by kind, and three callers.

    Attributes:
        ann: Owns everything.
        bob: Has a key and nothing else.
        anybody: Has no key.
        things: The id of each of Ann's things.
    """

    client: TestClient
    services: Services
    ann: dict[str, str]
    bob: dict[str, str]
    things: dict[str, str] = field(default_factory=dict[str, str])
    anybody: dict[str, str] = field(default_factory=dict[str, str])

    def ask(self, route: str, who: dict[str, str], *, path: str = "", body: Any = None) -> Any:
        method, template = route.split(" ")
        return self.client.request(method, path or template, headers=who, json=body)

    def filled(self, pattern: Any, things: dict[str, str]) -> Any:
        """Put ids in place of kinds, anywhere in a body or a path."""
        text = json.dumps(pattern)
        for kind, thing in things.items():
            text = text.replace(f"{{{kind}}}", thing)
        return json.loads(text)

    def ghosts(self) -> dict[str, str]:
        """Return ids that nothing has, as like those of Ann's things as can be."""
        return {kind: thing[:-1] + ("0" if thing[-1] != "0" else "1") for kind, thing in self.things.items()}

    def seen_by_ann(self) -> list[Any]:
        """Return everything that Ann can look at."""
        kinds = ("videos", "videos/characters", "files", "batches", "webhook_endpoints", "queue", "prompts/templates")
        kinds += ("prompts/starred", "prompts/log")
        return [self.client.get(f"/v1/{kind}", headers=self.ann).json() for kind in kinds]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@contextmanager
def world_in(folder: Path) -> Generator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.batch_runner.BatchRunner.tick", lambda self: False)
        # The endpoint is on nobody's machine.
        patch.setattr("server.delivery.send_sample", lambda *_: 200)
        app = app_in(folder / "data")
        with TestClient(app) as client:
            services: Services = app.state.services
            keys = KeyStore(services.store.engine)
            ann, bob = keys.create("ann"), keys.create("bob")
            world = World(client, services, bearer(ann.secret), bearer(bob.secret))
            fill(world, Hand(services, folder))
            yield world


def fill(world: World, hand: Hand) -> None:
    """Make one of each for Ann, over the wire."""

    def made(answer: Any) -> str:
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    post, ann, things = world.client.post, world.ann, world.things
    vision: dict[str, Any] = {"data": {"purpose": "vision"}, "files": {"file": ("a.png", picture())}}
    lines: dict[str, Any] = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", json.dumps(LINE))}}
    things["picture"] = made(post("/v1/files", headers=ann, **vision))
    things["requests"] = made(post("/v1/files", headers=ann, **lines))
    things["batch"] = made(post("/v1/batches", headers=ann, json={**BATCH, "input_file_id": things["requests"]}))
    portrait: dict[str, Any] = {"data": {"name": "Mossy"}, "files": {"video": ("a.png", picture())}}
    things["character"] = made(post("/v1/videos/characters", headers=ann, **portrait))
    things["done"] = made(post("/v1/videos", headers=ann, json={"prompt": "a red ball", "seconds": 2}))
    hand.finish(things["done"])
    world.services.assets.put_preview(JobId(things["done"]), b"RIFF preview")
    things["waiting"] = made(post("/v1/videos", headers=ann, json={"prompt": "a secret ball"}))
    group = post("/v1/videos/variations", headers=ann, json={"prompt": "a ball", "seeds": [1, 2]})
    things["group"] = made(group)
    template = {"name": "hers", "text": "{what} rolls", "slots": [{"name": "what", "label": "What"}]}
    things["template"] = made(post("/v1/prompts/templates", headers=ann, json=template))
    things["star"] = made(post("/v1/prompts/starred", headers=ann, json={"prompt": "a secret star"}))
    hook = {"name": "hers", "url": "https://93.184.215.14/hook", "event_types": ["batch.expired"]}
    things["endpoint"] = made(post("/v1/webhook_endpoints", headers=ann, json=hook))
