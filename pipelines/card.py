"""Model cards: everything the project knows about a model before it is loaded."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from pipelines.errors import MissingCapability, UnsupportedOption, UnsupportedShape
from pipelines.licence import Licence
from pipelines.memory import Memory
from pipelines.shapes import MAX_SECONDS, FrameSize, ShapeRules, crop_share
from pipelines.types import LAST, DType, GenerationRequest, Lora, SourceClip, VideoShape, Window
from pipelines.weights import Weights
from pipelines.wish import Resolved, Wish

Capability = Literal[
    "text", "first_frame", "last_frame", "references", "audio", "negative_prompt", "edit", "extend", "lora"
]

# The longest that a clip may become by extensions, and the most of a source that is edited.
MAX_TOTAL_SECONDS = 120.0
MIN_SIDE, MAX_SIDE = 64, 2048
# A size may be reached by cropping at most this share of the native picture; more would cut the subject.
MAX_CROP = 0.25
MAX_SEED = 2**32 - 1
PICTURE_PARAMS = {"first_frame": "input_reference", "last_frame": "last_frame", "references": "characters"}
MAX_FLOW_SHIFT = 20.0
MAX_PROMPT = 32_000


class Sampling(BaseModel):
    """Defaults and limits of the denoising loop."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    num_inference_steps: PositiveInt
    min_inference_steps: PositiveInt = 1
    max_inference_steps: PositiveInt = 100
    guidance_scale: PositiveFloat
    max_guidance_scale: PositiveFloat = 20.0
    guidance_scale_2: PositiveFloat | None = Field(
        default=None, description="Guidance of the second expert, for models that have one for low noise."
    )
    flow_shift: PositiveFloat | None = Field(
        default=None, description="How far noise levels are shifted upwards, for models that let it be chosen."
    )
    refine_steps: PositiveInt | None = Field(
        default=None, description="Steps of the second stage of sizes that are made in two."
    )
    negative_prompt: str = ""
    edit_strength: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.7, description="How far an edit goes from its source if nobody says: 0 keeps it, 1 forgets it."
    )


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
    memory: Memory = Field(default=Memory(), description="What it needs beside its weights.")
    capabilities: frozenset[Capability]
    requires: frozenset[Literal["first_frame", "last_frame", "references"]] = Field(
        default=frozenset(), description="Pictures without which the model makes nothing."
    )
    max_references: NonNegativeInt = Field(default=0, description="How many given characters a clip can show.")
    max_reference_clips: NonNegativeInt = Field(
        default=0, description="Of how many of them the model looks at a clip and its sound, not at a picture alone."
    )
    created: PositiveInt = Field(description="Unix time of the weights' publication.")
    options: dict[str, JsonValue] = Field(default_factory=dict, description="What only the family understands.")

    @model_validator(mode="after")
    def _capabilities_are_backed(self) -> ModelCard:
        if bool(self.max_references) != ("references" in self.capabilities):
            raise ValueError("max_references and the capability references belong together")
        if "extend" in self.capabilities and not self.shape.overlap:
            raise ValueError("a model that extends clips needs an overlap")
        if self.shape.has_two_stages != (self.sampling.refine_steps is not None):
            raise ValueError("sizes in two stages and refine_steps belong together")
        return self

    @property
    def dtypes(self) -> dict[str, DType]:
        """What parts compute in that do not follow the plan."""
        return {name: part.dtype for name, part in self.weights.components.items() if part.dtype is not None}

    def in_one_stage(self) -> ModelCard:
        """Return the card without its sizes in two stages and what only these need; itself if they are none or all."""
        sizes = tuple(size for size in self.shape.sizes if size.stages == 1)
        if len(sizes) in (0, len(self.shape.sizes)):
            return self
        changes = {
            "shape": self.shape.model_copy(update={"sizes": sizes}),
            "sampling": self.sampling.model_copy(update={"refine_steps": None}),
            "weights": self.weights.in_one_stage(),
        }
        return ModelCard.model_validate(dict(self) | changes)

    def resolve(self, wish: Wish) -> Resolved:
        """Apply the card's defaults and rules.

        Raises:
            UnsupportedShape: The size, length or frame rate cannot be made.
            UnsupportedOption: A parameter is out of range or not honoured by this model.
        """
        warnings: list[str] = []
        self._check_conditions(wish)
        self._check_references(wish.references)
        self._check_source(wish, warnings)
        self._check_fps(wish.fps)
        width, height = self._size(wish, warnings)
        native = self._native(wish.source, width, height)
        new, delivered = self._frames(wish, warnings)
        windows = self._windows(new, wish, warnings)
        made = sum(window.new for window in windows)
        if _ends_with_a_picture(wish) and made != new:
            # Nothing may be cut off the end.
            delivered += made - new
            warnings.append(
                f"{delivered} frames instead of {delivered - made + new}, so that the last one is the picture that "
                "was given"
            )
        if (width, height) != (native.width, native.height):
            warnings.append(f"generated at {native} and scaled to {width}x{height}")
        request = GenerationRequest(
            prompt=wish.prompt,
            negative_prompt=self._negative_prompt(wish.negative_prompt),
            shape=VideoShape(made, native.height, native.width, self.shape.fps),
            delivery=VideoShape(delivered, height, width, self.shape.fps),
            seed=self._seed(wish.seed),
            num_inference_steps=self._steps(wish.num_inference_steps),
            refine_steps=self._refine_steps(wish.source, native),
            guidance_scale=self._guidance(wish.guidance_scale),
            guidance_scale_2=self._guidance_2(wish),
            flow_shift=self._flow_shift(wish.flow_shift),
            step_cache=_step_cache(wish.step_cache),
            sound=self._sound(wish, windows, warnings),
            conditions=tuple(c if c.frame >= 0 else replace(c, frame=made - 1) for c in wish.conditions),
            source=wish.source and replace(wish.source, strength=self._strength(wish.strength)),
            references=self._references(wish),
            loras=self._loras(wish.loras),
            windows=windows if wish.source or len(windows) > 1 else (),
        )
        return Resolved(request, tuple(warnings))

    def _size(self, wish: Wish, warnings: list[str]) -> tuple[int, int]:
        if wish.size is not None:
            self._check_size(*wish.size)
            return wish.size
        if wish.aspect_ratio is not None:
            return self._size_of_aspect(*wish.aspect_ratio)
        if wish.source is None:
            return self.shape.sizes[0].width, self.shape.sizes[0].height
        width, height = wish.source.shape.width, wish.source.shape.height
        try:
            self._check_size(width, height)
        except UnsupportedShape:
            # A file from elsewhere has whatever size it has; it is for us to find the nearest.
            native = self._native(wish.source, width, height)
            warnings.append(f"the source is {width}x{height}, which {self.id} does not make; the result is {native}")
            return native.width, native.height
        return width, height

    def _native(self, source: SourceClip | None, width: int, height: int) -> FrameSize:
        """Return the size that is made; edits, whose source is there at its full size, are made at once."""
        return self.shape.nearest(width, height, at_once=source is not None and source.use == "edit")

    def _size_of_aspect(self, across: int, down: int) -> tuple[int, int]:
        native = self.shape.nearest(across, down)
        if crop_share(native, across, down) > MAX_CROP:
            sizes = ", ".join(str(size) for size in self.shape.sizes)
            raise UnsupportedShape(f"{self.id} makes {sizes}; none is near {across}:{down}.", param="aspect_ratio")
        return native.width, native.height

    def _check_size(self, width: int, height: int) -> None:
        for side in (width, height):
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

    def _frames(self, wish: Wish, warnings: list[str]) -> tuple[int, int]:
        """Return how many new frames are wanted and how many the file will have."""
        if wish.source is None:
            new = self._new_frames(wish, warnings)
            return new, new
        there = wish.source.frames_at(self.shape.fps)
        if wish.source.use == "extend":
            new = self._new_frames(wish, warnings)
            total = there + new
            if total > MAX_TOTAL_SECONDS * self.shape.fps:
                raise UnsupportedShape(
                    f"The clip has {there / self.shape.fps:g} seconds; with {new / self.shape.fps:g} more it would be "
                    f"longer than {MAX_TOTAL_SECONDS:g}.",
                    param="seconds",
                )
            return new, total
        longest = int(MAX_TOTAL_SECONDS * self.shape.fps) if self.shape.overlap else self.shape.max_frames
        if there > longest:
            warnings.append(f"only the first {longest / self.shape.fps:g} seconds of the source are edited")
        return min(there, longest), min(there, longest)

    def _new_frames(self, wish: Wish, warnings: list[str]) -> int:
        rules = self.shape
        if wish.num_frames is not None:
            self._check_num_frames(wish.num_frames)
            return wish.num_frames
        seconds = min(4.0, rules.max_seconds) if wish.seconds is None else wish.seconds
        if not 1.0 <= seconds <= MAX_SECONDS:
            raise UnsupportedShape(f"seconds must be between 1 and {MAX_SECONDS:g}.", param="seconds")
        if seconds > rules.max_seconds:
            warnings.append(f"{self.id} makes at most {rules.max_seconds:g} seconds; {seconds:g} were asked for")
            seconds = rules.max_seconds
        return round(seconds * rules.fps)

    def _check_num_frames(self, wanted: int) -> None:
        rules = self.shape
        most = max(rules.max_frames, int(rules.max_seconds * rules.fps))
        closest = rules.floored(min(max(wanted, rules.min_frames), most))
        if closest != wanted:
            raise UnsupportedShape(
                f"num_frames must be {rules.frame_rule} from {rules.min_frames} to {rules.floored(most)}; "
                f"the closest to {wanted} is {closest}.",
                param="num_frames",
            )

    def _windows(self, wanted: int, wish: Wish, warnings: list[str]) -> tuple[Window, ...]:
        source = wish.source
        before = source.frames_at(self.shape.fps) if source and source.use == "extend" else 0
        # The picture at the end belongs to the last window alone, which needs time to come to it.
        windows = self.shape.windows_for(wanted, before=before, alike=_ends_with_a_picture(wish))
        if len(windows) > 1:
            warnings.append(f"made in {len(windows)} windows, each of which goes on from the one before")
        return windows

    def _check_fps(self, fps: int | None) -> None:
        if fps is not None and fps != self.shape.fps:
            raise UnsupportedShape(f"{self.id} makes {self.shape.fps} frames per second, not {fps}.", param="fps")

    def _check_conditions(self, wish: Wish) -> None:
        given = {("first_frame" if condition.frame == 0 else "last_frame") for condition in wish.conditions}
        for capability in sorted(given - self.capabilities):
            param = PICTURE_PARAMS[capability]
            what = "reference image" if capability == "first_frame" else "picture for its last frame"
            raise MissingCapability(f"{self.id} takes no {what}.", param=param, capability=capability)
        if wish.source is None:
            for missing in sorted(self.requires - given - ({"references"} if wish.references else set())):
                what = "character" if missing == "references" else f"picture for its {missing.replace('_', ' ')}"
                message = f"{self.id} needs a {what}."
                raise MissingCapability(message, param=PICTURE_PARAMS[missing], capability="text")

    def _check_references(self, references: tuple[Path, ...]) -> None:
        if references and not self.max_references:
            raise MissingCapability(
                f"{self.id} cannot show a given character.", param="characters", capability="references"
            )
        if len(references) > self.max_references:
            raise UnsupportedOption(
                f"{self.id} takes at most {self.max_references} character{'s' if self.max_references > 1 else ''} "
                f"at a time; {len(references)} were given.",
                param="characters",
            )

    def _references(self, wish: Wish) -> tuple[Path, ...]:
        filmed = [picture for picture in wish.references if picture in wish.clips][: self.max_reference_clips]
        return tuple(wish.clips[picture] if picture in filmed else picture for picture in wish.references)

    def _check_source(self, wish: Wish, warnings: list[str]) -> None:
        source = wish.source
        if source is None:
            return
        if source.use not in self.capabilities:
            verb = "edit" if source.use == "edit" else "extend"
            raise MissingCapability(f"{self.id} cannot {verb} videos.", param="video", capability=source.use)
        if source.use == "edit" and (wish.references or wish.conditions):
            what, param = ("characters", "characters") if wish.references else ("a reference image", "input_reference")
            raise UnsupportedOption(f"An edit takes its pictures from the source; leave out {what}.", param=param)
        if source.shape.fps != self.shape.fps:
            warnings.append(f"the source has {source.shape.fps} frames per second; the result has {self.shape.fps}")

    def _loras(self, wanted: tuple[Lora, ...]) -> tuple[Lora, ...]:
        if wanted and "lora" not in self.capabilities:
            raise MissingCapability(f"{self.id} takes no LoRA.", param="lora", capability="lora")
        return wanted

    def _strength(self, wanted: float | None) -> float:
        if wanted is None:
            return self.sampling.edit_strength
        if not 0 < wanted <= 1:
            raise UnsupportedOption("strength must be above 0 and at most 1.", param="strength")
        return wanted

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
        least, most = self.sampling.min_inference_steps, self.sampling.max_inference_steps
        if not least <= wanted <= most:
            able = f"between {least} and {most}" if least < most else f"{most} for {self.id}"
            raise UnsupportedOption(f"num_inference_steps must be {able}.", param="num_inference_steps")
        return wanted

    def _refine_steps(self, source: SourceClip | None, native: FrameSize) -> int:
        edits = source is not None and source.use == "edit"
        return self.sampling.refine_steps or 0 if native.stages == 2 and not edits else 0

    def _guidance(self, wanted: float | None, param: str = "guidance_scale") -> float:
        if wanted is None:
            return self.sampling.guidance_scale
        limit = self.sampling.max_guidance_scale
        if not 0 <= wanted <= limit:
            raise UnsupportedOption(f"{param} must be between 0 and {limit:g}.", param=param)
        return wanted

    def _guidance_2(self, wish: Wish) -> float:
        own = self.sampling.guidance_scale_2
        if own is None:
            if wish.guidance_scale_2 is not None:
                raise UnsupportedOption(f"{self.id} has no second expert to guide.", param="guidance_scale_2")
            return self._guidance(wish.guidance_scale)
        if wish.guidance_scale_2 is not None:
            return self._guidance(wish.guidance_scale_2, "guidance_scale_2")
        # Whoever chooses one number means both experts.
        return own if wish.guidance_scale is None else wish.guidance_scale

    def _flow_shift(self, wanted: float | None) -> float:
        own = self.sampling.flow_shift
        if wanted is None:
            return own or 1.0
        if own is None:
            raise UnsupportedOption(f"{self.id} does not let flow_shift be chosen.", param="flow_shift")
        if not 0 < wanted <= MAX_FLOW_SHIFT:
            raise UnsupportedOption(f"flow_shift must be above 0 and at most {MAX_FLOW_SHIFT:g}.", param="flow_shift")
        return wanted

    def _sound(self, wish: Wish, windows: tuple[Window, ...], warnings: list[str]) -> bool:
        able = "audio" in self.capabilities
        if wish.sound and not able:
            raise MissingCapability(f"{self.id} makes no sound.", param="generate_sound", capability="audio")
        if not able or wish.sound is False:
            return False
        if wish.source is not None or len(windows) > 1:
            # Sound is made with its window, and would end and begin anew where windows meet.
            warnings.append("the clip has no sound, which is made for new clips of one window only")
            return False
        return True


def _step_cache(wanted: float | None) -> float:
    share = wanted or 0.0
    if not 0 <= share <= 1:
        raise UnsupportedOption("step_cache must be between 0 and 1.", param="step_cache")
    return share


def _ends_with_a_picture(wish: Wish) -> bool:
    return any(condition.frame == LAST for condition in wish.conditions)
