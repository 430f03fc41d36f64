"""Nobody sees, lists, downloads, uses, changes, stops or deletes what was made with another key: route by route.

Every route of the app has to be in the table, or the first test fails. For each of them, whoever names another key's
thing gets the very answer that they get for a thing that does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from server.auth import PUBLIC
from server.jobs import Owner
from server.keys import KeyStore
from server.web import is_page
from tests.server.routes.conftest import Hand
from tests.server.routes.route_table import (
    PARAMETERS,
    TABLE,
    Common,
    Listing,
    Making,
    Named,
    Open,
    Owned,
    Refused,
    Streaming,
)
from tests.server.routes.two_keys import BATCH, LINE, World, bearer, world_in

# Whatever differs between two answers to the same request.
PASSING = frozenset({"x-request-id", "openai-processing-ms", "date"})


@pytest.fixture(scope="module")
def shared(every_card_counts_as_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world in which strangers ask; nothing that they ask may change it."""
    with world_in(tmp_path_factory.mktemp("world")) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_in(tmp_path) as world:
        yield world


def routes_of(app: Any) -> set[str]:
    """Return method and path of everything that the app answers to, hidden routes included."""
    found: set[str] = set()

    def walk(routes: Any) -> None:
        for route in routes:
            if hasattr(route, "effective_candidates"):
                walk(route.effective_candidates())
            else:
                # Whatever has neither is a kind of route that this table cannot vouch for.
                found.update(f"{method} {route.path}" for method in route.methods)

    walk(app.routes)
    return found


def test_every_route_is_in_the_table(shared: World) -> None:
    app: Any = shared.client.app
    routes = routes_of(app)
    documented = {
        f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item if path != "/"
    }
    assert documented <= routes
    assert sorted(routes - set(TABLE)) == []
    assert sorted(set(TABLE) - routes) == []


def test_the_open_ones_are_those_of_the_guard() -> None:
    paths = {route.split(" ")[1] for route, row in TABLE.items() if isinstance(row, Open)}
    assert {path for path in paths if not is_page(path)} == PUBLIC


def rows(kind: type[Any]) -> list[Any]:
    return [pytest.param(route, row, id=route) for route, row in TABLE.items() if isinstance(row, kind)]


@pytest.mark.parametrize("route", [route for route, row in TABLE.items() if not isinstance(row, Open)])
def test_without_a_key_there_is_one_answer(shared: World, route: str) -> None:
    for things in (shared.things, shared.ghosts()):
        path = route.split(" ")[1]
        for name, kind in PARAMETERS.items():
            path = path.replace(name, things[kind])
        answer = shared.ask(route, shared.anybody, path=path, body={})
        assert answer.status_code == 401
        if not route.startswith("HEAD"):
            assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(("route", "row"), rows(Common))
def test_what_is_common_is_the_same_for_everybody(shared: World, route: str, row: Common) -> None:
    answers = [shared.ask(route, who, path=row.path) for who in (shared.ann, shared.bob)]
    assert [answer.status_code for answer in answers] == [200, 200]
    if route != "GET /metrics":
        assert answers[0].json() == answers[1].json()
    assert not any(thing in answer.text for thing in shared.things.values() for answer in answers)


@pytest.mark.parametrize(("route", "row"), rows(Refused))
def test_what_is_the_operators_no_key_gets(shared: World, route: str, row: Refused) -> None:
    for who in (shared.ann, shared.bob):
        answer = shared.ask(route, who, path=row.path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "invalid_request_error")


@pytest.mark.parametrize(("route", "row"), rows(Listing))
def test_lists_show_ones_own_things_only(shared: World, route: str, row: Listing) -> None:
    own = shared.ask(route, shared.ann).text
    assert all(shared.things[kind] in own for kind in row.kinds)
    for query in row.queries:
        pattern = route.split(" ")[1] + query
        told, ghostly = (
            shared.ask(route, shared.bob, path=shared.filled(pattern, things))
            for things in (shared.things, shared.ghosts())
        )
        assert told.status_code == 200
        assert told.json() == ghostly.json()
        assert not any(thing in told.text for thing in shared.things.values())
        assert told.json().get("data", []) == []


