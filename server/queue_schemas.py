"""The wire's answers about the queue and about videos that are not made yet. All ours: OpenAI has no such calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, Field

from server.jobs import Job, JobStatus, Owner
from server.schemas import percent

if TYPE_CHECKING:
    from pipelines.card import Resolved
    from server.forecast import Planned, Prediction
    from server.overview import Overview


class Foreseen(NamedTuple):
    """What is known of a video before it is made: from others like it, and from the plan."""

    predicted: Prediction | None
    planned: Planned | None


class Estimate(BaseModel):
    """What a video would be, without making it. Times are null until something alike has been measured."""

    object: Literal["video.estimate"] = "video.estimate"
    model: str
    card: str = Field(description="The model that this name means.")
    size: str
    native_size: str = Field(description="What the model makes; where it differs from size, the file is scaled.")
    seconds: str
    fps: int
    num_frames: int
    native_frames: int = Field(description="What the model makes; the file has the first of them.")
    windows: int = Field(description="In how many pieces the model makes it, each going on from the one before.")
    num_inference_steps: int
    guidance_scale: float
    warnings: tuple[str, ...]
    predicted_time_s: float | None = Field(description="Seconds from the start of its making to its completion.")
    predicted_memory_mb: float | None = Field(
        description="Highest memory of the device: as measured, or by the plan until something has been."
    )
    queue_wait_s: float | None = Field(description="Seconds until it would start, as far as can be told.")

    @classmethod
    def of(cls, model: str, card: str, resolved: Resolved, foreseen: Foreseen, wait_s: float | None) -> Estimate:
        """Describe what a card would make of a wish."""
        request, predicted, planned = resolved.request, foreseen.predicted, foreseen.planned
        memory = predicted or planned
        warnings = resolved.warnings
        if predicted is None and planned is not None and planned.refusal is not None:
            warnings = (*warnings, planned.refusal)
        return cls(
            model=model,
            card=card,
            size=request.delivery.size,
            native_size=request.shape.size,
            seconds=f"{request.delivery.seconds:.12g}",
            fps=request.delivery.fps,
            num_frames=request.delivery.frames,
            native_frames=request.shape.frames,
            windows=len(request.pieces),
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            warnings=warnings,
            predicted_time_s=predicted and round(predicted.seconds, 3),
            predicted_memory_mb=memory and memory.peak_memory_bytes / 1e6,
            queue_wait_s=wait_s,
        )


class Queued(BaseModel):
    """One of the caller's videos in the queue."""

    id: str
    model: str
    status: JobStatus
    progress: int
    priority: int
    created_at: int
    queue_position: int | None = Field(description="1 for the next in line, everybody's counted; null if running.")
    starts_in_s: float | None = Field(description="Seconds until it starts, as far as can be told; 0 if running.")
    eta_s: float | None = Field(description="Seconds to completion, as far as can be told.")


class Others(BaseModel):
    """How many videos are other clients'."""

    running: int
    waiting: int


class Queue(BaseModel):
    """What is being made and what waits, in this order; the next first."""

    object: Literal["queue"] = "queue"
    workers: int = Field(description="How many videos are made at a time.")
    paused: str | None = Field(description="Why nothing is begun, such as a full disk; null unless that is so.")
    running: list[Queued]
    waiting: list[Queued]
    others: Others

    @classmethod
    def of(cls, seen: Overview, owner: Owner) -> Queue:
        """Show one owner's part of the queue."""
        mine = [job for job in seen.running if job.owner == owner]
        places = [(place, job) for place, job in enumerate(seen.waiting, start=1) if job.owner == owner]
        return cls(
            workers=seen.workers,
            paused=seen.paused,
            running=[_queued(job, None, 0.0, job.progress and job.progress.eta_s) for job in mine],
            waiting=[
                _queued(job, place, span and span.start_s, span and span.end_s)
                for place, job in places
                for span in (seen.spans.get(job.id),)
            ],
            others=Others(running=len(seen.running) - len(mine), waiting=len(seen.waiting) - len(places)),
        )


def _queued(job: Job, position: int | None, starts_in_s: float | None, eta_s: float | None) -> Queued:
    return Queued(
        id=job.id,
        model=job.model,
        status=job.status,
        progress=percent(job),
        priority=job.priority,
        created_at=int(job.created_at),
        queue_position=position,
        starts_in_s=starts_in_s,
        eta_s=eta_s,
    )
