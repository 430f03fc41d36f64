"""The wire's answers, and nothing else: what OpenAI's clients expect, and our own keys beside theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.card import MAX_TOTAL_SECONDS, ModelCard
from pipelines.fitting import fits, least_vram
from pipelines.needs import file_bytes, typical_request
from pipelines.plan import Device
from server.jobs import MAX_EXTENSIONS, Job, JobId, JobStatus
from server.pulls import PullState

DEFAULT_PAGE, MAX_PAGE = 20, 100


class VideoError(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Video(BaseModel):
    """A video on the wire. The keys up to ``error`` are OpenAI's and always there; the others are ours."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: JobStatus
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str | None
    size: str
    seconds: str
    remixed_from_video_id: str | None
    error: VideoError | None

    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    fps: int
    num_frames: int
    native_size: str = Field(description="What the model makes; where it differs from size, the file is scaled.")
    warnings: tuple[str, ...] = Field(description="In which points the video differs from what was asked for.")
    stage: str | None = Field(description="load, encode, denoise, decode or mux; null unless in progress.")
    step: int | None
    total_steps: int | None
    eta_s: float | None = Field(description="Seconds to completion, as far as can be told.")
    queue_position: int | None = Field(description="1 for the next in line; null unless queued.")
    inference_time_s: float | None
    peak_memory_mb: float | None
    stage_durations: Mapping[str, float] | None = Field(description="Seconds per stage.")
    metadata: Mapping[str, str]
    priority: int = Field(description="Larger goes first.")
    group: str | None = Field(description="The variations or the batch that it belongs to.")
    starred: bool = Field(description="Whether it is kept when room is made for newer ones.")
    joined_from: tuple[str, ...] = Field(description="The videos that it was joined from, in order; mostly none.")
    preview: str | None = Field(description="Path of a small moving picture of it; null while it is queued.")

    @classmethod
    def of(cls, job: Job, queue_position: int | None = None) -> Video:
        """Say a job in OpenAI's words. ``queue_position`` is the store's, if the job waits."""
        request, result = job.request, job.result
        running = job.progress if job.status is JobStatus.IN_PROGRESS else None
        return cls(
            id=job.id,
            model=job.model,
            status=job.status,
            progress=percent(job),
            created_at=int(job.created_at),
            completed_at=None if job.completed_at is None else int(job.completed_at),
            expires_at=None if job.expiry is None else int(job.expiry),
            prompt=request.prompt,
            size=request.delivery.size,
            seconds=f"{request.delivery.seconds:.12g}",
            remixed_from_video_id=job.origin and job.origin.video,
            error=job.error and VideoError(code=job.error.code, message=job.error.message),
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            fps=request.delivery.fps,
            num_frames=request.delivery.frames,
            native_size=request.shape.size,
            warnings=(*job.warnings, *(job.result.warnings if job.result else ())),
            stage=running and running.stage,
            step=running and running.step,
            total_steps=running and running.total,
            eta_s=running and running.eta_s,
            queue_position=queue_position if job.status is JobStatus.QUEUED else None,
            inference_time_s=result and math.fsum(result.stage_s.values()),
            peak_memory_mb=result and result.peak_memory_bytes / 1e6,
            stage_durations=result and result.stage_s,
            metadata=job.metadata,
            priority=job.priority,
            group=job.group,
            starred=job.starred,
            joined_from=job.origin.videos if job.origin else (),
            preview=None if job.status is JobStatus.QUEUED else f"/v1/videos/{job.id}/preview",
        )


def percent(job: Job) -> int:
    """Return whole percent, never null: clients divide by 100. 100 means that the video can be downloaded."""
    if job.status is JobStatus.COMPLETED:
        return 100
    return 0 if job.progress is None else min(max(job.progress.percent, 0), 99)


class VideoList(BaseModel):
    """One page. The SDKs go on with ``after=last_id`` while ``has_more``."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, videos: list[Video], *, has_more: bool) -> VideoList:
        """Wrap a page's videos."""
        first, last = (videos[0].id, videos[-1].id) if videos else (None, None)
        return cls(data=videos, first_id=first, last_id=last, has_more=has_more)


class VideoGroup(BaseModel):
    """Variations: the videos of one prompt, in the order of their models and seeds."""

    id: str
    object: Literal["video.group"] = "video.group"
    created_at: int
    data: list[Video]

    @classmethod
    def of(cls, jobs: Sequence[Job], positions: Mapping[JobId, int]) -> VideoGroup:
        """Say the jobs of one group, of which there is at least one."""
        first = jobs[0]
        videos = [Video.of(job, positions.get(job.id)) for job in jobs]
        return cls(id=first.group or first.id, created_at=int(first.created_at), data=videos)


class VideoDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class PullError(BaseModel):
    """Why a model could not be fetched."""

    code: str
    message: str


class ModelPull(BaseModel):
    """A model on its way to this machine. Ours alone."""

    object: Literal["model.pull"] = "model.pull"
    model: str
    status: Literal["in_progress", "completed", "failed", "cancelled"]
    file: str = Field(description="The file that is being fetched, or was last.")
    bytes_done: int = Field(description="Of all files, those that were here before included.")
    bytes_total: int = Field(description="Of all files; 0 until the hub has said.")
    error: PullError | None = None

    @classmethod
    def of(cls, state: PullState) -> ModelPull:
        """Describe how far a model is."""
        error = PullError(code=state.error_code, message=state.error_message) if state.status == "failed" else None
        return cls(
            model=state.model,
            status=state.status,
            file=state.file,
            bytes_done=state.bytes_done,
            bytes_total=state.bytes_total,
            error=error,
        )


