"""Batches, step by step: what becomes of every request, and what the batch says of it meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from server import batch_runner
from server.batch_runner import BatchRunner
from server.batch_types import WINDOW_S, Batch, BatchStatus, Counts
from server.batches import BatchNotFound
from server.deps import Services
from server.files import FileId, FileNotFound
from server.jobs import Job, JobError, JobId, JobStatus
from server.settings import Settings
from server.store import JobStore
from server.tables import event as events
from tests.conftest import Clock
from tests.server.batching import (
    ANN,
    BOB,
    RESULT,
    WORKER,
    lines_of,
    make,
    make_all,
    request,
    requests,
    services_with,
    settle,
    videos_of,
)
from tests.server.batching import every_card_counts_as_installed as every_card_counts_as_installed
from tests.server.batching import runner as runner
from tests.server.batching import services as services
from tests.server.batching import submit as submit


def test_every_line_becomes_a_video_and_a_line_of_the_output(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch], clock: Clock
) -> None:
    batch = submit(*requests(3), "", metadata={"scene": "one"})
    assert (batch.status, batch.counts) == (BatchStatus.VALIDATING, Counts())
    settle(runner)
    started = services.batches.get(batch.id, ANN)
    assert (started.status, started.counts) == (BatchStatus.IN_PROGRESS, Counts(3))
    assert int(started.in_progress_at or 0) == int(clock())
    clock.advance(10)
    ended = make_all(batch, services, runner)
    assert (ended.status, ended.counts) == (BatchStatus.COMPLETED, Counts(3, 3, 0))
    assert int(ended.finalizing_at or 0) == int(ended.completed_at or 0) == int(clock())
    assert ended.metadata == {"scene": "one"}
    assert ended.error_file_id is None
    output = lines_of(ended.output_file_id, services)
    assert list(output) == ["shot-0", "shot-1", "shot-2"]
    for number, line in enumerate(output.values()):
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("req_")
        video = line["response"]["body"]
        assert (video["object"], video["status"], video["seed"]) == ("video", "completed", number)
        assert services.store.get(JobId(video["id"]), ANN)
    file = services.files.get(FileId(str(ended.output_file_id)), ANN)
    assert (file.purpose, file.filename, file.expires_at) == ("batch_output", f"{batch.id}_output.jsonl", None)
    assert len({line["id"] for line in output.values()}) == 3


def test_its_videos_belong_to_the_batch_and_let_others_pass(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(request("a"), request("b", priority=3), owner=BOB)
    settle(runner)
    videos = videos_of(batch, services)
    assert [(job.owner, job.group, job.priority) for job in videos] == [(BOB, batch.id, -1), (BOB, batch.id, 3)]
    with pytest.raises(BatchNotFound):
        services.batches.get(batch.id, ANN)
    assert services.batches.list(after=None, limit=9, owner=ANN).batches == ()
    with pytest.raises(BatchNotFound):
        services.batches.request_cancel(batch.id, ANN)
    assert services.batches.get(batch.id).status is BatchStatus.IN_PROGRESS


def test_one_bad_line_does_not_stop_the_others(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(
        request("good"),
        request("no such model", model="sora-9"),
        request("misspelt", sesd=7),
        request("no such file", input_reference={"file_id": "file-1"}),
        request("not fetched", input_reference={"image_url": "http://127.0.0.1/a.png"}),
        request("breaks"),
    )
    settle(runner)
    assert services.batches.get(batch.id).counts == Counts(6, 0, 4)
    good, breaks = videos_of(batch, services)
    make(good, services)
    make(breaks, services, JobError("bad_output", "The clip is black."))
    assert services.batches.get(batch.id).counts == Counts(6, 1, 5)
    settle(runner)
    ended = services.batches.get(batch.id)
    assert (ended.status, ended.counts) == (BatchStatus.COMPLETED, Counts(6, 1, 5))
    assert list(lines_of(ended.output_file_id, services)) == ["good"]
    errors = lines_of(ended.error_file_id, services)
    broken = errors.pop("breaks")
    assert broken["error"] == {"code": "bad_output", "message": "The clip is black."}
    assert broken["response"]["body"]["status"] == "failed"
    assert {name: line["response"]["status_code"] for name, line in errors.items()} == {
        "no such model": 400,
        "misspelt": 400,
        "no such file": 404,
        "not fetched": 400,
    }
    assert all(line["error"] is None for line in errors.values())
    assert errors["misspelt"]["response"]["body"]["error"]["param"] == "sesd"
    assert errors["not fetched"]["response"]["body"]["error"]["code"] == "address_not_allowed"


def test_a_mistake_of_ours_fails_one_line_and_says_nothing_of_its_cause(
    services: Services, submit: Callable[..., Batch], caplog: pytest.LogCaptureFixture
) -> None:
    def create(fields: dict[str, Any], *arguments: Any, **options: Any) -> Job:
        if fields["seed"] == 1:
            raise ZeroDivisionError("secret")
        return batch_runner.create_job(fields, *arguments, **options)

    batch = submit(*requests(3))
    ended = make_all(batch, services, BatchRunner(services, create))
    assert ended.counts == Counts(3, 2, 1)
    (line,) = lines_of(ended.error_file_id, services).values()
    assert line["response"]["status_code"] == 500
    assert "secret" not in json.dumps(line)
    assert "batch_line_crashed" in caplog.text


@pytest.mark.parametrize(("batch_and_all", "room"), [((2, 100), 2), ((10, 6), 3), ((10, 1), 1)])
def test_lines_follow_as_the_queue_has_room(
    services: Services, clock: Clock, submit: Callable[..., Batch], batch_and_all: tuple[int, int], room: int
) -> None:
    store = services.store
    limits: dict[str, int] = dict(zip(("max_batch_waiting", "max_queued"), batch_and_all, strict=True))
    services = services_with(services.settings.model_copy(update=limits), store, clock)
    runner = BatchRunner(services)
    first, second = submit(*requests(4)), submit(*requests(4))
    for made in range(8):
        settle(runner)
        waiting = store.waiting()
        assert len(waiting) == min(room, 8 - made)
        make(store.get(waiting[0].id), services)
    settle(runner)
    assert [services.batches.get(batch.id).status for batch in (first, second)] == [BatchStatus.COMPLETED] * 2


def test_a_full_queue_makes_a_line_wait_not_fail(
    settings: Settings, store: JobStore, clock: Clock, submit: Callable[..., Batch], add_job: Callable[..., JobId]
) -> None:
    services = services_with(settings.model_copy(update={"max_queued": 2}), store, clock)
    runner = BatchRunner(services)
    others = [add_job(), add_job()]
    batch = submit(*requests(1))
    settle(runner)
    assert services.batches.get(batch.id).counts == Counts(1)
    assert videos_of(batch, services) == []
    make(store.get(others[0]), services)
    assert make_all(batch, services, runner).counts == Counts(1, 1, 0)


def test_cancelling_stops_what_waits_and_what_runs_and_keeps_what_is_done(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch], clock: Clock
) -> None:
    services = services_with(services.settings.model_copy(update={"max_batch_waiting": 2}), services.store, clock)
    runner = BatchRunner(services)
    batch = submit(*requests(5))
    settle(runner)
    make(videos_of(batch, services)[0], services)
    settle(runner)
    running, waiting = videos_of(batch, services)[1:]
    assert services.store.claim(running.id, WORKER, lease_s=60)
    clock.advance(1)
    cancelling = services.batches.request_cancel(batch.id, ANN)
    assert (cancelling.status, cancelling.cancelling_at) == (BatchStatus.CANCELLING, clock())
    settle(runner)
    assert services.batches.get(batch.id).status is BatchStatus.CANCELLING
    assert services.store.get(waiting.id).status is JobStatus.FAILED
    assert services.store.watch(running.id, WORKER).cancel_requested
    services.store.fail(running.id, WORKER, JobError("cancelled", "The video was cancelled."))
    clock.advance(1)
    settle(runner)
    ended = services.batches.get(batch.id)
    assert (ended.status, ended.cancelled_at, ended.counts) == (BatchStatus.CANCELLED, clock(), Counts(5, 1, 4))
    assert list(lines_of(ended.output_file_id, services)) == ["shot-0"]
    errors = lines_of(ended.error_file_id, services)
    assert {line["error"]["code"] for line in errors.values()} == {"batch_cancelled"}
    assert errors["shot-4"]["response"] is None
    assert len(videos_of(batch, services)) == 3
    assert services.batches.request_cancel(batch.id, ANN) == ended


def test_a_video_that_was_finished_while_its_batch_was_cancelled_is_not_lost(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(*requests(1))
    settle(runner)
    (video,) = videos_of(batch, services)
    assert services.store.claim(video.id, WORKER, lease_s=60)
    services.batches.request_cancel(batch.id)
    settle(runner)
    assert services.store.finish(video.id, WORKER, RESULT)
    settle(runner)
    ended = services.batches.get(batch.id)
    assert (ended.status, ended.counts) == (BatchStatus.CANCELLED, Counts(1, 1, 0))


def test_a_batch_can_be_cancelled_before_it_was_looked_at(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(*requests(2))
    services.batches.request_cancel(batch.id)
    settle(runner)
    ended = services.batches.get(batch.id)
    assert (ended.status, ended.counts, ended.output_file_id) == (BatchStatus.CANCELLED, Counts(), None)


def test_what_is_not_done_when_the_window_has_passed_is_given_up(
    services: Services, submit: Callable[..., Batch], clock: Clock
) -> None:
    services = services_with(services.settings.model_copy(update={"max_batch_waiting": 2}), services.store, clock)
    runner = BatchRunner(services)
    batch = submit(*requests(4))
    assert batch.expires_at == batch.created_at + WINDOW_S
    settle(runner)
    make(videos_of(batch, services)[0], services)
    clock.advance(WINDOW_S)
    settle(runner)
    ended = services.batches.get(batch.id)
    assert (ended.status, ended.counts) == (BatchStatus.EXPIRED, Counts(4, 1, 3))
    assert int(ended.expired_at or 0) == int(clock())
    errors = lines_of(ended.error_file_id, services)
    assert {line["error"]["code"] for line in errors.values()} == {"batch_expired"}
    assert not services.store.waiting()


def test_a_video_that_was_deleted_counts_as_failed(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(*requests(2))
    settle(runner)
    videos = videos_of(batch, services)
    make(videos[0], services)
    for video in videos:
        services.store.delete(video.id)
    assert services.batches.get(batch.id).counts == Counts(2, 0, 2)
    services.store.forget(videos[0].id)
    settle(runner)
    ended = services.batches.get(batch.id)
    assert (ended.status, ended.counts, ended.output_file_id) == (BatchStatus.COMPLETED, Counts(2, 0, 2), None)
    errors = lines_of(ended.error_file_id, services)
    assert {line["error"]["code"] for line in errors.values()} == {"video_deleted"}


def test_counts_stay_as_they_were_when_it_ended(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(*requests(2))
    ended = make_all(batch, services, runner)
    for video in videos_of(batch, services):
        services.store.delete(video.id)
    assert services.batches.get(batch.id) == ended
    assert services.batches.list(after=None, limit=9, owner=ANN).batches == (ended,)


def test_how_it_ended_is_told(services: Services, runner: BatchRunner, submit: Callable[..., Batch]) -> None:
    completed, failed, cancelled, expired = (
        submit(*requests(1)),
        submit("{"),
        submit(*requests(1)),
        submit(*requests(1)),
    )
    services.batches.request_cancel(cancelled.id)
    make_all(completed, services, runner)
    settle(runner)
    late = replace(services, now=lambda: expired.expires_at)
    settle(BatchRunner(late))
    with services.store.engine.connect() as db:
        told = db.execute(select(events.c.type, events.c.subject, events.c.owner)).all()
    assert {tuple(row) for row in told if row.subject.startswith("batch_")} == {
        ("batch.completed", completed.id, ANN),
        ("batch.failed", failed.id, ANN),
        ("batch.cancelled", cancelled.id, ANN),
        ("batch.expired", expired.id, ANN),
    }


def test_deleting_the_input_does_not_stop_the_batch(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    batch = submit(*requests(2))
    services.files.delete(FileId(batch.input_file_id), ANN)
    assert make_all(batch, services, runner).counts == Counts(2, 2, 0)
    services.files.sweep()
    with pytest.raises(FileNotFound):
        services.files.content(FileId(batch.input_file_id))


def test_results_go_when_they_were_told_to(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch], clock: Clock
) -> None:
    ended = make_all(submit(*requests(1), output_expires_s=3600), services, runner)
    file = services.files.get(FileId(str(ended.output_file_id)))
    assert file.expires_at == file.created_at + 3600
    clock.advance(3601)
    services.files.sweep()
    with pytest.raises(FileNotFound):
        services.files.content(file.id)


def test_lists_go_on_where_they_ended(services: Services, submit: Callable[..., Batch]) -> None:
    made = [submit(*requests(1)).id for _ in range(5)]
    seen = []
    after, has_more = None, True
    while has_more:
        page = services.batches.list(after=after, limit=2, owner=ANN)
        seen += [batch.id for batch in page.batches]
        after, has_more = seen[-1], page.has_more
    assert seen == made[::-1]
