from __future__ import annotations

import json

from scripts.export_openapi import SNAPSHOT, document


def test_the_api_is_what_was_reviewed() -> None:
    reviewed = json.loads(SNAPSHOT.read_text())
    assert document() == reviewed, "run scripts/export_openapi.py, read the diff, commit it"


def test_every_refusal_is_described_as_the_envelope() -> None:
    for path, operations in document()["paths"].items():
        for method, operation in operations.items():
            schema = operation["responses"]["4XX"]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}, (method, path)
            assert "422" not in operation["responses"], (method, path)


def test_descriptions_refer_to_nothing_outside() -> None:
    text = json.dumps(document())
    schemas = document()["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert references <= set(schemas)
