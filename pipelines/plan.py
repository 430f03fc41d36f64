"""How a model runs on a device: in which numbers, where its parts are, in which pieces it decodes.

``pipelines.fitting`` finds the plan that fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

from pipelines.types import DType, Stage

Numbers = Literal["float32", "float16", "bfloat16", "fp8", "int8"]
"""What a device computes in, and how weights can be stored on it."""

# The first cards with bfloat16 in hardware. Storing bytes as fp8 needs no more: they are widened before use.
_AMPERE = (8, 0)


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


STREAMED = frozenset({Offload.GROUP, Offload.SEQUENTIAL, Offload.DISK})
"""With these the denoiser is never on the device as a whole."""


class Quantisation(StrEnum):
    """How the denoiser's weights are stored: as computed with, in a byte each, or as the card's GGUF file has them."""

    NONE = "none"
    FP8 = "fp8"
    INT8 = "int8"
    GGUF = "gguf"


class Placement(NamedTuple):
    """What of a plan cannot change without loading the model anew."""

    device: str
    dtype: DType
    quantisation: Quantisation
    offload: Offload
    text_encoder_on_cpu: bool
    attention: str
    compiled: bool
    step_cache: float
    """0 where it can be changed between clips: hooks that bring blocks to the device have to lie around its own."""


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
        compiled: Whether the denoiser's blocks are compiled, if they are ``compilable``.
        step_cache: Share of change below which a step takes the last one's results; 0 computes every step.
        peak_bytes: What each stage should need of the device at most, the CUDA context and the allocator's slack
            included; empty if nobody has worked it out.
        ram_bytes: What the process should need of the machine's memory at most; 0 if nobody has worked it out.
        disk_bytes: What it writes to the disk for as long as the model is loaded.
    """

    device: str
    dtype: DType = "float32"
    quantisation: Quantisation = Quantisation.NONE
    offload: Offload = Offload.NONE
    text_encoder_on_cpu: bool = False
    tiled: bool = False
    attention: str = "native"
    compiled: bool = False
    step_cache: float = 0.0
    peak_bytes: Mapping[Stage, int] = field(default_factory=dict[Stage, int])
    ram_bytes: int = 0
    disk_bytes: int = 0

    @property
    def peak(self) -> int:
        """The highest of the stages' peaks, in bytes; 0 if nobody has worked them out."""
        return max(self.peak_bytes.values(), default=0)

    @property
    def placement(self) -> Placement:
        """The part that is settled when the model is loaded."""
        return Placement(
            self.device,
            self.dtype,
            self.quantisation,
            self.offload,
            self.text_encoder_on_cpu,
            self.attention,
            self.compiled,
            self.step_cache if self.offload in STREAMED else 0.0,
        )

    @property
    def compilable(self) -> bool:
        """Whether nothing has to happen between the layers of a block, which could not be compiled as one then."""
        return self.offload is not Offload.SEQUENTIAL and self.quantisation is not Quantisation.FP8

    def describe(self) -> str:
        """Return the choices in a few words, for people: ``bfloat16, model offload, tiled decode``."""
        words: list[str] = [self.dtype]
        if self.quantisation is not Quantisation.NONE:
            kind = "GGUF" if self.quantisation is Quantisation.GGUF else self.quantisation
            words.append(f"{kind} weights")
        words.append("all on the device" if self.offload is Offload.NONE else f"{self.offload} offload")
        if self.text_encoder_on_cpu:
            words.append("text encoder on the CPU")
        if self.tiled:
            words.append("tiled decode")
        if self.compiled and self.compilable:
            words.append("compiled blocks")
        if self.step_cache:
            words.append(f"step cache {self.step_cache:g} (lossy)")
        return ", ".join(words)


@dataclass(frozen=True)
class Device:
    """What there is to run on. ``pipelines.accel.devices`` and ``server.devices`` find it out.

    Attributes:
        id: ``cpu``, or ``cuda:0`` and the like.
        name: What its maker calls it.
        memory_bytes: What one process may use of its memory, the CUDA context included; RAM for a CPU.
        ram_bytes: What one process may use of the machine's memory.
        disk_bytes: What is free where temporary files go.
        capability: CUDA's compute capability; None for a CPU.
        numbers: What it can compute in, and how weights can be stored.
    """

    id: str
    name: str
    memory_bytes: int
    ram_bytes: int
    disk_bytes: int
    capability: tuple[int, int] | None
    numbers: frozenset[Numbers]

    @property
    def is_gpu(self) -> bool:
        """Whether it has memory of its own."""
        return self.capability is not None


def numbers_of(capability: tuple[int, int] | None, *, int8: bool = False) -> frozenset[Numbers]:
    """Return what a device computes and stores weights in.

    Args:
        capability: CUDA's compute capability; None for a CPU.
        int8: Whether the package that stores weights in int8 is installed.
    """
    if capability is None:
        return frozenset[Numbers]({"float32", "bfloat16"})
    found: set[Numbers] = {"float32", "float16"}
    if capability >= _AMPERE:
        found |= {"bfloat16", "fp8"}
    if int8:
        found.add("int8")
    return frozenset(found)