@pytest.mark.parametrize(("route", "row"), rows(Owned))
def test_what_everybody_is_shown_comes_with_ones_own_things_only(shared: World, route: str, row: Owned) -> None:
    own, told = shared.ask(route, shared.ann), shared.ask(route, shared.bob)
    assert all(shared.things[kind] in own.text for kind in row.kinds)
    assert told.status_code == 200
    assert told.json()["data"]
    assert not any(thing in told.text for thing in shared.things.values())


def answer_of(answer: Any, thing: str) -> tuple[Any, ...]:
    """Return everything that a client can tell about an answer, with the id that it named taken out."""
    headers = {name: value for name, value in answer.headers.items() if name not in PASSING}
    return answer.status_code, headers, answer.text.replace(thing, "ID")


@pytest.mark.parametrize(("route", "row"), rows(Named))
def test_somebody_elses_thing_does_not_exist(shared: World, route: str, row: Named) -> None:
    before = shared.seen_by_ann()
    for kind in row.kinds:
        answers: list[Any] = []
        for things in (shared.things, shared.ghosts()):
            path = with_id(route, things[kind]) + shared.filled(row.query, things)
            answers.append(answer_of(shared.ask(route, shared.bob, path=path, body=row.body), things[kind]))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
    assert shared.seen_by_ann() == before


def with_id(route: str, thing: str) -> str:
    path = route.split(" ")[1]
    for name in PARAMETERS:
        path = path.replace(name, thing)
    return path


@pytest.mark.parametrize(("route", "row"), rows(Making))
def test_nothing_is_made_from_somebody_elses_things(shared: World, route: str, row: Making) -> None:
    before = shared.seen_by_ann()
    for body in row.bodies:
        named, ghostly = (shared.filled(body, things) for things in (shared.things, shared.ghosts()))
        if named == body:
            continue
        (kind,) = (kind for kind, thing in shared.things.items() if thing in json.dumps(named))
        told = answer_of(shared.ask(route, shared.bob, body=named), shared.things[kind])
        assert told == answer_of(shared.ask(route, shared.bob, body=ghostly), shared.ghosts()[kind])
        assert told[0] == 404
    assert shared.client.get("/v1/videos", headers=shared.bob).json()["data"] == []
    assert shared.seen_by_ann() == before


def test_the_owner_gets_through_everywhere(world: World) -> None:
    """Otherwise the rows above would hold for routes that answer nobody."""
    refused: list[str] = []
    for route, row in TABLE.items():
        match row:
            case Named():
                path = with_id(route, world.things[row.kinds[0]]) + world.filled(row.query, world.things)
                answer = world.ask(route, world.ann, path=path, body=row.body)
                if answer.status_code not in {row.own, 204}:
                    refused.append(f"{route}: {answer.status_code} {answer.text}")
            case Making():
                for body in row.bodies:
                    answer = world.ask(route, world.ann, body=world.filled(body, world.things))
                    if answer.status_code != 200:
                        refused.append(f"{route} {body}: {answer.status_code} {answer.text}")
                drop_queue(world)
            case _:
                pass
    assert refused == []


def drop_queue(world: World) -> None:
    """Make room for the next, leaving what the table names."""
    for job in world.services.store.waiting():
        if job.id != world.things["waiting"]:
            world.services.store.delete(job.id)


def test_a_stream_tells_of_ones_own_videos_only(world: World) -> None:
    (route,) = (route for route, row in TABLE.items() if isinstance(row, Streaming))
    mine = world.client.post("/v1/videos", headers=world.bob, json={"prompt": "bob's own"}).json()["id"]
    told = heard(world, route.split(" ")[1], {**world.bob, "last-event-id": "0"}, until=mine)
    assert not any(thing in told for thing in world.things.values())
    assert world.things["waiting"] in heard(
        world, route.split(" ")[1], {**world.ann, "last-event-id": "0"}, until=world.things["waiting"]
    )


