"""The prompt library over the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from server.deps import Services
from server.jobs import Owner
from server.library import Library, OwnTemplate
from server.prompts import Template, shipped
from tests.server.routes.conftest import refused

OWN = {
    "name": "Mine",
    "text": "{what} rolls[ over {where}]",
    "slots": [
        {"name": "what", "label": "What", "suggestions": ["a ball"]},
        {"name": "where", "label": "Where", "required": False},
    ],
}


def made(client: TestClient, path: str, body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def texts(client: TestClient, **query: Any) -> list[str]:
    answer = client.get("/v1/prompts/log", params=query)
    assert answer.status_code == 200, answer.text
    return [entry["prompt"] for entry in answer.json()["data"]]


def test_own_templates_stand_beside_those_that_ship(client: TestClient) -> None:
    own = made(client, "/v1/prompts/templates", OWN)
    listed = client.get("/v1/prompts/templates").json()["data"]
    assert [template["id"] for template in listed] == [*shipped(), own["id"]]
    assert [template["shipped"] for template in listed] == [True] * 7 + [False]
    assert client.get(f"/v1/prompts/templates/{own['id']}").json() == own
    assert client.delete(f"/v1/prompts/templates/{own['id']}").json()["deleted"] is True
    assert refused(client.get(f"/v1/prompts/templates/{own['id']}"), 404)["code"] == "template_not_found"
    assert refused(client.delete("/v1/prompts/templates/two-shot"))["code"] == "template_is_shipped"


def test_a_template_of_ones_own_is_changed_in_its_place(client: TestClient) -> None:
    own = made(client, "/v1/prompts/templates", OWN)
    assert own["revision"] == 1
    path = f"/v1/prompts/templates/{own['id']}"
    renamed = made(client, path, {"name": "Still mine"})
    assert renamed == own | {"name": "Still mine", "revision": 2}
    text = {"text": "{what} stands still", "slots": OWN["slots"][:1]}
    assert made(client, path, text | {"revision": 2})["text"] == "{what} stands still"
    assert client.get(path).json()["revision"] == 3
    assert [template["id"] for template in client.get("/v1/prompts/templates").json()["data"]][-1] == own["id"]


def test_a_change_of_somebody_else_is_not_overwritten(client: TestClient) -> None:
    own = made(client, "/v1/prompts/templates", OWN)
    path = f"/v1/prompts/templates/{own['id']}"
    theirs = made(client, path, {"name": "Theirs", "revision": 1})
    error = refused(client.post(path, json={"name": "Ours", "revision": 1}), 409)
    assert (error["code"], error["param"]) == ("template_changed", "revision")
    assert "revision 2" in error["message"]
    assert client.get(path).json() == theirs
    assert made(client, path, {"name": "Ours"})["revision"] == 3


def test_a_change_that_meets_another_is_made_to_what_that_left(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the write, somebody else writes: nothing of either change is lost."""
    own = made(client, "/v1/prompts/templates", OWN)
    change, others = Library.change_template, ["in between"]

    def meet(self: Library, seen: OwnTemplate, template: Template, owner: Owner) -> OwnTemplate:
        if others:
            change(self, seen, seen.template.model_copy(update={"description": others.pop()}), owner)
        return change(self, seen, template, owner)

    monkeypatch.setattr(Library, "change_template", meet)
    after = made(client, f"/v1/prompts/templates/{own['id']}", {"name": "Ours"})
    assert (after["name"], after["description"], after["revision"]) == ("Ours", "in between", 3)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"text": "{other} rolls"}, "invalid_template", "text"),
        ({"name": ""}, "invalid_value", "name"),
        ({"revision": 0}, "invalid_value", "revision"),
        ({"colour": "red"}, "unknown_parameter", "colour"),
    ],
)
def test_a_change_that_is_not_well_formed_changes_nothing(
    client: TestClient, change: dict[str, Any], code: str, param: str
) -> None:
    own = made(client, "/v1/prompts/templates", OWN)
    error = refused(client.post(f"/v1/prompts/templates/{own['id']}", json=change))
    assert (error["code"], error["param"]) == (code, param)
    assert client.get(f"/v1/prompts/templates/{own['id']}").json() == own


def test_what_ships_or_is_not_there_is_not_changed(client: TestClient) -> None:
    error = refused(client.post("/v1/prompts/templates/two-shot", json={"name": "Mine"}))
    assert error["code"] == "template_is_shipped"
    own = made(client, "/v1/prompts/templates", OWN)
    client.delete(f"/v1/prompts/templates/{own['id']}")
    gone = client.post(f"/v1/prompts/templates/{own['id']}", json={"name": "Mine"})
    assert refused(gone, 404)["code"] == "template_not_found"


def test_two_beats_of_both_kinds_compose_a_prompt_that_can_be_made(client: TestClient) -> None:
    own = made(client, "/v1/prompts/templates", OWN)
    hold = {slot.name: slot.suggestions[0] for slot in shipped()["close-up-hold"].slots if slot.required}
    beats = [{"template": own["id"], "slots": {"what": "a ball"}}, {"template": "close-up-hold", "slots": hold}]
    prompt = made(client, "/v1/prompts/compose", {"beats": beats})["prompt"]
    assert prompt.startswith("A ball rolls. Then, an extreme close-up of the weathered face")
    assert made(client, "/v1/videos", {"prompt": prompt})["prompt"] == prompt


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"beats": []}, 400, "beats"),
        ({"beats": [{"template": "two-shot"}] * 3}, 400, "beats"),
        ({"beats": [{"template": "two-shot", "slots": {}}]}, 400, "beats[0].slots.framing"),
        ({"beats": [{"template": "nothing"}]}, 404, None),
        ({"beat": []}, 400, "beat"),
    ],
    ids=str,
)
def test_what_cannot_be_composed_is_refused(client: TestClient, body: Any, status: int, param: str | None) -> None:
    assert refused(client.post("/v1/prompts/compose", json=body), status)["param"] == param


