"""POST /v1/videos/restore: the parameters of a file are those that make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.media import METADATA_KEY, provenance
from pipelines.types import SourceClip
from server.deps import Services
from server.errors import InvalidRequest
from server.jobs import JobId
from server.restoring import restored
from tests.server.routes.conftest import files_in, movie, refused, send_movie


def told(made: Any) -> bytes:
    """A small clip of ours that says it was made like this."""
    return movie(frames=2, comment=json.dumps({METADATA_KEY: made}))


def made_of(services: Services, video_id: str) -> dict[str, Any]:
    job = services.store.get(JobId(video_id))
    return provenance(job.request, services.registry.cards[job.card], {"torch": "2.13"})


def test_what_a_file_says_makes_the_same_request_again(client: TestClient, services: Services) -> None:
    asked = {
        "prompt": "a red ball; it's = a 'test' \\ of # marks\nin two lines, ü",
        "negative_prompt": "text",
        "seconds": "2",
        "size": "96x160",
        "seed": 5,
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
        "step_cache": 0.05,
    }
    first = client.post("/v1/videos", json=asked).json()
    answer = send_movie(client, "/v1/videos/restore", told(made_of(services, first["id"])))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["warnings"] == []
    assert found["parts"] == []
    assert found["made_by"]["versions"] == {"torch": "2.13"}
    second = client.post("/v1/videos", json=found["parameters"])
    assert second.status_code == 200, second.text
    requests = [services.store.get(JobId(id_)).request for id_ in (first["id"], second.json()["id"])]
    assert requests[0] == requests[1]


def test_nothing_is_kept(client: TestClient, services: Services) -> None:
    video = client.post("/v1/videos", json={"prompt": "a red ball"}).json()
    before = files_in(services.settings.assets_dir)
    assert send_movie(client, "/v1/videos/restore", told(made_of(services, video["id"]))).status_code == 200
    refused(send_movie(client, "/v1/videos/restore", movie(frames=2)))
    assert files_in(services.settings.assets_dir) == before


@pytest.mark.parametrize(
    "said",
    [{}, {"prompt": "a"}, {"prompt": 3}, {"joined": [{"video": "x", "start_frame": 0}]}],
    ids=str,
)
def test_a_file_that_does_not_say_is_refused(services: Services, said: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        restored(said, services)
    assert (caught.value.code, caught.value.param) == ("no_metadata", "video")


@pytest.mark.parametrize("said", [[], "words"], ids=str)
def test_metadata_of_another_kind_is_none(client: TestClient, said: Any) -> None:
    assert refused(send_movie(client, "/v1/videos/restore", told(said)))["code"] == "no_metadata"


def test_values_that_no_request_may_have_are_refused(client: TestClient, services: Services) -> None:
    made = made_of(services, client.post("/v1/videos", json={"prompt": "a red ball"}).json()["id"])
    for change in ({"prompt": ""}, {"prompt": "a" * 40_000}, {"size": "huge"}, {"seed": 2**80}):
        with pytest.raises(InvalidRequest) as caught:
            restored(made | change, services)
        assert caught.value.code == "no_metadata"


def test_what_is_no_video_is_refused_like_other_uploads(client: TestClient) -> None:
    for content in (b"no film at all", movie(frames=2)[:500]):
        assert refused(send_movie(client, "/v1/videos/restore", content))["code"] == "invalid_video"
    assert refused(client.post("/v1/videos/restore", json={}))["code"] == "missing_parameter"
    assert refused(client.post("/v1/videos/restore", json={"video": {"id": "video_1"}}))["code"] == "invalid_type"
    assert refused(send_movie(client, "/v1/videos/restore", movie(), prompt="x"))["code"] == "unknown_parameter"


def test_what_is_missing_here_is_said(client: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_of(services, client.post("/v1/videos", json={"prompt": "a red ball"}).json()["id"])

    def warnings(**changes: Any) -> list[str]:
        return restored(made | changes, services).warnings

    assert any("no model elsewhere" in said for said in warnings(model="elsewhere"))
    assert any("revision" in said for said in warnings(revision="older"))
    assert any("LoRA" in said for said in warnings(loras=[{"name": "grain", "weight": 0.5}]))
    assert any("picture" in said for said in warnings(conditions=[{"frame": 0}]))
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: False)
    assert any("homereel pull homereel-mini" in said for said in warnings())


def test_an_extension_gives_the_length_of_what_was_new(services: Services, make_request: Any) -> None:
    source = SourceClip(Path("source.mp4"), make_request().shape._replace(frames=16), "extend", "before")
    longer = make_request().delivery._replace(frames=32)
    request = make_request(source=source, delivery=longer, conditions=())
    made = provenance(request, services.registry.cards["homereel-mini"], {})
    found = restored(made, services)
    assert found.parameters["seconds"] == "2"
    assert any("extended another video" in said for said in found.warnings)