def heard(world: World, path: str, headers: dict[str, str], until: str) -> str:
    """Read an endless answer until something has been said in it."""
    said = bytearray()
    app: Any = world.client.app
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}

    async def listen() -> None:
        with anyio.fail_after(60), anyio.CancelScope() as listening:

            async def send(message: Any) -> None:
                said.extend(message.get("body", b""))
                if until.encode() in said:
                    listening.cancel()

            await app({**scope, "headers": raw, "http_version": "1.1", "root_path": ""}, anyio.sleep_forever, send)

    assert world.client.portal is not None
    world.client.portal.call(listen)
    return said.decode()


@pytest.mark.parametrize("headers", [{"idempotency-key": "one"}, {"x-stainless-retry-count": "1"}])
def test_the_same_request_with_another_key_is_another_video(world: World, headers: dict[str, str]) -> None:
    made = [
        world.client.post("/v1/videos", headers={**who, **headers}, json={"prompt": "a red ball"}).json()["id"]
        for who in (world.ann, world.bob, world.ann, world.bob)
    ]
    assert made[:2] == made[2:]
    assert made[0] != made[1]


def test_a_batch_makes_videos_with_its_own_key(world: World, tmp_path: Path) -> None:
    from server.batch_runner import BatchRunner

    runner = BatchRunner(world.services)
    stolen = {**LINE, "body": {"prompt": "a ball", "input_reference": {"file_id": world.things["picture"]}}}
    content = "\n".join(json.dumps(line) for line in (LINE, {**stolen, "custom_id": "b"}))
    files = {"file": ("in.jsonl", content)}
    file = world.client.post("/v1/files", headers=world.bob, data={"purpose": "batch"}, files=files).json()
    order = {**BATCH, "input_file_id": file["id"]}
    batch = world.client.post("/v1/batches", headers=world.bob, json=order).json()
    while runner.advance(world.services.batches.get(batch["id"])):
        pass
    made = world.client.get("/v1/videos", headers=world.bob).json()["data"]
    assert [video["prompt"] for video in made] == ["a red ball"]
    Hand(world.services, tmp_path).finish(made[0]["id"])
    while runner.advance(world.services.batches.get(batch["id"])):
        pass
    ended = world.client.get(f"/v1/batches/{batch['id']}", headers=world.bob).json()
    assert ended["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    for file_id in (ended["output_file_id"], ended["error_file_id"]):
        path = f"/v1/files/{file_id}/content"
        assert world.client.get(path, headers=world.bob).status_code == 200
        assert world.client.get(path, headers=world.ann).status_code == 404


def test_every_table_of_things_names_their_owner(shared: World) -> None:
    """A new table without an owner has to be listed here, with the reason."""
    from server.tables import metadata

    of_nobody = {
        "worker": "is the operator's",
        "control": "is the operator's",
        "timing": "is what models take, whoever asks",
        "api_key": "is the owner",
        "delivery": "belongs to a webhook endpoint",
        "batch_line": "belongs to a batch",
    }
    assert {table.name for table in metadata.sorted_tables if "owner" not in table.c} == set(of_nobody)


def test_a_key_that_takes_over_gets_through_everywhere(world: World) -> None:
    keys = KeyStore(world.services.store.engine)
    (ann,) = (key.id for key in keys.list() if key.name == "ann")
    world.ann = bearer(keys.create("ann again", adopt=Owner(ann)).secret)
    before = world.seen_by_ann()
    assert len(before[0]["data"]) == 4
    for route, row in TABLE.items():
        if isinstance(row, Named) and route.startswith("GET"):
            path = with_id(route, world.things[row.kinds[0]]) + world.filled(row.query, world.things)
            assert world.ask(route, world.ann, path=path).is_success, route
