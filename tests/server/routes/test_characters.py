"""Characters: kept under a name, shown by videos that ask for them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from server.deps import Services
from server.jobs import JobId
from server.store import JobStore
from tests.server.routes.conftest import app_in, files_in, movie, picture, refused, send_movie

CHARACTERS = "/v1/videos/characters"
PORTRAIT = picture()


def cast(client: TestClient, name: str = "Mossy", content: bytes | None = None) -> str:
    answer = send_movie(client, CHARACTERS, PORTRAIT if content is None else content, name=name)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_a_clip_becomes_a_character_with_a_still(client: TestClient, services: Services) -> None:
    answer = send_movie(client, CHARACTERS, movie(), name="Mossy")
    assert answer.status_code == 200, answer.text
    character = answer.json()
    assert character["id"].startswith("char_")
    assert (character["name"], character["object"], character["kind"]) == ("Mossy", "character", "video")
    assert isinstance(character["created_at"], int)
    assert client.get(f"{CHARACTERS}/{character['id']}").json() == character
    still = services.characters.picture(services.characters.get(character["id"]))
    with Image.open(still) as shown:
        assert (shown.format, shown.size) == ("PNG", (160, 96))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("param", ["video", "image"])
def test_a_picture_becomes_a_character_and_is_its_own_still(
    client: TestClient, services: Services, kind: str, param: str
) -> None:
    content = picture(kind)
    answer = client.post(CHARACTERS, data={"name": "Mossy"}, files={param: ("x.bin", content)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["kind"] == "image"
    assert services.characters.picture(services.characters.get(answer.json()["id"])).read_bytes() == content


def test_a_picture_can_come_as_a_data_url(client: TestClient) -> None:
    url = "data:image/png;base64," + base64.b64encode(picture()).decode()
    answer = client.post(CHARACTERS, json={"name": "Mossy", "image": {"image_url": url}})
    assert answer.status_code == 200, answer.text


def test_characters_are_listed_in_pages(client: TestClient) -> None:
    made = [cast(client, f"M{number}") for number in range(3)]
    first = client.get(f"{CHARACTERS}?limit=2").json()
    assert [one["id"] for one in first["data"]] == made[:0:-1]
    assert (first["has_more"], first["first_id"], first["last_id"]) == (True, made[2], made[1])
    last = client.get(f"{CHARACTERS}?limit=2&after={made[1]}").json()
    assert ([one["id"] for one in last["data"]], last["has_more"]) == (made[:1], False)
    ascending = client.get(f"{CHARACTERS}?order=asc").json()
    assert [one["id"] for one in ascending["data"]] == made
    assert refused(client.get(f"{CHARACTERS}?after=x"))["param"] == "after"


def test_a_deleted_character_is_gone_with_its_files(client: TestClient, tmp_path: Path) -> None:
    character = cast(client)
    assert client.delete(f"{CHARACTERS}/{character}").json() == {
        "id": character,
        "object": "character.deleted",
        "deleted": True,
    }
    assert files_in(tmp_path / "characters") == []
    for answer in (
        client.get(f"{CHARACTERS}/{character}"),
        client.delete(f"{CHARACTERS}/{character}"),
        client.post("/v1/videos", json={"prompt": "Mossy", "characters": [{"id": character}]}),
    ):
        assert refused(answer, 404)["code"] == "character_not_found"


@pytest.mark.parametrize("character", ["char_1", "char_" + "0" * 48, "..%2F..%2Fx"])
def test_an_unknown_character_is_not_found(client: TestClient, character: str) -> None:
    refused(client.get(f"{CHARACTERS}/{character}"), 404)


@pytest.mark.parametrize(
    ("name", "files", "param"),
    [
        ("", {"video": picture()}, "name"),
        ("   ", {"video": picture()}, "name"),
        ("x" * 81, {"video": picture()}, "name"),
        ("Mossy", {}, "video"),
        ("Mossy", {"video": b""}, "video"),
        ("Mossy", {"video": b"hello"}, "video"),
        ("Mossy", {"image": b"hello"}, "image"),
        ("Mossy", {"image": movie()}, "image"),
        ("Mossy", {"video": picture()[:-200]}, "video"),
        ("Mossy", {"video": picture("JPEG", (1200, 1000))}, "video"),
        ("Mossy", {"video": movie()[:3000]}, "video"),
        ("Mossy", {"video": movie(21, "64x64", 1)}, "video"),
        ("Mossy", {"video": picture(), "image": picture()}, "image"),
        ("Mossy", {"video": picture(), "portrait": picture()}, "portrait"),
    ],
)
def test_what_shows_no_character_is_refused_and_leaves_nothing(
    client: TestClient, tmp_path: Path, name: str, files: dict[str, bytes], param: str
) -> None:
    parts = [("name", (None, name)), *((part, ("x", content)) for part, content in files.items())]
    error = refused(client.post(CHARACTERS, files=parts))
    assert error["param"] == param
    assert files_in(tmp_path / "characters") == []
    assert client.get(CHARACTERS).json()["data"] == []


WAYS: dict[str, Callable[[TestClient, str], Any]] = {
    "json": lambda client, id_: client.post("/v1/videos", json={"prompt": "Mossy", "characters": [{"id": id_}]}),
    "json text": lambda client, id_: client.post(
        "/v1/videos", json={"prompt": "Mossy", "characters": json.dumps([{"id": id_}])}
    ),
    "brackets": lambda client, id_: client.post(
        "/v1/videos", files=[("prompt", (None, "Mossy")), ("characters[][id]", (None, id_))]
    ),
    "text part": lambda client, id_: client.post(
        "/v1/videos", files=[("prompt", (None, "Mossy")), ("characters", (None, json.dumps({"id": id_})))]
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_video_keeps_what_it_needs_of_its_characters(client: TestClient, store: JobStore, way: str) -> None:
    character = cast(client)
    answer = WAYS[way](client, character)
    assert answer.status_code == 200, answer.text
    assert not any("Mossy" in warning for warning in answer.json()["warnings"])
    client.delete(f"{CHARACTERS}/{character}")
    [reference] = store.get(JobId(answer.json()["id"])).request.references
    assert reference.read_bytes() == PORTRAIT


def test_a_name_that_the_prompt_leaves_out_is_a_warning(client: TestClient) -> None:
    body = {"prompt": "a red ball", "characters": [{"id": cast(client)}]}
    video = client.post("/v1/videos", json=body).json()
    assert "the prompt does not name the character 'Mossy'" in video["warnings"]


@pytest.mark.parametrize(
    "characters", [5, "x", {"id": 5}, [5], [{}], [{"id": 5}], [{"name": "Mossy"}], "[{", [[{"id": "char_1"}]]]
)
def test_what_is_no_list_of_characters_is_refused(client: TestClient, characters: Any) -> None:
    error = refused(client.post("/v1/videos", json={"prompt": "a", "characters": characters}))
    assert error["code"] in {"invalid_type", "invalid_body"}


def test_nobody_shows_the_same_one_twice_nor_three(client: TestClient) -> None:
    one, two, three = (cast(client, name) for name in ("A", "B", "C"))
    for ids in ([one, one], [one, two, three]):
        error = refused(client.post("/v1/videos", json={"prompt": "A", "characters": [{"id": id_} for id_ in ids]}))
        assert error["param"] == "characters"


def test_a_model_takes_as_many_as_its_card_says(client: TestClient, services: Services, store: JobStore) -> None:
    cards: Any = services.registry.cards
    mini = cards["homereel-mini"]
    cards["two"] = mini.model_copy(update={"id": "two", "max_references": 2})
    cards["none"] = mini.model_copy(
        update={"id": "none", "max_references": 0, "capabilities": mini.capabilities - {"references"}}
    )
    wanted: dict[str, Any] = {"prompt": "A and B", "characters": [{"id": cast(client, name)} for name in ("A", "B")]}
    job = store.get(JobId(client.post("/v1/videos", json=wanted | {"model": "two"}).json()["id"]))
    assert [path.name for path in job.request.references] == ["character_1.png", "character_2.png"]
    assert "at most 1" in refused(client.post("/v1/videos", json=wanted))["message"]
    error = refused(client.post("/v1/videos", json=wanted | {"model": "none"}))
    assert (error["param"], error["code"]) == ("characters", "unsupported_option")
    assert "Models here that can: homereel-mini, " in error["message"]


def test_a_model_that_looks_at_clips_gets_those_of_who_was_filmed(
    client: TestClient, services: Services, store: JobStore
) -> None:
    cards: Any = services.registry.cards
    update = {"id": "looks", "max_references": 3, "max_reference_clips": 1}
    cards["looks"] = cards["homereel-mini"].model_copy(update=update)
    film = movie()
    drawn, filmed = cast(client, "A"), cast(client, "B", film)
    body: dict[str, Any] = {"prompt": "A and B", "characters": [{"id": drawn}, {"id": filmed}]}
    job = store.get(JobId(client.post("/v1/videos", json=body | {"model": "looks"}).json()["id"]))
    assert [path.name for path in job.request.references] == ["character_1.png", "character_2.mp4"]
    assert job.request.references[1].read_bytes() == film
    kept = {path.name for path in files_in(job.request.references[0].parent)}
    assert kept == {"character_1.png", "character_2.mp4"}

    pictures = {**body, "model": "homereel-mini", "characters": [{"id": filmed}]}
    (reference,) = store.get(JobId(client.post("/v1/videos", json=pictures).json()["id"])).request.references
    assert reference.name == "character_1.png"
    with Image.open(reference) as shown:
        assert shown.size == (160, 96)

    both = {**body, "model": "looks", "characters": [{"id": filmed}, {"id": cast(client, "C", film)}]}
    names = store.get(JobId(client.post("/v1/videos", json=both).json()["id"])).request.references
    assert [path.name for path in names] == ["character_1.mp4", "character_2.png"]


def test_characters_are_there_after_a_restart(tmp_path: Path) -> None:
    with TestClient(app_in(tmp_path)) as client:
        character = cast(client)
    with TestClient(app_in(tmp_path)) as client:
        assert client.get(f"{CHARACTERS}/{character}").json()["name"] == "Mossy"


def test_what_a_crash_leaves_of_a_character_is_swept_up(client: TestClient, services: Services, tmp_path: Path) -> None:
    kept = cast(client)
    stray = tmp_path / "characters" / ("char_" + "0" * 48)
    stray.mkdir()
    (stray / "original.mp4").write_bytes(b"x")
    now = stray.stat().st_mtime
    assert services.characters.sweep(now) == 0
    assert services.characters.sweep(now + 1) == 1
    assert not stray.exists()
    assert client.get(f"{CHARACTERS}/{kept}").status_code == 200