def test_a_template_that_is_not_well_formed_is_refused(client: TestClient) -> None:
    error = refused(client.post("/v1/prompts/templates", json=OWN | {"text": "{what} rolls [off"}))
    assert error["code"] == "invalid_template"
    assert len(client.get("/v1/prompts/templates").json()["data"]) == 7


def test_a_prompt_is_starred_once_and_pages_follow_each_other(client: TestClient) -> None:
    stars = [made(client, "/v1/prompts/starred", {"prompt": f"ball {i}", "note": "n"}) for i in range(3)]
    assert made(client, "/v1/prompts/starred", {"prompt": "ball 1"}) == stars[1]
    first = client.get("/v1/prompts/starred", params={"limit": 2}).json()
    assert ([star["prompt"] for star in first["data"]], first["has_more"]) == (["ball 2", "ball 1"], True)
    rest = client.get("/v1/prompts/starred", params={"after": first["last_id"]}).json()
    assert ([star["prompt"] for star in rest["data"]], rest["has_more"]) == (["ball 0"], False)
    assert client.delete(f"/v1/prompts/starred/{stars[1]['id']}").json()["deleted"] is True
    error = refused(client.delete(f"/v1/prompts/starred/{stars[1]['id']}"), 404)
    assert error["code"] == "starred_prompt_not_found"
    refused(client.get("/v1/prompts/starred", params={"after": "x"}))


def test_the_log_finds_prompts_by_words_and_their_beginnings(client: TestClient, create: Callable[..., str]) -> None:
    for prompt in ("A red ball, bouncing", "a café at NIGHT_fall", 'the "red" kite', "a red ball, rolling"):
        create(prompt=prompt)
    assert texts(client, q="red") == ["a red ball, rolling", 'the "red" kite', "A red ball, bouncing"]
    assert texts(client, q="BALL roll") == ["a red ball, rolling"]
    assert texts(client, q="cafe") == ["a café at NIGHT_fall"]
    assert texts(client, q="night") == ["a café at NIGHT_fall"]
    for odd in ('"red" AND', "red*", "red' OR '1'='1", "prompt:red", "NEAR(red kite)", "-red", "red ) ("):
        assert client.get("/v1/prompts/log", params={"q": odd}).status_code == 200
    assert texts(client, q="all") == []
    assert texts(client, q="red", model="sora-2-pro") == []
    assert refused(client.get("/v1/prompts/log", params={"q": "*!"}))["param"] == "q"


def test_the_log_groups_runs_pages_through_them_and_forgets_what_is_deleted(
    client: TestClient, create: Callable[..., str]
) -> None:
    ids = [create(prompt=prompt) for prompt in ("red one", "red two", "red two", "blue")]
    log = client.get("/v1/prompts/log", params={"q": "red"}).json()
    assert [[video["id"] for video in entry["videos"]] for entry in log["data"]] == [[ids[2], ids[1]], [ids[0]]]
    page = client.get("/v1/prompts/log", params={"q": "red", "limit": 1}).json()
    assert page["has_more"] is True
    assert texts(client, q="red", after=page["last_id"]) == ["red two", "red one"]
    assert [video["id"] for video in client.get("/v1/videos", params={"q": "blue"}).json()["data"]] == [ids[3]]
    client.delete(f"/v1/videos/{ids[0]}")
    assert texts(client, q="red") == ["red two"]
    refused(client.get("/v1/prompts/log", params={"after": "x"}))


def test_the_index_lets_go_of_what_is_gone_for_good(services: Services, create: Callable[..., str]) -> None:
    from server.jobs import JobId

    gone = JobId(create(prompt="heliotrope"))
    services.store.delete(gone)
    services.store.forget(gone)
    with services.store.engine.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM prompt_search").scalar_one() == 0


def test_two_runs_differ_in_what_was_changed(client: TestClient, create: Callable[..., str]) -> None:
    a = create(prompt="a red ball on grass", seed=1, num_inference_steps=4)
    b = create(prompt="a blue ball on grass", seed=2, num_inference_steps=4)
    diff = client.get("/v1/prompts/diff", params={"a": a, "b": b}).json()
    assert {(d["name"], d["a"], d["b"]) for d in diff["differences"]} == {
        ("prompt", "a red ball on grass", "a blue ball on grass"),
        ("seed", 1, 2),
    }
    assert [(word["kind"], word["text"].strip()) for word in diff["words"]] == [
        ("same", "a"),
        ("removed", "red"),
        ("added", "blue"),
        ("same", "ball on grass"),
    ]
    same = client.get("/v1/prompts/diff", params={"a": a, "b": a}).json()
    assert same["differences"] == []
    assert refused(client.get("/v1/prompts/diff", params={"a": a, "b": "x"}), 404)["code"] == "video_not_found"
    refused(client.get("/v1/prompts/diff", params={"a": a}))
