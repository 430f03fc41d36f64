from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.export_openapi import SNAPSHOT, document

ENVELOPE = {"$ref": "#/components/schemas/ErrorEnvelope"}


def operations(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_api_is_what_was_reviewed() -> None:
    reviewed = json.loads(SNAPSHOT.read_text())
    assert document() == reviewed, "run scripts/export_openapi.py, read the diff, commit it"


def test_every_refusal_and_every_fault_is_described_as_the_envelope() -> None:
    for path, method, operation in operations(document()):
        for status in ("4XX", "5XX"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == ENVELOPE, (method, path)
        assert "422" not in operation["responses"], (method, path)


def test_every_operation_has_a_short_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations(document())]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 40 for name in names)


@pytest.mark.parametrize(
    ("maker", "followers"),
    [
        ("create_video", {"retrieve_video", "download_content", "delete_video", "remix_video", "cancel_video"}),
        ("remix_video", {"retrieve_video"}),
        ("create_file", {"retrieve_file", "download_file", "delete_file"}),
        ("create_batch", {"retrieve_batch", "cancel_batch"}),
        ("create_webhook_endpoint", {"retrieve_webhook_endpoint", "delete_webhook_endpoint"}),
    ],
)
def test_what_is_made_leads_to_what_can_be_done_with_it(maker: str, followers: set[str]) -> None:
    described = document()
    answers = {operation["operationId"]: operation["responses"] for _, _, operation in operations(described)}
    links = answers[maker]["200"]["links"]
    assert followers <= set(links)
    assert {name: link["$ref"].rpartition("/")[2] for name, link in links.items()} == {name: name for name in links}
    assert all(described["components"]["links"][name]["operationId"] == name for name in links)


def test_descriptions_refer_to_nothing_outside() -> None:
    text = json.dumps(document())
    schemas = document()["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert references <= set(schemas)
