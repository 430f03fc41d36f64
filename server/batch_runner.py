"""Carries batches out: step by step, each of which may be the last before a crash.

All that a step builds on is in the database, and all that it does can be done again: a line's video is recognised by
an idempotency key, an output file without a row is swept up.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from server import errors
from server.batch_input import MAX_ERRORS, LineError, read_input, request_at
from server.batch_types import ENDPOINT, Batch, BatchError, BatchId, BatchStatus, Counts, Line, Refusal
from server.creation import create_job
from server.deps import Caller, Services
from server.files import BATCH_OUTPUT, FileId, StoredFile, new_file
from server.intake import KeySpent, QueueFull
from server.jobs import Attempt, Job, JobStatus
from server.quota import QuotaExceeded
from server.schemas import Video
from server.slots import Busy

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from server.forms import Fields

_log = logging.getLogger(__name__)

# How long a new batch may go unnoticed.
POLL_S = 0.5
SWEEP_S = 3600.0
PRIORITY = -1
_LINES_AT_ONCE = 1000

_EXPIRED = Refusal("batch_expired", "The request was not carried out before the batch's completion window had passed.")
_CANCELLED = Refusal("batch_cancelled", "The request was not carried out before the batch was cancelled.")
_DELETED = Refusal("video_deleted", "The video was deleted before the batch had ended.")
_INPUT_GONE = Refusal("input_file_gone", "The content of the input file is not on the server's disk any more.")
_CRASHED = Refusal("internal_error", "The server made a mistake with this request; its log has the details.", 500)

Create = Callable[..., Job]
"""``server.creation.create_job``."""


class BatchRunner:
    """Takes the steps. Any number may work on the same database."""

    def __init__(self, services: Services, create: Create = create_job) -> None:
        self._services = services
        self._batches = services.batches
        self._create = create

    def advance(self, batch: Batch) -> bool:
        """Take the next step of a batch; tell whether there was one to take now."""
        match batch.status:
            case BatchStatus.VALIDATING:
                return self._validate(batch)
            case BatchStatus.IN_PROGRESS:
                return self._go_on(batch)
            case BatchStatus.FINALIZING | BatchStatus.CANCELLING:
                return self._wind_up(batch)
            case _:
                return False

    def tick(self) -> bool:
        """Take the next step of every batch; tell whether there was one to take."""
        stepped = False
        for batch_id in self._batches.active():
            stepped |= self._safely(batch_id)
        return stepped

    def _safely(self, batch_id: BatchId) -> bool:
        try:
            return self.advance(self._batches.get(batch_id))
        except Exception:  # noqa: BLE001 - logged whole
            # A full disk or a locked database passes; a batch that nothing can be done with must not hold up others.
            _log.exception("batch_step_failed id=%s", batch_id)
            return False

    def _input(self, batch: Batch) -> Path:
        return self._services.files.content_path(FileId(batch.input_file_id))

    def _validate(self, batch: Batch) -> bool:
        wrong: list[BatchError] = []
        try:
            file = self._input(batch).open("rb")
        except FileNotFoundError:
            return self._batches.reject(batch, [BatchError(_INPUT_GONE.code, _INPUT_GONE.message)])
        with file:
            found = read_input(file)
            while items := list(itertools.islice(found, _LINES_AT_ONCE)):
                wrong += [item for item in items if isinstance(item, BatchError)]
                if len(wrong) >= MAX_ERRORS:
                    break
                if not wrong:
                    self._batches.add_lines(batch.id, [item for item in items if isinstance(item, Line)])
        if wrong:
            _log.info("batch_failed id=%s errors=%d", batch.id, len(wrong))
            return self._batches.reject(batch, wrong[:MAX_ERRORS])
        _log.info("batch_started id=%s", batch.id)
        return self._batches.start(batch.id)

    def _go_on(self, batch: Batch) -> bool:
        if self._services.now() >= batch.expires_at:
            return self._batches.finalize(batch.id, is_late=True)
        line = self._batches.next_line(batch.id)
        if line is not None:
            return self._batches.waiting() < self._room() and self._carry_out(batch, line)
        return not self._batches.unfinished(batch.id) and self._batches.finalize(batch.id)

    def _room(self) -> int:
        """Return how many videos of batches may wait: whoever watches the screen must find room in the queue."""
        settings = self._services.settings
        return max(1, min(settings.max_batch_waiting, settings.max_queued // 2))

    def _carry_out(self, batch: Batch, line: Line) -> bool:
        """Make a video of the line, or note why none can be made; False if that must wait."""
        try:
            fields = self._fields(batch, line)
            if fields.get("priority") is None:
                fields["priority"] = PRIORITY
            attempt = Attempt(*_names_of(batch, line))
            job = self._create(fields, Caller(batch.owner), self._services, attempt=attempt, group=batch.id)
        except (SQLAlchemyError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - one line must not stop the others
            refusal = _refusal(error, batch, line)
            if refusal is not None:
                self._batches.refuse(batch.id, line.line, refusal)
            return refusal is not None
        if not self._batches.note_job(batch.id, line.line, job.id):
            # The batch has ended meanwhile.
            self._services.store.request_cancel(job.id)
        return True

    def _fields(self, batch: Batch, line: Line) -> Fields:
        try:
            with self._input(batch).open("rb") as file:
                return request_at(file, line.place)
        except FileNotFoundError as error:
            raise LineError(_INPUT_GONE.code, _INPUT_GONE.message) from error

    def _wind_up(self, batch: Batch) -> bool:
        """Stop what goes on if it shall not; once nothing does, write down what became of everything."""
        refusal = _refusal_of_rest(batch)
        if refusal is not None:
            self._batches.refuse_rest(batch.id, refusal)
        unfinished = self._batches.unfinished(batch.id)
        for job_id in unfinished if refusal is not None else ():
            self._services.store.request_cancel(job_id)
        if unfinished and self._batches.unfinished(batch.id):
            return False
        output, failures, counts = self._write_results(batch)
        ended = self._batches.end(batch, counts, output, failures)
        if not ended:
            for file in (output, failures):
                if file is not None:
                    self._services.files.discard(file.id)
        _log.info("batch_ended id=%s completed=%d failed=%d", batch.id, counts.completed, counts.failed)
        return ended

    def _write_results(self, batch: Batch) -> tuple[StoredFile | None, StoredFile | None, Counts]:
        """Write a line for every request into one of two files, which have no rows yet; empty ones go again."""
        files = self._services.files
        new = [
            new_file(
                batch.owner,
                BATCH_OUTPUT,
                f"{batch.id}_{kind}.jsonl",
                self._services.now(),
                lifetime_s=batch.output_expires_s,
            )
            for kind in ("output", "error")
        ]
        with ExitStack() as stack:
            targets = [stack.enter_context(files.writing(file)) for file in new]
            completed, failed = self._write_lines(batch, *targets)
        kept: list[StoredFile | None] = []
        for file, count in zip(new, (completed, failed), strict=True):
            if count:
                kept.append(files.measured(file))
            else:
                files.discard(file.id)
                kept.append(None)
        return kept[0], kept[1], Counts(completed + failed, completed, failed)

    def _write_lines(self, batch: Batch, output: BinaryIO, failures: BinaryIO) -> tuple[int, int]:
        completed = failed = 0
        for outcome in self._batches.outcomes(batch.id):
            job = outcome.job
            has_made = job is not None and job.status is JobStatus.COMPLETED
            refusal = outcome.refusal or (_DELETED if job is None else None if has_made else _failure(batch, job))
            answer = _answer(_ids(batch, outcome.line)[1], job, refusal)
            line = {
                "id": _ids(batch, outcome.line)[0],
                "custom_id": outcome.custom_id,
                "response": answer,
                # An answer that is an error says so itself.
                "error": None
                if refusal is None or refusal.body is not None
                else {"code": refusal.code, "message": refusal.message},
            }
            (output if has_made else failures).write(json.dumps(line).encode() + b"\n")
            completed, failed = completed + has_made, failed + (not has_made)
        return completed, failed


def _names_of(batch: Batch, line: Line) -> tuple[str, str]:
    """Return a digest and an idempotency key, by which the line's video is found again."""
    key = f"{batch.id}:{line.line}"
    return hashlib.sha256(f"{ENDPOINT}\0{key}".encode()).hexdigest(), key


