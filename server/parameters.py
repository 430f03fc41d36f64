"""What a request may ask for: the parameters of every call that makes videos, and their rules.

Descriptions complete "Expected …" in an error's sentence. Pictures, clips and characters are not in here: they arrive
as files, as ids or as addresses, and have modules of their own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipelines.card import MAX_PROMPT, MAX_SECONDS, MAX_SEED, Wish

DEFAULT_MODEL = "sora-2"
MAX_VARIATIONS = 64
MAX_JOINED = 32
MAX_PRIORITY = 10
MAX_LORAS, MAX_LORA_WEIGHT = 8, 4.0
# Parameters that other servers of this API take. Nothing here honours them yet, and nobody shall believe so.
FOREIGN_PARAMETERS = frozenset(
    {
        "audio_reference",
        "enable_frame_interpolation",
        "extra_params",
        "image_reference",
        "sound_duration",
        "video_reference",
    }
)
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")
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
        raise ValueError("The text is empty.")
    return text


def _not_bool(value: object) -> object:
    # To Python, true is the number 1.
    if isinstance(value, bool):
        raise ValueError("A boolean is not a number.")  # noqa: TRY004 - pydantic collects ValueError only
    return value


def conflict(param: str, message: str) -> PydanticCustomError:
    """Return the complaint of a validator about several parameters, which a plain ValueError could not name."""
    return PydanticCustomError("conflict", "{message}", {"message": message, "param": param})


Text = Annotated[str, BeforeValidator(_plain_line_ends), Field(max_length=MAX_PROMPT), AfterValidator(_storable)]
Prompt = Annotated[Text, Field(min_length=1), AfterValidator(_not_blank)]
Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_storable)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=-_WORD, le=_WORD)]
Number = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
Priority = Annotated[Count, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)]
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_storable)],
        Annotated[str, Field(max_length=512), AfterValidator(_storable)],
    ],
    Field(max_length=16),
]


class LoraChoice(BaseModel):
    """A LoRA and how strongly it counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$", max_length=200)]
    weight: Annotated[Number, Field(ge=-MAX_LORA_WEIGHT, le=MAX_LORA_WEIGHT)] = 1.0


def _lora_list(value: object) -> object:
    """Take ``name:0.8`` for what it means, also several with commas between, and one where a list is expected."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if isinstance(value, dict):
        value = [cast("object", value)]
    return [_lora(part) for part in cast("list[object]", value)] if isinstance(value, list) else value


def _lora(value: object) -> object:
    if not isinstance(value, str):
        return value
    name, colon, weight = value.rpartition(":")
    return {"name": name, "weight": weight} if colon else {"name": value}


Loras = Annotated[list[LoraChoice], BeforeValidator(_lora_list), Field(min_length=1, max_length=MAX_LORAS)]

_METADATA = "up to 16 pairs of text, keys of up to 64 and values of up to 512 characters"
_PRIORITY = f"a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}; larger goes first"


class Making(BaseModel):
    """What every call that makes a video takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description=f"a text of 1 to {MAX_PROMPT:,} characters that says what to show")
    seed: Count | None = Field(default=None, description="a whole number; without it, one is drawn")
    negative_prompt: Text | None = Field(default=None, description="a text that says what not to show")
    num_inference_steps: Count | None = Field(default=None, description="a number of denoising steps, such as 20")
    guidance_scale: Number | None = Field(default=None, description="a number such as 4.0; up to 1 means no guidance")
    guidance_scale_2: Number | None = Field(
        default=None, description="a number such as 3.0, for models with a second expert for low noise"
    )
    flow_shift: Number | None = Field(
        default=None, description="a number such as 5.0, for models that let their noise levels be shifted"
    )
    step_cache: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="a number from 0 to 1 such as 0.05, the share below which a step that hardly differs from the last "
        "takes its results: faster, and lossy; 0 computes every step",
    )
    generate_sound: bool | None = Field(
        default=None, description="true or false; without it, models that make sound make it"
    )
    lora: Loras | None = Field(
        default=None, description="names of LoRAs in the server's folder, such as 'film-grain:0.8'"
    )
    priority: Priority | None = Field(default=None, description=_PRIORITY)
    metadata: Metadata | None = Field(default=None, description=_METADATA)

    def wish(self) -> Wish:
        """Return what was asked for, in the models' words."""
        return Wish(
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            seed=self.seed,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            guidance_scale_2=self.guidance_scale_2,
            flow_shift=self.flow_shift,
            step_cache=self.step_cache,
            sound=self.generate_sound,
        )


class _Framed(Making):
    """What a video that starts from nothing takes."""

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
    aspect_ratio: str | None = Field(
        default=None,
        pattern=rf"^{_RATIO.pattern}$",
        description="WIDTH:HEIGHT such as '16:9', which picks the nearest size of the model; or use size",
    )
    fps: Count | None = Field(default=None, description="a frame rate that the model makes, such as 8")
    num_frames: Count | None = Field(default=None, description="a number of frames that the model makes")

    reference_fit: Literal["cover", "contain", "exact"] = Field(
        default="cover",
        description="cover (crop input_reference to the clip's size), contain (add bars) or exact (refuse other sizes)",
    )

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> _Framed:
        if (self.width is None) != (self.height is None):
            raise conflict(
                "width" if self.width is None else "height", "width and height belong together: give both, or size."
            )
        if self.size and self.width is not None and self.size != f"{self.width}x{self.height}":
            raise conflict("size", f"size {self.size} contradicts width and height: give one of the two.")
        if self.aspect_ratio is not None and (self.size is not None or self.width is not None):
            raise conflict("aspect_ratio", "size says the proportions already: leave out aspect_ratio.")
        if self.seconds is not None and self.num_frames is not None:
            raise conflict("num_frames", "seconds and num_frames both say how long the clip is: give one of the two.")
        return self

    def wish(self) -> Wish:
        """Return what was asked for, in the models' words."""
        wish = super().wish()
        ratio = _RATIO.fullmatch(self.aspect_ratio or "")
        return replace(
            wish,
            size=self._pixels(),
            aspect_ratio=(int(ratio[1]), int(ratio[2])) if ratio else None,
            seconds=self.seconds,
            num_frames=self.num_frames,
            fps=self.fps,
        )

    def _pixels(self) -> tuple[int, int] | None:
        if self.width is not None and self.height is not None:
            return self.width, self.height
        found = _SIZE.fullmatch(self.size or "")
        return (int(found[1]), int(found[2])) if found else None