class PullCreate(BaseModel):
    """What to say when a model is to be fetched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accept_licence: str = Field(
        default="",
        max_length=200,
        description="The id of the model's licence, if it excludes regions, limits users or is gated.",
    )


class Model(BaseModel):
    """A model on the wire. The keys up to ``shutdown_date`` are OpenAI's; the others are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    shutdown_date: str | None = None

    name: str
    description: str
    card: str = Field(description="The model that this name means; for an alias, another one than id.")
    capabilities: list[str]
    licence: str
    licence_url: str
    licence_note: str = Field(description="What to know of the licence in a sentence; often empty.")
    licence_excludes: list[str] = Field(description="Regions that the licence excludes; mostly none.")
    licence_limit: str = Field(description="Who has to pay or ask; often empty.")
    licence_attribution: str = Field(description="What has to be shown beside what is made; often empty.")
    gated: bool = Field(description="Whether the hub asks for the licence's acceptance before a download.")
    installed: bool = Field(description="Whether its weights are on this machine.")
    min_vram_mb: float | None = Field(
        description="What the smallest GPU has that makes its usual clip, slowly and with RAM enough; null if unknown."
    )
    fits_device: bool | None = Field(
        default=None, description="Whether this server's first device makes its usual clip; null if nobody can tell."
    )
    parameters: int = Field(description="Of all its parts.")
    files_mb: float = Field(description="What its files take on the disk at least, whether they are here or not.")
    pull: ModelPull | None = Field(default=None, description="The last attempt of this server to fetch it, if any.")
    sizes: list[str] = Field(description="Native sizes, the default first; others of similar proportions are scaled.")
    fps: int
    max_seconds: float = Field(description="The longest new clip, and the longest piece of an extension.")
    max_total_seconds: float = Field(description="The longest that a clip becomes by extensions.")
    max_extensions: int = Field(description="How often a clip can be extended; 0 if the model cannot.")
    max_references: int = Field(description="How many characters a clip can show.")
    max_reference_clips: int = Field(
        description="Of how many of them, if they were made from clips, it looks at the clip and its sound."
    )
    num_inference_steps: int
    guidance_scale: float

    @classmethod
    def of(cls, name: str, card: ModelCard, device: Device | None, *, installed: bool = True) -> Model:
        """Describe the card under the name that it was asked for by, and whether the device can run it."""
        extends = "extend" in card.capabilities
        is_known, least = bool(card.weights.components), least_vram(card)
        return cls(
            id=name,
            created=card.created,
            owned_by="homereel",
            name=card.name,
            description=card.description,
            card=card.id,
            capabilities=sorted(card.capabilities),
            licence=card.licence.id,
            licence_url=str(card.licence.url),
            licence_note=card.licence.note,
            licence_excludes=list(card.licence.excludes),
            licence_limit=card.licence.limit,
            licence_attribution=card.licence.attribution,
            gated=card.licence.gated,
            installed=installed,
            min_vram_mb=None if least is None else least / 1e6,
            fits_device=fits(card, typical_request(card), device) if device and is_known else None,
            parameters=sum(part.params for part in card.weights.components.values()),
            files_mb=file_bytes(card) / 1e6,
            sizes=[str(size) for size in card.shape.sizes],
            fps=card.shape.fps,
            max_seconds=card.shape.max_seconds,
            max_total_seconds=MAX_TOTAL_SECONDS if extends else card.shape.max_seconds,
            max_extensions=MAX_EXTENSIONS if extends else 0,
            max_references=card.max_references,
            max_reference_clips=card.max_reference_clips,
            num_inference_steps=card.sampling.num_inference_steps,
            guidance_scale=card.sampling.guidance_scale,
        )


class ModelList(BaseModel):
    """Every name that ``model`` may be."""

    object: Literal["list"] = "list"
    data: list[Model]


class ErrorBody(BaseModel):
    """What went wrong. ``code`` is stable, ``message`` says what would work, ``param`` names the culprit."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class WorkerModel(BaseModel):
    """A model that a worker has loaded."""

    model: str
    plan: str = Field(description="How it runs: numbers, offloading, tiles.")
    memory_mb: float = Field(description="What its weights take of the device while it has nothing to do.")
    unload_at: int | None = Field(description="Unix time at which it goes unless it is used again; null if it stays.")


class Worker(BaseModel):
    """A worker process, as it last announced itself."""

    device: str
    name: str | None = Field(description="What the device is called; null until that is known.")
    memory_total_mb: float | None = Field(description="What the device has; for a CPU, the machine's memory.")
    memory_free_mb: float | None = Field(description="What can still be had of it, whoever holds the rest.")
    model: str | None = Field(description="The card that it has loaded; the last one used if there are several.")
    busy: bool
    models: list[WorkerModel] = Field(description="All that it has loaded, the last one used first.")


class Health(BaseModel):
    """The API process is alive."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(BaseModel):
    """Videos can be made, or will be once the pause is over."""

    status: Literal["ready", "paused"]
    reason: str | None = Field(description="Why the queue is paused; null unless it is.")
    workers: list[Worker]
