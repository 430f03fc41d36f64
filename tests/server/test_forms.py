from __future__ import annotations

import io
from typing import Any

import anyio
import pytest
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from server.errors import InvalidRequest
from server.forms import LARGE_BYTES, Landing, nest, open_body, parse_object


@pytest.mark.parametrize(
    ("parts", "fields"),
    [
        ([("prompt", "a"), ("seconds", "4")], {"prompt": "a", "seconds": "4"}),
        ([("prompt", "")], {"prompt": ""}),
        ([("a[b][c][]", "1"), ("a[b][c][]", "2")], {"a": {"b": {"c": ["1", "2"]}}}),
        ([("loras[]", "x"), ("loras[]", "x")], {"loras": ["x", "x"]}),
        ([("c[][id]", "A"), ("c[][id]", "B")], {"c": [{"id": "A"}, {"id": "B"}]}),
        ([("c[][id]", "A"), ("c[][n]", "1"), ("c[][id]", "B")], {"c": [{"id": "A", "n": "1"}, {"id": "B"}]}),
        (
            [("c[][a][b]", "1"), ("c[][a][d]", "2"), ("c[][a][b]", "3")],
            {"c": [{"a": {"b": "1", "d": "2"}}, {"a": {"b": "3"}}]},
        ),
        ([("r[image_url]", "data:")], {"r": {"image_url": "data:"}}),
        ([], {}),
    ],
)
def test_flattened_names_become_the_tree_they_were(parts: list[tuple[str, str]], fields: dict[str, Any]) -> None:
    assert nest(parts) == fields


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([("seed", "1"), ("seed", "1")], "duplicate_parameter"),
        ([("a[b]", "1"), ("a[b]", "2")], "duplicate_parameter"),
        ([("a[b]", "1"), ("a", "2")], "duplicate_parameter"),
        ([("a", "1"), ("a[b]", "2")], "invalid_value"),
        ([("a[]", "1"), ("a[b]", "2")], "invalid_value"),
        ([("a[b]", "1"), ("a[]", "2")], "invalid_value"),
        ([("a[b", "1")], "invalid_value"),
        ([("[a]", "1")], "invalid_value"),
        ([("a]b[", "1")], "invalid_value"),
        ([("", "1")], "invalid_value"),
        ([("a" + "[b]" * 9, "1")], "invalid_value"),
    ],
)
def test_names_that_contradict_each_other_are_refused(parts: list[tuple[str, str]], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        nest(parts)
    assert caught.value.code == code
    assert caught.value.param is not None


def test_a_file_field_that_was_left_empty_counts_as_not_there() -> None:
    left_empty = UploadFile(io.BytesIO(), size=0, filename="")
    chosen = UploadFile(io.BytesIO(b"x"), size=1, filename="x.png")
    assert nest([("input_reference", left_empty)]) == {}
    assert nest([("input_reference", chosen)]) == {"input_reference": chosen}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"  ",
        b"{",
        b"[1]",
        b'"a"',
        b"null",
        b"prompt=a+red+ball",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1, "a": 1}',
        b'{"a": {"b": 1, "b": 2}}',
        b"\xff\xfe\xfd",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
    ],
)
def test_json_is_taken_strictly(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_object(text)


def test_json_objects_keep_their_types() -> None:
    assert parse_object(b'{"prompt": "\\u00e9", "seed": 5, "x": [1.5, null, true]}') == {
        "prompt": "é",
        "seed": 5,
        "x": [1.5, None, True],
    }


def request_of(size: int) -> Request:
    """A request with a JSON body of so many bytes."""
    pieces = [b'{"prompt": "', b"a" * (size - 14), b'"}']

    async def receive() -> Message:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    return Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)


def test_large_bodies_are_parsed_a_few_at_a_time_and_small_ones_do_not_wait() -> None:
    seen: list[int] = []

    async def read(size: int, landing: Landing, leave: anyio.Event) -> None:
        async with open_body(request_of(size), 10 * LARGE_BYTES, landing) as body:
            seen.append(len(str(body.fields()["prompt"])) + 14)
            await leave.wait()

    async def scenario() -> None:
        landing, leave = Landing(large_at_once=2), anyio.Event()
        async with anyio.create_task_group() as readers:
            for _ in range(3):
                readers.start_soon(read, LARGE_BYTES + 1, landing, leave)
            with anyio.fail_after(30):
                while len(seen) < 2 or not landing.large.statistics().tasks_waiting:  # noqa: ASYNC110 - it has no event
                    await anyio.sleep(0.001)
                gone = anyio.Event()
                gone.set()
                await read(LARGE_BYTES, landing, gone)
            assert seen == [LARGE_BYTES + 1, LARGE_BYTES + 1, LARGE_BYTES]
            leave.set()
        assert seen[3:] == [LARGE_BYTES + 1]

    anyio.run(scenario)
