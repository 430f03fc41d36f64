"""Input files of batches: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from server.batch_runner import BatchRunner
from server.batch_types import Batch, BatchStatus, Counts
from server.deps import Services
from tests.conftest import Clock
from tests.server.batching import every_card_counts_as_installed as every_card_counts_as_installed
from tests.server.batching import make_all, request, requests, settle, videos_of
from tests.server.batching import runner as runner
from tests.server.batching import services as services
from tests.server.batching import submit as submit

LONE = '{"custom_id": "\\ud800", "method": "POST", "url": "/v1/videos", "body": {}}'


@pytest.mark.parametrize(
    ("lines", "errors"),
    [
        ([""], [("empty_file", None, None)]),
        (["{"], [("invalid_json_line", None, 1)]),
        (["[]"], [("invalid_json_line", None, 1)]),
        (['{"custom_id": "a", "custom_id": "b"}'], [("invalid_json_line", "custom_id", 1)]),
        (['{"custom_id": NaN}'], [("invalid_json_line", None, 1)]),
        ([request("")], [("invalid_custom_id", "custom_id", 1)]),
        ([request("x" * 513)], [("invalid_custom_id", "custom_id", 1)]),
        ([{**request("a"), "custom_id": 7}], [("invalid_custom_id", "custom_id", 1)]),
        ([LONE], [("invalid_custom_id", "custom_id", 1)]),
        ([{**request("a"), "method": "GET"}], [("invalid_method", "method", 1)]),
        ([{**request("a"), "method": None}], [("invalid_method", "method", 1)]),
        ([{**request("a"), "url": "/v1/chat/completions"}], [("invalid_url", "url", 1)]),
        ([{**request("a"), "url": "/v1/videos/edits"}], [("invalid_url", "url", 1)]),
        ([{**request("a"), "body": "a red ball"}], [("invalid_request", "body", 1)]),
        ([request("a"), "", request("a")], [("duplicate_custom_id", "custom_id", 3)]),
        (["{", request("a"), "{"], [("invalid_json_line", None, 1), ("invalid_json_line", None, 3)]),
    ],
)
def test_a_file_that_is_no_list_of_requests_fails_and_every_bad_line_is_named(
    lines: list[Any],
    errors: list[Any],
    services: Services,
    runner: BatchRunner,
    submit: Callable[..., Batch],
    clock: Clock,
) -> None:
    batch = submit(*lines) if lines != [""] else submit("\n")
    settle(runner)
    failed = services.batches.get(batch.id)
    assert (failed.status, failed.failed_at, failed.counts) == (BatchStatus.FAILED, clock(), Counts())
    assert [(error.code, error.param, error.line) for error in failed.errors] == errors
    assert all(error.message for error in failed.errors)
    assert videos_of(batch, services) == []


def test_there_are_limits_to_a_file(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.batch_input.MAX_LINES", 3)
    monkeypatch.setattr("server.batch_input.MAX_LINE_BYTES", 200)
    monkeypatch.setattr("server.batch_runner.MAX_ERRORS", 2)
    fits, many, long = submit(*requests(3)), submit(*requests(4)), submit(request("a", negative_prompt="x" * 200))
    wrong = submit("{", "{", "{")
    settle(runner)
    assert services.batches.get(fits.id).status is BatchStatus.IN_PROGRESS
    assert [error.code for error in services.batches.get(many.id).errors] == ["too_many_requests"]
    assert [error.code for error in services.batches.get(long.id).errors] == ["line_too_long"]
    assert len(services.batches.get(wrong.id).errors) == 2


def test_a_byte_order_mark_and_other_line_ends_do_no_harm(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit("\ufeff" + json.dumps(request("a")) + "\r", json.dumps(request("b")) + "\r")
    assert make_all(batch, services, runner).counts == Counts(2, 2, 0)
