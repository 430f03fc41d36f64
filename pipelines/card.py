"""Model cards: everything the project knows about a model before it is loaded."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, JsonValue, PositiveFloat, PositiveInt, model_validator

from pipelines.errors import UnsupportedOption, UnsupportedShape
from pipelines.types import GenerationRequest, ImageCondition, SourceClip, VideoShape

Capability = Literal["text", "first_frame", "last_frame", "references", "audio", "negative_prompt", "edit", "extend"]

MAX_SECONDS = 20.0
MIN_SIDE, MAX_SIDE = 64, 2048
# A size may be reached by cropping at most this share of the native picture; more would cut the subject.
MAX_CROP = 0.25
MAX_SEED = 2**32 - 1
MAX_PROMPT = 32_000


class FrameSize(BaseModel):
    """Width and height in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: PositiveInt
    height: PositiveInt

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class ShapeRules(BaseModel):
    """Which clips the model makes. A frame count is valid if it is ``frame_stride * k + 1`` within the bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sizes: tuple[FrameSize, ...] = Field(min_length=1, description="Native sizes, the default first.")
    fps: PositiveInt
    frame_stride: PositiveInt
    min_frames: PositiveInt
    max_frames: PositiveInt

    @model_validator(mode="after")
    def _bounds_are_valid_counts(self) -> ShapeRules:
        for frames in (self.min_frames, self.max_frames):
            if (frames - 1) % self.frame_stride:
                raise ValueError(f"{frames} frames is not {self.frame_stride}k+1")
        return self

    def frames_for(self, wanted: int) -> int:
        """Return the smallest valid count that is at least ``wanted``, within the bounds."""
        steps = -(-(wanted - 1) // self.frame_stride)
        return min(max(steps * self.frame_stride + 1, self.min_frames), self.max_frames)

    def nearest(self, width: int, height: int) -> FrameSize:
        """Return the native size whose aspect is closest."""
        return min(self.sizes, key=lambda size: crop_share(size, width, height))


class Sampling(BaseModel):
    """Defaults and limits of the denoising loop."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_inference_steps: PositiveInt
    max_inference_steps: PositiveInt = 100
    guidance_scale: PositiveFloat
    max_guidance_scale: PositiveFloat = 20.0
    negative_prompt: str = ""


class Licence(BaseModel):
    """What the weights may be used for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    url: HttpUrl
    note: str = ""


class Weights(BaseModel):
    """Where the weights are: inside the project, or in a hub repository at a pinned revision."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    package: str | None = Field(default=None, description="Folder of this checkout, dotted: 'pipelines.embedded'.")
    repo: str | None = Field(default=None, description="Hub repository, 'owner/name'.")
    revision: str = Field(description="Commit of the repository, or version of the packaged weights.")

    @model_validator(mode="after")
    def _exactly_one_place(self) -> Weights:
        if (self.package is None) == (self.repo is None):
            raise ValueError("name either package or repo")
        return self


