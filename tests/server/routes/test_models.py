from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.plan import Device, numbers_of
from server.deps import Services
from tests.server.routes.conftest import refused


def test_models_are_listed_with_their_aliases_and_what_they_can(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    by_name = {model["id"]: model for model in listed["data"]}
    assert {"sora-2", "sora-2-pro", "homereel-mini"} <= set(by_name)
    alias = by_name["sora-2"]
    assert (alias["object"], alias["card"], alias["shutdown_date"]) == ("model", "homereel-mini", None)
    assert isinstance(alias["created"], int)
    assert alias["owned_by"]
    assert {"text", "first_frame"} <= set(alias["capabilities"])
    assert {"references", "edit", "extend"} <= set(alias["capabilities"])
    assert (alias["sizes"][0], alias["fps"], alias["max_seconds"], alias["max_references"]) == ("160x96", 8, 20.0, 1)
    assert (alias["max_extensions"], alias["max_total_seconds"]) == (6, 120.0)
    assert (alias["licence"], alias["licence_note"], alias["installed"]) == ("Apache-2.0", "", True)
    assert alias["licence_url"].startswith("https://www.apache.org/")
    assert {**by_name["homereel-mini"], "id": "sora-2"} == alias


@pytest.mark.parametrize("name", ["sora-2", "homereel-mini"])
def test_one_model_is_described_as_in_the_list(client: TestClient, name: str) -> None:
    one = client.get(f"/v1/models/{name}").json()
    assert one in client.get("/v1/models").json()["data"]
    assert one["id"] == name


def test_models_say_what_they_need_and_whether_that_is_here(services: Services, client: TestClient) -> None:
    def found(gib: float | None) -> dict[str, Any]:
        size = int((gib or 0) * 2**30)
        gpu = Device("cuda:0", "a GPU", size, 2**40, 2**40, (8, 9), numbers_of((8, 9)))
        object.__setattr__(services, "device", lambda: None if gib is None else gpu)
        return {model["id"]: model for model in client.get("/v1/models?all=true").json()["data"]}

    small, large, unknown = found(6), found(12), found(None)
    assert small["wan2.1-t2v-1.3b"]["min_vram_mb"] < 6 * 2**30 / 1e6 < small["wan2.1-t2v-14b"]["min_vram_mb"]
    names = ("homereel-mini", "wan2.1-t2v-1.3b", "wan2.1-t2v-14b")
    assert [small[name]["fits_device"] for name in names] == [True, True, False]
    assert [large[name]["fits_device"] for name in names] == [True, True, True]
    assert [unknown[name]["fits_device"] for name in names] == [None, None, None]


def test_an_unknown_model_is_not_found(client: TestClient) -> None:
    error = refused(client.get("/v1/models/no-such-model"), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert "sora-2" in error["message"]


def test_models_without_weights_are_not_offered(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: False)
    assert client.get("/v1/models").json()["data"] == []
    others = client.get("/v1/models?all=true").json()["data"]
    assert {"homereel-mini", "wan2.1-t2v-1.3b"} <= {other["id"] for other in others}
    assert not any(other["installed"] for other in others)
    for error in (
        refused(client.get("/v1/models/homereel-mini"), 404),
        refused(client.post("/v1/videos", json={"prompt": "a"})),
    ):
        assert (error["code"], error["param"]) == ("weights_missing", "model")
        assert error["message"].startswith("The weights of homereel-mini are not on this machine. They ship with")


def test_models_say_how_much_is_fetched(client: TestClient) -> None:
    every = {model["id"]: model for model in client.get("/v1/models?all=true").json()["data"]}
    full, distilled, packed = (every[f"wan2.2-t2v-a14b{kind}"]["files_mb"] for kind in ("", "-lightning", "-q4"))
    assert full == pytest.approx(2 * every["wan2.2-t2v-a14b"]["parameters"] / 1e6)
    # Two LoRAs more, and two denoisers of five bits a weight instead of sixteen.
    assert distilled - full == pytest.approx(2 * 2 * 306.7, rel=0.01)
    assert packed - (full - 2 * 2 * 14288) == pytest.approx(2 * 9652, rel=0.01)
