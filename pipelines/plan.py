"""How a model runs on a device: in which numbers, where its parts are, in which pieces it decodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pipelines.types import DType, Stage


class Offload(StrEnum):
    """Where the parts of a model are while they have nothing to do; each needs less of the device than the one before.

    NONE: all on the device. MODEL: on the device for the stages that need them. GROUP: of the denoiser, only a few
    blocks at a time. SEQUENTIAL: only one layer at a time. DISK: as GROUP, and the rest not even in RAM.
    """

    NONE = "none"
    MODEL = "model"
    GROUP = "group"
    SEQUENTIAL = "sequential"
    DISK = "disk"


class Quantisation(StrEnum):
    """How the denoiser's weights are stored: as computed with, or in a byte each."""

    NONE = "none"
    FP8 = "fp8"
    INT8 = "int8"


class Placement(NamedTuple):
    """What of a plan cannot change without loading the model anew."""

    device: str
    dtype: DType
    quantisation: Quantisation
    offload: Offload
    attention: str
    compiled: bool


@dataclass(frozen=True)
class MemoryPlan:
    """How one clip is made.

    Attributes:
        device: ``cpu``, or ``cuda:0`` and the like.
        dtype: What the denoiser and the text encoder compute in; the card says which parts need more.
        quantisation: How the denoiser's weights are stored.
        offload: Where idle parts are.
        text_encoder_on_cpu: Whether words are encoded without the device, since the encoder alone would not fit it.
        tiled: Whether the decoder works tile by tile.
        attention: Name of the attention kernel, as diffusers spells it.
        compiled: Whether the denoiser's blocks are compiled.
        peak_bytes: What each stage should need of the device at most; empty if nobody has worked it out.
    """

    device: str
    dtype: DType = "float32"
    quantisation: Quantisation = Quantisation.NONE
    offload: Offload = Offload.NONE
    text_encoder_on_cpu: bool = False
    tiled: bool = False
    attention: str = "native"
    compiled: bool = False
    peak_bytes: Mapping[Stage, int] = field(default_factory=dict[Stage, int])

    @property
    def placement(self) -> Placement:
        """The part that is settled when the model is loaded."""
        return Placement(self.device, self.dtype, self.quantisation, self.offload, self.attention, self.compiled)
