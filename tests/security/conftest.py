"""What the tests of attacks share: one app for all of a module's attacks, as good as new after each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.deps import Services
from server.store import JobStore
from tests.server.routes.conftest import app_in
from tests.server.routes.conftest import every_card_counts_as_installed as every_card_counts_as_installed


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attacked")


@pytest.fixture(scope="module")
def app(data_dir: Path) -> FastAPI:
    return app_in(data_dir)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def services(app: FastAPI, client: TestClient) -> Services:
    return app.state.services


@pytest.fixture
def store(services: Services) -> JobStore:
    return services.store


@pytest.fixture
def unharmed(client: TestClient, data_dir: Path) -> Iterator[None]:
    """After the attack there is nothing: no video, no file."""
    yield
    for video in client.get("/v1/videos").json()["data"]:
        client.delete(f"/v1/videos/{video['id']}")
        raise AssertionError(video)
    left = [path for path in (data_dir / "assets").rglob("*") if path.is_file()]
    for path in left:
        path.unlink()
    assert left == []
