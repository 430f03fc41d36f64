"""One worker: claims jobs, makes them on its device, saves them. ``server.worker_process`` runs it."""

from __future__ import annotations

import logging
import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from pipelines import engine, joining, media
from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.checkpoint import Checkpoints
from pipelines.errors import Cancelled, DoesNotFit, OutOfMemory, PipelineError
from pipelines.plan import MemoryPlan
from pipelines.types import Clip, Progress, Report, Stage
from server.assets import AssetStore, Variant
from server.control import Control
from server.gauge import Gauge
from server.jobs import Job, JobError, JobId, JobResult, WorkerId
from server.lease import Ending, Lease
from server.previews import Previews
from server.progress import Meter
from server.residents import Residents
from server.scheduler import choose
from server.settings import Settings
from server.space import Gate, trouble_of
from server.store import CANCELLED, JobStore
from server.timings import TimingStore, expected_s
from server.workers import WorkerInfo

_log = logging.getLogger(__name__)

# How often a database that cannot grow is asked to write down how a job ended.
RECORD_AGAIN_S = 1.0
# How long a new job may go unnoticed by an idle worker. A look costs a tenth of a millisecond.
POLL_S = 0.15


class Drain:
    """Says to a worker that it should come to an end, and how long it may take. Once begun it only gets shorter."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun = threading.Event()
        self._deadline = float("inf")

    def begin(self, within_s: float) -> None:
        """Take no more jobs, and give back the current one if it is not done in ``within_s`` seconds."""
        self._deadline = min(self._deadline, self._now() + within_s)
        self._begun.set()

    def begun(self, wait_s: float = 0.0) -> bool:
        """Return whether the end has been announced, after at most ``wait_s`` seconds."""
        return self._begun.wait(wait_s)

    def left_s(self) -> float:
        """Return the seconds until the current job has to be given back."""
        return self._deadline - self._now()


@dataclass(frozen=True)
class Place:
    """Where a worker works."""

    id: WorkerId
    device: str
    pid: int


class Worker:
    """Makes one job at a time. Everything but ``info`` and ``give_back`` belongs to one thread."""

    def __init__(
        self,
        place: Place,
        settings: Settings,
        store: JobStore,
        *,
        drain: Drain | None = None,
        models: Residents | None = None,
    ) -> None:
        self._place = place
        self._settings = settings
        self._store = store
        self._assets = AssetStore(settings.assets_dir)
        self._drain = drain or Drain()
        self._models = models or Residents(place.device, settings)
        self._job: JobId | None = None
        self._timings = TimingStore(store.engine)
        self._gate = Gate(settings)
        self._gauge = Gauge(place.device, self._models.measured)
        self._control = Control(store.engine, time.time)

    def run(self) -> None:
        """Work until the drain begins."""
        if self._settings.preload is not None:
            self._preload(self._settings.preload)
        wait_s = 0.0
        while not self._drain.begun(wait_s):
            try:
                wait_s = 0.0 if self.run_one() else POLL_S
                self._models.expire()
            except (SQLAlchemyError, OSError) as error:
                self._bear(error)
                wait_s = RECORD_AGAIN_S
        self._models.clear()

    def run_one(self) -> bool:
        """Make the next job, if one waits; tell whether one did."""
        self._store.requeue_lost(max_attempts=self._settings.max_attempts)
        chosen = choose(self._store.waiting(), self._models.names())
        if self._gate.reason(self._paused()) is not None or chosen is None:
            return False
        job = self._store.claim(chosen.id, self._place.id, self._settings.lease_s)
        if job is not None:
            self._job = job.id
            try:
                self._work_on(job)
            finally:
                self._models.rest()
            self._job = None
        return True

    def _paused(self) -> str | None:
        """Return why the operator wants nothing made, or None. The device is for others then."""
        reason = self._control.reason()
        if reason is not None:
            self._models.clear()
        return reason

    def _bear(self, error: Exception) -> None:
        """Pause if the storage is in trouble, which passes; else raise the error."""
        trouble = trouble_of(error)
        if trouble is None:
            raise error
        _log.warning("storage_in_trouble trouble=%s reason=%s", trouble, error)
        self._gate.struck(trouble)

    def info(self) -> WorkerInfo:
        """Return what there is to announce. One thread may ask, beside the worker's own."""
        place, models = self._place, self._models
        return WorkerInfo(
            place.id, place.device, place.pid, models.latest, self._job, time.time(), self._gate.latest,
            models.announced(), self._gauge.read(),
        )  # fmt: skip

    def give_back(self) -> None:
        """Return the current job to the queue although it is still being made; the process must end after this."""
        self._release()

    def _release(self) -> bool:
        job_id = self._job
        released = job_id is not None and self._store.release(job_id, self._place.id)
        if released:
            _log.info("job_released id=%s", job_id)
        return released

    def _work_on(self, job: Job) -> None:
        waited_s = (job.started_at or job.created_at) - job.created_at
        _log.info("job_started id=%s card=%s attempt=%d waited_s=%.1f", job.id, job.card, job.attempts, waited_s)
        _log.debug("job_prompt id=%s prompt=%r", job.id, job.request.prompt)
        lease_s, gives_way = self._settings.lease_s, partial(self._control.gives_way, job.id)
        with Lease(self._store, job.id, self._place.id, lease_s=lease_s, gives_way=gives_way) as lease:
            outcome = self._attempt(job, lease)
        if outcome is None:
            if lease.ending is Ending.LOST:
                _log.warning("job_lost id=%s", job.id)
            else:
                self._patiently(self._release)
        elif self._record(job.id, outcome):
            # Nobody else is at it: what earlier attempts left when they died can go too.
            self._assets.discard_work(job.id)
            if isinstance(outcome, JobError):
                self._assets.discard_preview(job.id)

    def _record(self, job_id: JobId, outcome: JobResult | JobError) -> bool:
        """Write down how the job ended; tell whether it was still this worker's."""
        if isinstance(outcome, JobError):
            failure = outcome
            owned = self._patiently(lambda: self._store.fail(job_id, self._place.id, failure))
            _log.info("job_failed id=%s owned=%s code=%s", job_id, owned, outcome.code)
        else:
            result, retention_s = outcome, self._settings.retention_s
            owned = self._patiently(lambda: self._store.finish(job_id, self._place.id, result, retention_s=retention_s))
            stage_s = " ".join(f"{stage}_s={seconds:.2f}" for stage, seconds in outcome.stage_s.items())
            _log.info("job_finished id=%s owned=%s %s", job_id, owned, stage_s)
        return owned

    def _patiently(self, write: Callable[[], bool]) -> bool:
        """Write to the database, however long it takes until that takes it."""
        while True:
            try:
                return write()
            except SQLAlchemyError as error:
                self._bear(error)
                if self._drain.begun(RECORD_AGAIN_S):
                    raise

    def _attempt(self, job: Job, lease: Lease) -> JobResult | JobError | None:
        """Return how the job ended, or None if it is to be made by somebody else.

        Memory that runs out is no end while there is a plan that needs less of it: the job goes on by that one from
        what is kept.
        """
        warnings: list[str] = []
        while True:
            reached = [Stage.LOAD]
            try:
                outcome = self._once(job, lease, reached)
            except (OutOfMemory, MemoryError) as error:
                _log.warning("memory_ran_out id=%s stage=%s reason=%s", job.id, reached[0], error)
            else:
                return replace(outcome, warnings=tuple(warnings)) if isinstance(outcome, JobResult) else outcome
            # Out of the block, where the error no longer holds what its stages had on the device.
            try:
                warnings.append(self._models.descend(job.card, job.request, reached[0]))
            except PipelineError as error:
                return JobError(error.code, error.message)

    def _once(self, job: Job, lease: Lease, reached: list[Stage]) -> JobResult | JobError | None:
        """Return how one attempt ended, as ``_attempt`` does.

        Raises:
            OutOfMemory, MemoryError: It ran out of memory; ``reached`` holds the stage.
        """
        try:
            return self._make(job, lease, reached)
        except Cancelled:
            if lease.ending in (Ending.LOST, Ending.GIVEN_WAY) or (lease.ending is None and self._drain.begun()):
                return None
            return CANCELLED
        except (OutOfMemory, MemoryError) as error:
            if isinstance(error, DoesNotFit) or job.request.parts:
                # There is no plan with less: nothing fits, or nothing is planned.
                return JobError(OutOfMemory.code, str(error) or "The machine ran out of memory.")
            raise
        except PipelineError as error:
            return JobError(error.code, error.message)
        except Exception as error:  # noqa: BLE001 - the job boundary: whatever went wrong, the next job must run
            return self._unexpected(job, error)

    def _unexpected(self, job: Job, error: Exception) -> JobError | None:
        trouble = trouble_of(error)
        if trouble is not None:
            # Not the job's fault: it waits until that is over.
            _log.warning("job_postponed id=%s trouble=%s reason=%s", job.id, trouble, error)
            self._gate.struck(trouble)
            return None
        _log.error("job_crashed id=%s", job.id, exc_info=error)
        # Nobody knows what state the device is in.
        self._models.clear()
        what = type(error).__name__
        return JobError(PipelineError.code, f"Making the video failed unexpectedly ({what}); the log says more.")

    def _make(self, job: Job, lease: Lease, reached: list[Stage]) -> JobResult:
        """Make the video; ``reached`` holds the stage that it is in."""
        return self._join(job, lease) if job.request.parts else self._generate(job, lease, reached)

    def _join(self, job: Job, lease: Lease) -> JobResult:
        """Make a video of others. It needs neither a model nor the device."""
        meter = Meter({Stage.MUX: 1.0}, loads=False)

        def report(progress: Progress) -> None:
            lease.note(meter.update(progress, time.monotonic()))
            if self._drain.left_s() <= 0:
                raise Cancelled("the worker has to end")

        with self._assets.work_dir(job.id) as folder:
            embedded = joining.provenance(job.request, job.card) if self._settings.embed_metadata else None
            video = folder / Variant.VIDEO.filename
            joining.join(job.request, video, metadata=embedded, report=report)
            sizes = self._publish(job, folder, lease, report)
        return JobResult(_rounded(meter.finish(time.monotonic())), _own_peak(), sizes=sizes)

    def _generate(self, job: Job, lease: Lease, reached: list[Stage]) -> JobResult:
        loads = self._models.loads(job.card, job.request)
        meter = Meter(self._expected_s(job, loads=loads), loads=loads)
        previews = Previews(self._assets, job.id, job.request.shape.fps, wanted=lambda: lease.ending is None)
        checkpoints = self._checkpoints(job)

        def report(progress: Progress) -> None:
            reached[0] = progress.stage
            if lease.is_wanted_back and progress.stage is Stage.DENOISE:
                # From the next step on every state is kept; what is nearly done is finished.
                if checkpoints.hurries:
                    lease.give_way()
                checkpoints.hurry()
            if self._drain.begun():
                checkpoints.hurry()
            lease.note(replace(meter.update(progress, time.monotonic()), preview=previews.count))
            if self._drain.left_s() <= 0:
                raise Cancelled("the worker has to end")

        def note(share: float) -> None:
            report(Progress(Stage.LOAD, round(100 * share), 100))

        if loads:
            note(0)
        model = self._models.bring(job.card, job.request, note)
        if loads:
            note(1)
        card, pipeline = model.card, model.pipeline
        with previews, checkpoints, self._assets.work_dir(job.id) as folder:
            clip = engine.generate(pipeline, job.request, report, previews.show, checkpoints)
            clip = replace(clip, facts={**clip.facts, **facts_of(model.plan)})
            self._save(job, clip, folder, card, report)
            sizes = self._publish(job, folder, lease, report)
        stage_s = meter.finish(time.monotonic())
        peak = _peak(pipeline)
        if not checkpoints.resumed:
            # Half of the work says nothing of the whole.
            self._learn(job, stage_s, peak)
        return JobResult(_rounded(stage_s), peak, dict(clip.facts), sizes=sizes)

    def _checkpoints(self, job: Job) -> Checkpoints:
        return Checkpoints(self._assets.checkpoints(job.id), job.card, interval_s=self._settings.checkpoint_s)

    def _expected_s(self, job: Job, *, loads: bool) -> Mapping[Stage, float] | None:
        try:
            return expected_s(self._timings.of(job.card, self._place.device), job.request, loads=loads)
        except SQLAlchemyError as error:
            _log.warning("timings_not_read id=%s error=%s", job.id, type(error).__name__)
            return None

    def _learn(self, job: Job, stage_s: Mapping[Stage, float], peak: int) -> None:
        try:
            self._timings.learn(job.card, self._place.device, job.request, stage_s=stage_s, peak=peak)
        except SQLAlchemyError as error:
            # The video is what counts; the next one will tell how long such a thing takes.
            _log.warning("timing_not_stored id=%s error=%s", job.id, type(error).__name__)

    def _save(self, job: Job, clip: Clip, folder: Path, card: ModelCard, report: Report) -> None:
        """Write the clip into ``folder``."""
        embedded = media.provenance(job.request, card, clip.facts) if self._settings.embed_metadata else None
        if embedded is not None and job.origin is not None:
            # Read when the file comes back as the source of another extension.
            embedded["extensions"] = job.origin.extensions
        video = folder / Variant.VIDEO.filename
        media.write_clip(clip, job.request, video, metadata=embedded, report=report)

    def _publish(self, job: Job, folder: Path, lease: Lease, report: Report) -> Mapping[str, int]:
        """Make every variant of the clip in ``folder``, store them, and return how many bytes each has."""
        video = folder / Variant.VIDEO.filename
        media.thumbnail(video, folder / Variant.THUMBNAIL.filename)
        report(Progress(Stage.MUX, 1, 1))
        media.spritesheet(video, folder / Variant.SPRITESHEET.filename)
        # A worker that has lost the job must not write over the files of the one that has it now.
        lease.confirm()
        sizes = {variant.value: (folder / variant.filename).stat().st_size for variant in Variant}
        for variant in Variant:
            self._assets.put(job.id, variant, folder / variant.filename)
        return sizes

    def _preload(self, name: str) -> None:
        try:
            self._models.preload(name)
        except PipelineError as error:
            # The jobs that need it will say the same to whoever asked for them.
            _log.error("preload_failed model=%s code=%s message=%s", name, error.code, error.message)


def facts_of(plan: MemoryPlan) -> Mapping[str, str]:
    """Return what a result says of the plan that it was made by."""
    return {"plan": plan.describe(), "predicted_peak_mb": f"{plan.peak / 1e6:.0f}"}


def _peak(pipeline: VideoPipeline[Any, Any]) -> int:
    """Return the highest memory so far: the device's if it has its own, else the process's."""
    of_device = pipeline.peak_memory_bytes
    return _own_peak() if of_device is None else of_device


def _rounded(stage_s: Mapping[Stage, float]) -> Mapping[str, float]:
    return {stage.value: round(seconds, 3) for stage, seconds in stage_s.items()}


def _own_peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
