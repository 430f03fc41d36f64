"""Models are fetched over the API: by a real process, from a hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines import snapshot
from pipelines.registry import load_registry
from server.app import create_app
from server.deps import Services
from server.keys import KeyStore
from server.settings import Settings
from tests.hub_server import Hub, serving
from tests.server.cli.test_pull import MODEL, REPO, checkpoint

GATED, LIMITED = "ltx-2.5", "minimax-h3"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(REPO, checkpoint())) as served:
        yield served


@pytest.fixture
def client(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: card.weights.repo is None)
    monkeypatch.setattr("server.routes.models.installed", lambda card: card.weights.repo is None)
    for name, value in hub.environment(tmp_path / "hf").items():
        monkeypatch.setenv(name, value)
    settings = Settings(data_dir=tmp_path / "data")
    with TestClient(create_app(settings, supervise=False), base_url="http://127.0.0.1") as client:
        yield client


def ended(client: TestClient, model: str = MODEL) -> dict[str, Any]:
    """Wait for the process, and return what is told of it then."""
    app: Any = client.app
    services: Services = app.state.services
    thread = services.pulls._thread
    assert thread is not None
    thread.join()
    return client.get(f"/v1/models/{model}/pull").json()


def test_a_model_is_fetched_and_its_progress_told(client: TestClient, tmp_path: Path) -> None:
    assert client.get(f"/v1/models/{MODEL}/pull").status_code == 404
    begun = client.post(f"/v1/models/{MODEL}/pull", json={})
    assert begun.status_code == 202, begun.text
    assert begun.json()["object"] == "model.pull"
    state = ended(client)
    assert state["status"] == "completed"
    assert state["bytes_done"] == state["bytes_total"] > 900_000
    assert not snapshot.missing(snapshot.snapshot_folder(tmp_path / "hf" / "hub", REPO, "main"))
    listed = {model["id"]: model for model in client.get("/v1/models?all=true").json()["data"]}
    assert listed[MODEL]["pull"] == state


def test_what_the_hub_does_not_have_is_said_at_once(client: TestClient, hub: Hub) -> None:
    hub.repo = "somebody/else"
    refused = client.post(f"/v1/models/{MODEL}/pull", json={})
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "download_failed"
    assert ended(client)["error"]["message"] == refused.json()["error"]["message"]


def test_a_licence_that_asks_something_is_accepted_by_name_first(client: TestClient) -> None:
    card = load_registry().cards[LIMITED]
    for body in ({}, {"accept_licence": "MIT"}):
        refused = client.post(f"/v1/models/{LIMITED}/pull", json=body)
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("licence_not_accepted", "accept_licence")
        assert card.licence.duties[0] in error["message"]
    accepted = client.post(f"/v1/models/{LIMITED}/pull", json={"accept_licence": card.licence.id})
    # The hub of this test has another model only.
    assert accepted.json()["error"]["code"] == "download_failed"


def test_what_is_here_and_what_there_is_not_are_refused(client: TestClient) -> None:
    here = client.post("/v1/models/homereel-mini/pull", json={})
    assert (here.status_code, here.json()["error"]["code"]) == (409, "model_installed")
    assert client.post("/v1/models/nothing/pull", json={}).status_code == 404
    assert client.delete("/v1/models/nothing/pull").status_code == 404
    assert client.post(f"/v1/models/{MODEL}/pull", json={"licence": "x"}).json()["error"]["param"] == "licence"


def test_a_cancelled_one_keeps_what_has_arrived(client: TestClient, hub: Hub) -> None:
    assert client.delete(f"/v1/models/{MODEL}/pull").status_code == 404
    client.post(f"/v1/models/{MODEL}/pull", json={})
    state = client.delete(f"/v1/models/{MODEL}/pull").json()
    assert state["status"] in {"cancelled", "completed"}
    assert client.post(f"/v1/models/{MODEL}/pull", json={}).status_code == 202
    assert ended(client)["status"] == "completed"


def test_keys_fetch_nothing_unless_the_operator_lets_them(client: TestClient) -> None:
    app: Any = client.app
    services: Services = app.state.services
    key = KeyStore(services.store.engine).create("ann").secret
    headers = {"authorization": f"Bearer {key}"}
    refused = client.post(f"/v1/models/{MODEL}/pull", json={}, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "pulls_not_allowed")
    app.state.services = replace(services, settings=services.settings.model_copy(update={"allow_pulls": True}))
    assert client.post(f"/v1/models/{MODEL}/pull", json={}, headers=headers).status_code == 202
    assert client.get(f"/v1/models/{MODEL}/pull", headers=headers).json()["model"] == MODEL
