"""What a model needs beside its weights: the numbers on its card from which a plan predicts memory. Pure arithmetic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pipelines.types import DType, VideoShape

# Transient tensors of published denoisers grow with their width, which grows with the third root of their size.
_TOKEN_BYTES_PER_ROOT = 57.0

BYTES: dict[DType, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of one number."""


class Cost(BaseModel):
    """Memory that grows with the frames at hand: so much per pixel of one frame, so much per pixel of each frame."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    pixel: NonNegativeFloat = Field(default=0.0, description="Bytes per pixel of a frame, however many frames.")
    pixel_frame: NonNegativeFloat = Field(default=0.0, description="Bytes per pixel of every frame.")
    least: NonNegativeInt = Field(default=0, description="Bytes below which it never is.")

    def bytes_of(self, shape: VideoShape) -> int:
        """Return what a clip of this shape needs."""
        pixels = shape.width * shape.height
        return max(self.least, int(pixels * (self.pixel + self.pixel_frame * shape.frames)))


class Memory(BaseModel):
    """Peaks of live tensors without weights, while the model computes in what its card says under bfloat16."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    token_bytes: PositiveFloat | None = Field(
        default=None, description="Bytes that the denoiser needs per token; derived from its size if not measured."
    )
    batched_guidance: bool = Field(
        default=False, description="Whether guidance runs both predictions at once, which doubles the tokens."
    )
    refining_is_guided: bool = Field(
        default=True, description="Whether the second stage of sizes that are made in two is guided as the first is."
    )
    connect_bytes: NonNegativeInt = Field(
        default=0,
        description="Bytes that making of words what the denoiser reads needs, for each prediction.",
    )
    blocks: PositiveInt = Field(default=24, description="Blocks of the denoiser: the more, the smaller is each.")
    float16: bool = Field(
        default=False, description="Whether it survives float16, for cards older than bfloat16. Most overflow."
    )
    text_bytes: NonNegativeInt = Field(default=2**28, description="Bytes that encoding the words needs.")
    clip_bytes: NonNegativeInt = Field(
        default=0, description="Bytes that encoding the words needs further for each clip of a subject."
    )
    decode: Cost = Field(default=Cost(pixel_frame=100.0), description="Decoding in one piece.")
    tiled: Cost = Field(default=Cost(pixel_frame=20.0, least=2**30), description="Decoding tile by tile.")
    picture: Cost | None = Field(
        default=None, description="Encoding given frames; three quarters of decoding if not measured."
    )
    always_encodes: bool = Field(
        default=False, description="Whether the VAE encodes for every clip: blank frames where none are given."
    )
    source: str = Field(default="", description="Where the numbers come from.")

    def token_cost(self, params: int) -> float:
        """Return the bytes per token of a denoiser with so many parameters."""
        return self.token_bytes or _TOKEN_BYTES_PER_ROOT * params ** (1 / 3)

    def decode_bytes(self, shape: VideoShape, *, tiled: bool) -> int:
        """Return what decoding a window of this shape needs; tiles are no help where the whole is smaller."""
        whole = self.decode.bytes_of(shape)
        return min(whole, self.tiled.bytes_of(shape)) if tiled else whole

    def picture_bytes(self, shape: VideoShape, *, tiled: bool) -> int:
        """Return what encoding the given frames of a window needs."""
        whole = self.picture.bytes_of(shape) if self.picture else self.decode.bytes_of(shape) * 3 // 4
        return min(whole, self.tiled.bytes_of(shape)) if tiled else whole
