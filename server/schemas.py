"""The wire, and nothing else: what OpenAI's clients send and expect, and our own parameters beside theirs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipelines.card import MAX_PROMPT, ModelCard, Wish
from server.jobs import Job, JobStatus

if TYPE_CHECKING:
    from pipelines.types import ImageCondition

DEFAULT_MODEL = "sora-2"
DEFAULT_PAGE, MAX_PAGE = 20, 100
# Parameters that other servers of this API take. Nothing here honours them yet, and nobody shall believe so.
FOREIGN_PARAMETERS = frozenset(
    {
        "aspect_ratio",
        "audio_reference",
        "characters",
        "enable_frame_interpolation",
        "extra_params",
        "flow_shift",
        "generate_sound",
        "guidance_scale_2",
        "image_reference",
        "lora",
        "n",
        "sound_duration",
        "video_reference",
    }
)
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_WORD = 2**63 - 1


def _plain_line_ends(value: object) -> object:
    # Node's FormData turns every line end into CRLF.
    return value.replace("\r\n", "\n").replace("\r", "\n") if isinstance(value, str) else value


def _storable(text: str) -> str:
    # JSON can carry both; UTF-8 cannot encode the one, and not every database stores the other.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("The text contains characters that are not text.")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("The prompt is empty.")
    return text


def _not_bool(value: object) -> object:
    # To Python, true is the number 1.
    if isinstance(value, bool):
        raise ValueError("A boolean is not a number.")  # noqa: TRY004 - pydantic collects ValueError only
    return value


def _conflict(param: str, message: str) -> PydanticCustomError:
    # A plain ValueError about several parameters could not name one of them.
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})


Text = Annotated[str, BeforeValidator(_plain_line_ends), Field(max_length=MAX_PROMPT), AfterValidator(_storable)]
Prompt = Annotated[Text, Field(min_length=1), AfterValidator(_not_blank)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=-_WORD, le=_WORD)]
Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


class VideoCreate(BaseModel):
    """The parameters of a new video. Descriptions complete "Expected …" in an error's sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description=f"a text of 1 to {MAX_PROMPT:,} characters that says what to show")
    model: Name = Field(default=DEFAULT_MODEL, description="the name of a model that GET /v1/models lists")
    seconds: Number | None = Field(
        default=None, description="a length in seconds such as '4'; num_frames says it exactly"
    )
    size: str | None = Field(
        default=None,
        pattern=rf"^{_SIZE.pattern}$",
        description="WIDTHxHEIGHT in pixels, such as '1280x720'",
    )
    width: Count | None = Field(default=None, description="a width in pixels, together with height; or use size")
    height: Count | None = Field(default=None, description="a height in pixels, together with width; or use size")
    fps: Count | None = Field(default=None, description="a frame rate that the model makes, such as 8")
    num_frames: Count | None = Field(default=None, description="a number of frames that the model makes")
    seed: Count | None = Field(default=None, description="a whole number; without it, one is drawn")
    negative_prompt: Text | None = Field(default=None, description="a text that says what not to show")
    num_inference_steps: Count | None = Field(default=None, description="a number of denoising steps, such as 20")
    guidance_scale: Number | None = Field(default=None, description="a number such as 4.0; up to 1 means no guidance")

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> VideoCreate:
        if (self.width is None) != (self.height is None):
            raise _conflict(
                "width" if self.width is None else "height", "width and height belong together: give both, or size."
            )
        if self.size and self.width is not None and self.size != f"{self.width}x{self.height}":
            raise _conflict("size", f"size {self.size} contradicts width and height: give one of the two.")
        if self.seconds is not None and self.num_frames is not None:
            raise _conflict("num_frames", "seconds and num_frames both say how long the clip is: give one of the two.")
        return self

    def wish(self, conditions: tuple[ImageCondition, ...] = ()) -> Wish:
        """Return what was asked for, in the models' words."""
        return Wish(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            size=self._pixels(),
            seconds=self.seconds,
            num_frames=self.num_frames,
            fps=self.fps,
            seed=self.seed,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            conditions=conditions,
        )

    def _pixels(self) -> tuple[int, int] | None:
        if self.width is not None and self.height is not None:
            return self.width, self.height
        found = _SIZE.fullmatch(self.size or "")
        return (int(found[1]), int(found[2])) if found else None


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

    @classmethod
    def of(cls, job: Job, queue_position: int | None = None) -> Video:
        """Say a job in OpenAI's words. ``queue_position`` is the store's, if the job waits."""
        request, result = job.request, job.result
        running = job.progress if job.status is JobStatus.IN_PROGRESS else None
        return cls(
            id=job.id,
            model=job.model,
            status=job.status,
            progress=_percent(job),
            created_at=int(job.created_at),
            completed_at=None if job.completed_at is None else int(job.completed_at),
            expires_at=None,
            prompt=request.prompt,
            size=request.delivery.size,
            seconds=f"{request.delivery.seconds:.12g}",
            remixed_from_video_id=None,
            error=job.error and VideoError(code=job.error.code, message=job.error.message),
            negative_prompt=request.negative_prompt,
            seed=request.seed,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            fps=request.delivery.fps,
            num_frames=request.delivery.frames,
            native_size=request.shape.size,
            warnings=job.warnings,
            stage=running and running.stage,
            step=running and running.step,
            total_steps=running and running.total,
            eta_s=running and running.eta_s,
            queue_position=queue_position if job.status is JobStatus.QUEUED else None,
            inference_time_s=result and math.fsum(result.stage_s.values()),
            peak_memory_mb=result and result.peak_memory_bytes / 1e6,
            stage_durations=result and result.stage_s,
        )


def _percent(job: Job) -> int:
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


class VideoDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


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
    sizes: list[str] = Field(description="Native sizes, the default first; others of similar proportions are scaled.")
    fps: int
    max_seconds: float
    num_inference_steps: int
    guidance_scale: float

    @classmethod
    def of(cls, name: str, card: ModelCard) -> Model:
        """Describe the card under the name that it was asked for by."""
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
            sizes=[str(size) for size in card.shape.sizes],
            fps=card.shape.fps,
            max_seconds=float(card.shape.max_frames // card.shape.fps),
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


class Worker(BaseModel):
    """A worker process, as it last announced itself."""

    device: str
    model: str | None = Field(description="The card that it has loaded.")
    busy: bool


class Health(BaseModel):
    """The API process is alive."""

    status: Literal["ok"] = "ok"
    version: str


class Ready(BaseModel):
    """Videos can be made."""

    status: Literal["ready"] = "ready"
    workers: list[Worker]


def create_body_schema(*, multipart: bool) -> dict[str, Any]:
    """Return the JSON schema of a creation's body; a form carries the reference image as a file."""
    schema = VideoCreate.model_json_schema(ref_template="#/components/schemas/{model}")
    picture = "The first frame: a JPEG, PNG or WebP image, cropped to cover the clip"
    by_url = {
        "type": "object",
        "properties": {"image_url": {"type": "string", "description": "A data: URL"}},
        "required": ["image_url"],
        "additionalProperties": False,
    }
    reference = {"type": "string", "format": "binary"} if multipart else by_url
    schema["properties"]["input_reference"] = {**reference, "description": picture}
    return schema