class VideoCreate(_Framed):
    """The parameters of a new video."""

    model: Name = Field(default=DEFAULT_MODEL, description="the name of a model that GET /v1/models lists")


class VideoVariations(_Framed):
    """The parameters of several videos of one prompt: one for each pair of a model and a seed."""

    model: Name | None = Field(default=None, description="the name of one model; or use models")
    models: Annotated[list[Name], Field(min_length=1, max_length=MAX_VARIATIONS)] | None = Field(
        default=None, description="a list of names of models that GET /v1/models lists"
    )
    n: Annotated[Count, Field(ge=1, le=MAX_VARIATIONS)] | None = Field(
        default=None, description=f"how many seeds, from 1 to {MAX_VARIATIONS}; they count up from seed if it is given"
    )
    seeds: Annotated[list[Count], Field(min_length=1, max_length=MAX_VARIATIONS)] | None = Field(
        default=None, description="a list of whole numbers; or use n"
    )

    @model_validator(mode="after")
    def _says_which(self) -> VideoVariations:
        if self.model is not None and self.models is not None:
            raise conflict("models", "model and models both say who makes the videos: give one of the two.")
        if self.seeds is not None and (self.seed is not None or self.n is not None):
            raise conflict("seeds", "seeds says which seeds there are: leave out seed and n.")
        for name, given in (("models", self.models or []), ("seeds", self.seeds or [])):
            if len(set(given)) < len(given):
                raise conflict(name, f"{name} names the same twice; each pair of model and seed makes one video.")
        if self.seed is not None and self.seed + (self.n or 1) - 1 > MAX_SEED:
            raise conflict("n", f"Counting up from seed would pass {MAX_SEED}.")
        if len(self.all_models()) * (self.n or len(self.seeds or [0])) > MAX_VARIATIONS:
            raise conflict(
                "seeds" if self.seeds else "n", f"That is more than {MAX_VARIATIONS} videos; make them in parts."
            )
        return self

    def all_models(self) -> list[str]:
        """Return the models that are wanted."""
        return self.models or [self.model or DEFAULT_MODEL]


class VideoEdit(Making):
    """The parameters of a remix or an edit; without a model, the source's makes it."""

    model: Name | None = Field(default=None, description="the name of a model that GET /v1/models lists")
    strength: Number | None = Field(
        default=None, description="how far to go from the source, above 0 (keep it) up to 1 (forget it)"
    )

    def wish(self) -> Wish:
        """Return what was asked for, in the models' words."""
        return replace(super().wish(), strength=self.strength)


class VideoExtension(Making):
    """The parameters of an extension; without a model, the source's makes it."""

    seconds: Number = Field(description=f"the length of what is to be added, 1 to {MAX_SECONDS:g} seconds")
    model: Name | None = Field(default=None, description="the name of a model that GET /v1/models lists")

    def wish(self) -> Wish:
        """Return what was asked for, in the models' words."""
        return replace(super().wish(), seconds=self.seconds)


class JoinPart(BaseModel):
    """A video to join, or the part of it from ``start_frame`` up to but without ``end_frame``, counted from 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    start_frame: Annotated[Count, Field(ge=0)] = 0
    end_frame: Annotated[Count, Field(ge=1)] | None = None


class VideoJoin(BaseModel):
    """The parameters of a video that is joined from others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    videos: Annotated[list[JoinPart], Field(min_length=1, max_length=MAX_JOINED)] = Field(
        description=f"a list of up to {MAX_JOINED} completed videos as {{'id': 'video_…'}}, each with start_frame and "
        "end_frame if only a part of it is wanted; one alone has to be such a part"
    )
    priority: Priority | None = Field(default=None, description=_PRIORITY)
    metadata: Metadata | None = Field(default=None, description=_METADATA)

    @model_validator(mode="after")
    def _changes_something(self) -> VideoJoin:
        first = self.videos[0]
        if len(self.videos) == 1 and not first.start_frame and first.end_frame is None:
            raise conflict("videos", "One video alone is there already: name another, or which part of it is wanted.")
        return self


class VideoUpdate(BaseModel):
    """What can be changed of an accepted video."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    starred: bool | None = Field(default=None, description="true or false; what is starred is not pruned")
    priority: Priority | None = Field(default=None, description=_PRIORITY)
    metadata: Metadata | None = Field(default=None, description=f"{_METADATA}; they replace those from before")


class CharacterCreate(BaseModel):
    """The parameters of a character, besides the clip or picture of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=80), AfterValidator(_storable), AfterValidator(_not_blank)] = (
        Field(description="a name of 1 to 80 characters, by which prompts speak of the character")
    )
