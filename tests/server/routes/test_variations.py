"""One prompt, several videos: all of them or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.deps import Services
from server.jobs import JobId
from server.store import JobStore
from tests.server.routes.conftest import PROMPT, files_in, picture, refused

VARIATIONS = "/v1/videos/variations"


def made(client: TestClient, **parameters: Any) -> dict[str, Any]:
    answer = client.post(VARIATIONS, json=PROMPT | parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_pair_of_a_model_and_a_seed_makes_a_video(client: TestClient) -> None:
    group = made(client, models=["sora-2", "homereel-mini"], seeds=[3, 1], seconds=2)
    assert (group["object"], group["id"][:6]) == ("video.group", "group_")
    assert [(video["model"], video["seed"]) for video in group["data"]] == [
        ("sora-2", 3),
        ("sora-2", 1),
        ("homereel-mini", 3),
        ("homereel-mini", 1),
    ]
    assert {video["group"] for video in group["data"]} == {group["id"]}
    assert [video["queue_position"] for video in group["data"]] == [1, 2, 3, 4]
    assert {video["seconds"] for video in group["data"]} == {"2"}


def test_a_group_can_be_listed_in_its_order(client: TestClient) -> None:
    first, second = made(client, n=3), made(client, n=2)
    listed = client.get(f"/v1/videos?group={first['id']}&order=asc").json()["data"]
    assert [video["id"] for video in listed] == [video["id"] for video in first["data"]]
    assert len(client.get(f"/v1/videos?group={second['id']}").json()["data"]) == 2
    assert client.get("/v1/videos?group=group_1").json()["data"] == []


def test_n_draws_seeds_or_counts_up_from_one(client: TestClient) -> None:
    drawn = {video["seed"] for video in made(client, n=4)["data"]}
    assert len(drawn) == 4
    assert [video["seed"] for video in made(client, n=3, seed=7)["data"]] == [7, 8, 9]
    assert len(made(client)["data"]) == 1


def test_a_form_carries_lists(client: TestClient) -> None:
    parts = [("prompt", (None, "a")), ("seeds[]", (None, "1")), ("seeds[]", (None, "2"))]
    parts += [("models[]", (None, "homereel-mini"))]
    answer = client.post(VARIATIONS, files=parts)
    assert [video["seed"] for video in answer.json()["data"]] == [1, 2]


def test_each_has_the_picture(client: TestClient, store: JobStore) -> None:
    content = picture()
    files = [("prompt", (None, "a")), ("n", (None, "3")), ("input_reference", ("x.png", content))]
    videos = client.post(VARIATIONS, files=files).json()["data"]
    client.delete(f"/v1/videos/{videos[0]['id']}")
    for video in videos[1:]:
        [condition] = store.get(JobId(video["id"])).request.conditions
        assert condition.path.read_bytes() == content


def test_all_or_none(client: TestClient, services: Services, tmp_path: Path) -> None:
    made(client, n=18)
    files = [("prompt", (None, "a")), ("n", (None, "3")), ("input_reference", ("x.png", picture()))]
    assert refused(client.post(VARIATIONS, files=files), 429)["code"] == "queue_full"
    assert len(services.store.waiting()) == 18
    assert files_in(tmp_path / "assets") == []
    made(client, n=2)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"n": "many"}, "n"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": 5}, "seeds"),
        ({"seeds": ["x"]}, "seeds"),
        ({"seeds": [-1]}, "seed"),
        ({"seeds": [2**32]}, "seed"),
        ({"seeds": [1], "n": 2}, "seeds"),
        ({"seeds": [1], "seed": 2}, "seeds"),
        ({"seed": 2**32 - 1, "n": 2}, "n"),
        ({"models": []}, "models"),
        ({"models": ["sora-2", "sora-2"]}, "models"),
        ({"models": ["sora-2"], "model": "sora-2"}, "models"),
        ({"models": ["sora-2", "no-such-model"]}, "model"),
        ({"models": ["sora-2", "sora-2-pro"], "n": 33}, "n"),
        ({"size": "1x1"}, "size"),
        ({"prompt": ""}, "prompt"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_makes_no_sense_is_refused(
    client: TestClient, services: Services, change: dict[str, Any], param: str
) -> None:
    assert refused(client.post(VARIATIONS, json=PROMPT | change))["param"] == param
    assert services.store.waiting() == ()


def test_create_says_where_variations_are(client: TestClient) -> None:
    for name, value in (("n", 2), ("seeds", [1]), ("models", ["sora-2"])):
        error = refused(client.post("/v1/videos", json=PROMPT | {name: value}))
        assert error["param"] == name
        assert VARIATIONS in error["message"]