@dataclass(frozen=True)
class Wish:
    """What somebody asked for. None means that the card decides; this is the one place where it may."""

    prompt: str
    negative_prompt: str | None = None
    size: tuple[int, int] | None = None
    """Width and height of the file."""
    seconds: float | None = None
    num_frames: int | None = None
    fps: int | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    conditions: tuple[ImageCondition, ...] = ()
    source: SourceClip | None = None
    references: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A request, and in which points it differs from the wish."""

    request: GenerationRequest
    warnings: tuple[str, ...]


class ModelCard(BaseModel):
    """One model. A misspelt key is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    name: str
    description: str
    family: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    licence: Licence
    weights: Weights
    shape: ShapeRules
    sampling: Sampling
    capabilities: frozenset[Capability]
    created: PositiveInt = Field(description="Unix time of the weights' publication.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="What only the family understands.")

    def resolve(self, wish: Wish) -> Resolved:
        """Apply the card's defaults and rules.

        Raises:
            UnsupportedShape: The size, length or frame rate cannot be made.
            UnsupportedOption: A parameter is out of range or not honoured by this model.
        """
        warnings: list[str] = []
        self._check_conditions(wish.conditions)
        width, height = self._size(wish.size)
        native = self.shape.nearest(width, height)
        self._check_fps(wish.fps)
        made, delivered = self._frames(wish, warnings)
        if (width, height) != (native.width, native.height):
            warnings.append(f"generated at {native} and scaled to {width}x{height}")
        request = GenerationRequest(
            prompt=wish.prompt,
            negative_prompt=self._negative_prompt(wish.negative_prompt),
            shape=VideoShape(made, native.height, native.width, self.shape.fps),
            delivery=VideoShape(delivered, height, width, self.shape.fps),
            seed=self._seed(wish.seed),
            num_inference_steps=self._steps(wish.num_inference_steps),
            guidance_scale=self._guidance(wish.guidance_scale),
            conditions=wish.conditions,
            source=wish.source,
            references=wish.references,
        )
        return Resolved(request, tuple(warnings))

    def _size(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        if wanted is None:
            return self.shape.sizes[0].width, self.shape.sizes[0].height
        width, height = wanted
        for side in wanted:
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise UnsupportedShape(
                    f"size {width}x{height}: each side must be {MIN_SIDE} to {MAX_SIDE} pixels.", param="size"
                )
            if side % 2:
                raise UnsupportedShape(f"size {width}x{height}: both sides must be even.", param="size")
        native = self.shape.nearest(width, height)
        if crop_share(native, width, height) > MAX_CROP:
            native_sizes = ", ".join(str(size) for size in self.shape.sizes)
            raise UnsupportedShape(
                f"{self.id} makes {native_sizes}; {width}x{height} is too far from these proportions.", param="size"
            )
        return width, height

    def _frames(self, wish: Wish, warnings: list[str]) -> tuple[int, int]:
        """Return frames to make and frames to deliver."""
        rules = self.shape
        if wish.num_frames is not None:
            if rules.frames_for(wish.num_frames) != wish.num_frames:
                raise UnsupportedShape(
                    f"num_frames must be {rules.frame_stride}k+1 from {rules.min_frames} to {rules.max_frames}; "
                    f"the closest to {wish.num_frames} is {rules.frames_for(wish.num_frames)}.",
                    param="num_frames",
                )
            return wish.num_frames, wish.num_frames
        longest = rules.max_frames // rules.fps
        if wish.seconds is None:
            seconds = min(4.0, float(longest))
        else:
            seconds = wish.seconds
            if not 1.0 <= seconds <= MAX_SECONDS:
                raise UnsupportedShape(f"seconds must be between 1 and {MAX_SECONDS:g}.", param="seconds")
        if seconds > longest:
            warnings.append(f"{self.id} makes at most {longest} seconds; {seconds:g} were asked for")
            seconds = float(longest)
        wanted = round(seconds * rules.fps)
        return rules.frames_for(wanted), wanted

    def _check_fps(self, fps: int | None) -> None:
        if fps is not None and fps != self.shape.fps:
            raise UnsupportedShape(f"{self.id} makes {self.shape.fps} frames per second, not {fps}.", param="fps")

    def _check_conditions(self, conditions: tuple[ImageCondition, ...]) -> None:
        for condition in conditions:
            needed: Capability = "first_frame" if condition.frame == 0 else "last_frame"
            if needed not in self.capabilities:
                raise UnsupportedOption(f"{self.id} takes no reference image.", param="input_reference")

    def _negative_prompt(self, wanted: str | None) -> str:
        if wanted and "negative_prompt" not in self.capabilities:
            raise UnsupportedOption(f"{self.id} ignores negative prompts.", param="negative_prompt")
        return self.sampling.negative_prompt if wanted is None else wanted

    def _seed(self, wanted: int | None) -> int:
        if wanted is None:
            return secrets.randbelow(2**31)
        if not 0 <= wanted <= MAX_SEED:
            raise UnsupportedOption(f"seed must be between 0 and {MAX_SEED}.", param="seed")
        return wanted

    def _steps(self, wanted: int | None) -> int:
        if wanted is None:
            return self.sampling.num_inference_steps
        limit = self.sampling.max_inference_steps
        if not 1 <= wanted <= limit:
            raise UnsupportedOption(f"num_inference_steps must be between 1 and {limit}.", param="num_inference_steps")
        return wanted

    def _guidance(self, wanted: float | None) -> float:
        if wanted is None:
            return self.sampling.guidance_scale
        limit = self.sampling.max_guidance_scale
        if not 0 <= wanted <= limit:
            raise UnsupportedOption(f"guidance_scale must be between 0 and {limit:g}.", param="guidance_scale")
        return wanted


def crop_share(native: FrameSize, width: int, height: int) -> float:
    """Return the share of the native picture that is lost when it is cropped to ``width`` : ``height``."""
    ratio = (native.width * height) / (native.height * width)
    return 1 - min(ratio, 1 / ratio)