def _ids(batch: Batch, line: int) -> tuple[str, str]:
    """Return the ids that the line and its answer have in the results, always the same ones."""
    digest = hashlib.sha256(f"{batch.id}\0{line}".encode()).hexdigest()
    return f"batch_req_{digest[:48]}", f"req_{digest[-32:]}"


def _answer(request_id: str, job: Job | None, refusal: Refusal | None) -> dict[str, Any] | None:
    """Return what ``POST /v1/videos`` would have answered, with the video as it is now."""
    if job is not None:
        body = Video.of(job).model_dump(mode="json")
        return {"status_code": 200, "request_id": request_id, "body": body}
    if refusal is not None and refusal.status is not None:
        return {"status_code": refusal.status, "request_id": request_id, "body": refusal.body}
    return None


def _failure(batch: Batch, job: Job) -> Refusal:
    """Say why there is no video, although there was a job."""
    stopped = _refusal_of_rest(batch) if job.error is not None and job.error.code == "cancelled" else None
    if stopped is not None:
        return stopped
    return Refusal(job.error.code, job.error.message) if job.error else Refusal("generation_failed", "It failed.")


def _refusal_of_rest(batch: Batch) -> Refusal | None:
    """Say why nothing more becomes of a batch; None if everything shall."""
    if batch.cancelling_at is not None:
        return _CANCELLED
    return _EXPIRED if batch.expired_at is not None else None


def _refusal(error: Exception, batch: Batch, line: Line) -> Refusal | None:
    """Say why a line cannot become a video; None if it can later."""
    match error:
        case QueueFull() | QuotaExceeded() | Busy():
            return None
        case KeySpent():
            return _DELETED
        case LineError():
            return Refusal(error.code, error.message)
        case _:
            answer = errors.answer_to(error)
    if answer is None:
        _log.error("batch_line_crashed id=%s line=%d", batch.id, line.line, exc_info=error)
        body = errors.envelope(500, _CRASHED.message, _CRASHED.code)
        return Refusal(_CRASHED.code, _CRASHED.message, 500, body)
    if answer.status_code == 429:
        return None
    body = json.loads(bytes(answer.body))
    return Refusal(body["error"]["code"], body["error"]["message"], answer.status_code, body)


class BatchThread:
    """Runs batches and sweeps files in a thread of its own, from ``start`` to ``stop``."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def start(self) -> None:
        """Begin. Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Return when the current step is done."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        runner = BatchRunner(self._services)
        sweep_at = time.monotonic()
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = POLL_S
            try:
                if time.monotonic() >= sweep_at:
                    sweep_at += SWEEP_S
                    self._services.files.sweep()
                if runner.tick():
                    wait_s = 0.0
            except Exception:  # noqa: BLE001 - logged whole
                # Without this thread no batch would go on, whatever went wrong with one.
                _log.exception("batches_failed")
