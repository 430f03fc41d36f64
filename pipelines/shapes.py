"""Which clips a model makes: sizes, frame counts, and the windows that longer clips are made in. Pure arithmetic."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from pipelines.types import VideoShape, Window

MAX_SECONDS = 20.0
# A size that is made in two stages costs as its pixels do: it is for wishes that have at least this share of them.
LEAST_SHARE = 0.75


class FrameSize(BaseModel):
    """Width and height in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    width: PositiveInt
    height: PositiveInt
    stages: Literal[1, 2] = Field(
        default=1, description="2 if clips are made at half the width and height, brought to twice that, and refined."
    )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class ShapeRules(BaseModel):
    """Which clips the model makes. A frame count is valid if it is ``stride * k + offset`` within the bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sizes: tuple[FrameSize, ...] = Field(min_length=1, description="Native sizes, the default first.")
    fps: PositiveInt
    frame_stride: PositiveInt
    frame_offset: PositiveInt = 1
    latent_stride: PositiveInt | None = Field(default=None, description="Frames per token, if not frame_stride.")
    latents: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="Latents of frame_stride frames and of frame_offset frames, if not one of each."
    )
    min_frames: PositiveInt
    max_frames: PositiveInt
    overlap: NonNegativeInt = Field(
        default=0, description="Last frames of a clip from which the model goes on with it; 0 if it cannot."
    )
    pixels_per_token: PositiveInt = Field(description="Side of the square that a token covers: VAE stride x patch.")

    @model_validator(mode="after")
    def _bounds_are_valid_counts(self) -> ShapeRules:
        for frames in (self.min_frames, self.max_frames, self.overlap or 1):
            if frames > 1 and not self.is_valid(frames):
                raise ValueError(f"{frames} frames is not {self.frame_rule}")
        if self.overlap >= self.min_frames:
            raise ValueError("the overlap leaves no room for new frames")
        return self

    @model_validator(mode="after")
    def _halves_are_whole_tokens(self) -> ShapeRules:
        multiple = 2 * self.pixels_per_token
        for size in self.sizes:
            if size.stages == 2 and (size.width % multiple or size.height % multiple):
                raise ValueError(f"{size} is made in two stages, so both sides have to be multiples of {multiple}")
        return self

    @property
    def max_seconds(self) -> float:
        """The longest new clip."""
        return MAX_SECONDS if self.overlap else float(self.max_frames // self.fps)

    @property
    def frame_rule(self) -> str:
        """Which counts of frames there are, as people write it: ``4k+1``."""
        return f"{self.frame_stride}k+{self.frame_offset}"

    def is_valid(self, frames: int) -> bool:
        """Tell whether a count follows the rule, whatever the bounds."""
        return (frames - self.frame_offset) % self.frame_stride == 0

    def floored(self, frames: int) -> int:
        """Return the largest count by the rule that is at most ``frames``."""
        return frames - (frames - self.frame_offset) % self.frame_stride

    def frames_for(self, wanted: int) -> int:
        """Return the smallest valid count that is at least ``wanted``, within the bounds."""
        return min(max(self.floored(wanted + self.frame_stride - 1), self.min_frames), self.max_frames)

    def windows_for(self, wanted: int, *, before: int = 0, alike: bool = False) -> tuple[Window, ...]:
        """Return the pieces in which to make ``wanted`` new frames that follow ``before`` frames.

        Every piece but a clip's very first begins with frames that are there already. All are as long as can be but
        the last one, which is no longer than it must be; or, if they are to be ``alike``, just as many are about as
        long as each other.
        """
        windows: list[Window] = []
        count = len(self.windows_for(wanted, before=before)) if alike else 1
        missing = wanted
        while missing > 0:
            overlap = self._overlap_after(before)
            to_come = max(0, count - len(windows) - 1)
            # What is to be made, and made twice, in equal parts.
            share = -(-(missing + overlap + to_come * self.overlap) // (to_come + 1))
            window = Window(self.frames_for(share), overlap)
            windows.append(window)
            missing, before = missing - window.new, before + window.new
        return tuple(windows)

    def _overlap_after(self, frames: int) -> int:
        """Return how many of the last of ``frames`` a window goes on from."""
        # What is given is encoded by itself, one frame and then as many as a latent stands for.
        stride = self.latent_stride or self.frame_stride
        return (min(frames, self.overlap) - 1) // stride * stride + 1 if frames else 0

    def tokens(self, shape: VideoShape) -> int:
        """Return how many tokens a window of this shape has, conditions not counted."""
        side = self.pixels_per_token
        return self._latents_of(shape.frames) * (shape.height // side) * (shape.width // side)

    def _latents_of(self, frames: int) -> int:
        if self.latents is not None:
            per_stride, of_offset = self.latents
            return -(-(frames - self.frame_offset) // self.frame_stride) * per_stride + of_offset
        stride = self.latent_stride or self.frame_stride
        return -(-(frames - 1) // stride) + 1

    @property
    def has_two_stages(self) -> bool:
        """Whether there is a size that is made in two stages."""
        return any(size.stages == 2 for size in self.sizes)

    def first_stage(self, shape: VideoShape) -> VideoShape:
        """Return what is denoised from noise: the shape itself, or half of it each way if it is made in two stages."""
        if FrameSize(width=shape.width, height=shape.height, stages=2) not in self.sizes:
            return shape
        return halved(shape)

    def nearest(self, width: int, height: int, *, at_once: bool = False) -> FrameSize:
        """Return the native size whose aspect is closest; of several such, the one whose area is.

        Args:
            width: What is wanted.
            height: What is wanted.
            at_once: Whether sizes that are made in two stages do not count.
        """

        def distance(size: FrameSize) -> tuple[float, float]:
            area = math.log(size.width * size.height / (width * height))
            return round(crop_share(size, width, height), 3), abs(area)

        most = 0 if at_once else width * height / LEAST_SHARE
        able = [size for size in self.sizes if size.stages == 1 or size.width * size.height <= most]
        return min(able or self.sizes, key=distance)


def halved(shape: VideoShape) -> VideoShape:
    """Return a shape of half the width and height."""
    return shape._replace(width=shape.width // 2, height=shape.height // 2)


def crop_share(native: FrameSize, width: int, height: int) -> float:
    """Return the share of the native picture that is lost when it is cropped to ``width`` : ``height``."""
    ratio = (native.width * height) / (native.height * width)
    return 1 - min(ratio, 1 / ratio)
