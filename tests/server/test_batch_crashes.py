"""Batches whose process dies, or that two processes work at: every line becomes one video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from server import batch_runner
from server.batch_runner import BatchRunner
from server.batch_types import Batch, BatchStatus, Counts
from server.batches import BatchStore
from server.deps import Services
from server.files import STRAY_S, FileId
from server.jobs import Job, JobStatus
from tests.conftest import Clock
from tests.server.batching import ANN, lines_of, make, make_all, request, requests, settle, videos_of
from tests.server.batching import every_card_counts_as_installed as every_card_counts_as_installed
from tests.server.batching import runner as runner
from tests.server.batching import services as services
from tests.server.batching import submit as submit


class Crash(BaseException):
    """The process is gone."""


class Doomed(BatchStore):
    """Dies at one of its writes, just before or just after it; what it says afterwards does not count."""

    moment = 0

    def _count(self) -> None:
        self.moment -= 1
        if self.moment == 0:
            raise Crash

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"add_lines", "start", "note_job", "refuse", "refuse_rest", "finalize", "end", "reject"}:
            return found

        def write(*arguments: Any, **options: Any) -> Any:
            self._count()
            answer = found(*arguments, **options)
            self._count()
            return answer

        return write


@pytest.mark.parametrize("moment", range(1, 16))
def test_every_line_becomes_one_video_wherever_the_process_dies(
    moment: int, services: Services, submit: Callable[..., Batch], clock: Clock
) -> None:
    batch = submit(request("one"), request("bad", sesd=1), request("two"))
    doomed = Doomed(services.store.engine, clock)
    doomed.moment = moment
    dying = BatchRunner(replace(services, batches=doomed))
    died = False
    for _ in range(100):
        try:
            stepped = dying.tick()
        except Crash:
            died = True
            break
        for job in videos_of(batch, services):
            if job.status is JobStatus.QUEUED:
                make(job, services)
        if not stepped and services.batches.get(batch.id).status is BatchStatus.COMPLETED:
            break
    # Two moments at each of seven writes.
    assert died == (moment <= 14)
    ended = make_all(batch, services, BatchRunner(services))
    assert (ended.status, ended.counts) == (BatchStatus.COMPLETED, Counts(3, 2, 1))
    assert len(videos_of(batch, services)) == 2
    output, errors = lines_of(ended.output_file_id, services), lines_of(ended.error_file_id, services)
    assert list(output) == ["one", "two"]
    assert list(errors) == ["bad"]
    visible = services.files.list(after=None, limit=100, newest_first=True, owner=ANN).files
    assert {file.id for file in visible} == {batch.input_file_id, ended.output_file_id, ended.error_file_id}
    # What the dead one left behind goes too.
    for path in services.settings.files_dir.iterdir():
        path.touch()
    clock.time = max(path.stat().st_mtime for path in services.settings.files_dir.iterdir()) + STRAY_S + 1
    services.files.sweep()
    assert {path.name for path in services.settings.files_dir.iterdir()} == {file.id for file in visible}


def test_two_runners_do_each_line_once(services: Services, submit: Callable[..., Batch]) -> None:
    batch = submit(*requests(4))
    ann, bob = BatchRunner(services), BatchRunner(services)
    stale = services.batches.get(batch.id)
    assert ann.advance(stale)
    assert not bob.advance(stale)
    current = services.batches.get(batch.id)
    line = services.batches.next_line(batch.id)
    assert line is not None
    # Both saw the same line at the same moment.
    assert ann._carry_out(current, line)
    assert bob._carry_out(current, line)
    assert len(videos_of(batch, services)) == 1
    assert make_all(batch, services, ann).counts == Counts(4, 4, 0)
    assert len(videos_of(batch, services)) == 4


def test_a_video_that_comes_too_late_for_its_batch_is_not_made(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    """Another process ended the batch while this one was at a line."""
    batch = submit(*requests(1))
    runner.tick()
    current, line = services.batches.get(batch.id), services.batches.next_line(batch.id)
    assert line is not None
    services.batches.request_cancel(batch.id)
    settle(BatchRunner(services))
    assert runner._carry_out(current, line)
    assert not services.store.waiting()
    assert services.batches.get(batch.id).counts == Counts(1, 0, 1)


def test_an_input_that_is_gone_ends_the_batch_instead_of_trying_for_ever(
    services: Services, runner: BatchRunner, submit: Callable[..., Batch]
) -> None:
    early, late = submit(*requests(2)), submit(*requests(2))
    services.files.discard(FileId(early.input_file_id))
    runner.tick()
    services.files.discard(FileId(late.input_file_id))
    settle(runner)
    assert [error.code for error in services.batches.get(early.id).errors] == ["input_file_gone"]
    ended = services.batches.get(late.id)
    assert (ended.status, ended.counts) == (BatchStatus.COMPLETED, Counts(2, 0, 2))
    assert lines_of(ended.error_file_id, services)["shot-0"]["error"]["code"] == "input_file_gone"


def test_a_database_that_is_away_for_a_moment_fails_nothing(
    services: Services, submit: Callable[..., Batch], caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([OSError("no space left"), OSError("no space left")])

    def create(*arguments: Any, **options: Any) -> Job:
        for failure in failures:
            raise failure
        return batch_runner.create_job(*arguments, **options)

    batch = submit(*requests(2))
    runner = BatchRunner(services, create)
    runner.tick()
    assert not runner.tick()
    assert not runner.tick()
    assert services.batches.get(batch.id).counts == Counts(2)
    assert make_all(batch, services, runner).counts == Counts(2, 2, 0)
    assert "batch_step_failed" in caplog.text
