from __future__ import annotations

import json
import logging

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pipelines.errors import BadOutput, InvalidImage, UnknownModel, UnsupportedOption, UnsupportedShape, WeightsMissing
from server import errors
from server.assets import AssetMissing
from server.intake import QueueFull
from server.jobs import JobId
from server.store import JobNotFound
from server.telemetry import Metrics, Telemetry

VIDEO = JobId("video_1")


def answer_to(error: Exception) -> tuple[int, dict[str, str], dict[str, str | None]]:
    app = FastAPI()
    app.add_middleware(Telemetry, metrics=Metrics())
    errors.install(app)

    @app.get("/")
    def fails() -> None:
        raise error

    answer = TestClient(app).get("/")
    return answer.status_code, dict(answer.headers), answer.json()["error"]


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (UnknownModel("no", param="model"), 400, "model_not_found", "model"),
        (WeightsMissing("no", param="model"), 400, "weights_missing", "model"),
        (UnsupportedShape("no", param="size"), 400, "unsupported_shape", "size"),
        (UnsupportedOption("no", param="seed"), 400, "unsupported_option", "seed"),
        (InvalidImage("no", param="input_reference"), 400, "invalid_image", "input_reference"),
        (JobNotFound(VIDEO), 404, "video_not_found", "video_id"),
        (AssetMissing(VIDEO, "video"), 404, "content_not_found", None),
        (QueueFull(3), 429, "queue_full", None),
        (errors.PayloadTooLarge("no"), 413, "payload_too_large", None),
        (errors.ContentUnavailable("no"), 400, "video_not_ready", None),
        (ClientDisconnect(), 400, "incomplete_body", None),
        (HTTPException(418, "teapot"), 418, "invalid_request", None),
        (BadOutput("a stage of generation in the API"), 500, "internal_error", None),
        (RuntimeError("secret detail"), 500, "internal_error", None),
    ],
)
def test_each_exception_has_its_answer(error: Exception, status: int, code: str, param: str | None) -> None:
    got, headers, body = answer_to(error)
    assert (got, body["code"], body["param"]) == (status, code, param)
    assert set(body) == {"message", "type", "param", "code"}
    assert headers["x-request-id"]


def test_a_crash_is_logged_under_the_answers_request_id_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        _, headers, body = answer_to(RuntimeError("secret detail"))
    assert "secret" not in json.dumps(body)
    assert "secret detail" in caplog.text
    assert headers["x-request-id"] in caplog.text


def test_a_full_queue_says_when_to_come_back() -> None:
    _, headers, body = answer_to(QueueFull(3))
    assert int(headers["retry-after"]) > 0
    assert str(body["message"]).startswith("3 videos are waiting")


def test_content_that_is_not_there_is_not_asked_for_again() -> None:
    _, headers, _ = answer_to(errors.ContentUnavailable("no"))
    assert headers["x-should-retry"] == "false"


def test_what_utf8_cannot_carry_is_replaced() -> None:
    body = errors.envelope(400, "\ud800", "x", "\udfff")
    assert json.dumps(body, ensure_ascii=False).encode()


def test_quotes_of_what_was_sent_are_short() -> None:
    assert len(errors.quoted("x" * 10_000)) < 150
