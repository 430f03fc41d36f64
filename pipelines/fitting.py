"""Finds the fastest plan with which a clip fits a device, and predicts what it needs. Pure arithmetic.

``rungs`` is a ladder: every plan that makes sense for a model on a device, the fastest first. ``fit`` takes the first
that fits. Who runs out of memory all the same goes down by ``lower``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pipelines.card import Component, ModelCard
from pipelines.errors import OutOfMemory
from pipelines.memory import BYTES
from pipelines.plan import Device, MemoryPlan, Offload, Quantisation
from pipelines.types import DType, GenerationRequest, Stage, VideoShape

GIB = 2**30
# What CUDA, its libraries and their workspaces take of the device before the first tensor.
CONTEXT_BYTES = GIB
# Convolutions' workspaces, and the gaps between blocks of the allocator, on top of live tensors.
SLACK = 1.2
# Python and its libraries in RAM before the first weight, with CUDA's and without.
PROCESS_BYTES, CPU_PROCESS_BYTES = int(1.5 * GIB), GIB // 2
# A weight of two bytes is two FLOPs for each token: with this many, the next block has arrived over the bus (some
# 10 GB/s) before this one is computed (some 150 TFLOP/s), and it costs nothing that blocks come and go.
TOKENS_THAT_HIDE_THE_BUS = 16_000
# Embeddings, norms and biases keep their numbers; what is stored in a byte has scales beside it.
_PACKED_BYTES = 1.05
# Blocks on the device at a time when they come and go: the one that computes, the next, what is outside of blocks.
_BLOCKS_AT_HAND = 3


class Need(NamedTuple):
    """What one stage needs of the device, in bytes: weights, at most so much beside them, and what is always there."""

    weights: int
    activations: int
    base: int = CONTEXT_BYTES

    @property
    def allocated(self) -> int:
        """Live tensors at their peak."""
        return self.weights + self.activations

    @property
    def reserved(self) -> int:
        """What the driver sees: with the allocator's slack, and what is there before the first tensor."""
        return self.weights + int(self.activations * SLACK) + self.base


@dataclass(frozen=True)
class Demand:
    """What decides the memory of a clip.

    Attributes:
        shape: The largest window that is made in one go.
        guided: Whether classifier-free guidance is on.
        pictures: Whether frames are given, which the VAE encodes before denoising.
    """

    shape: VideoShape
    guided: bool = True
    pictures: bool = False

    @classmethod
    def of(cls, request: GenerationRequest) -> Demand:
        """Return what decides the memory of a request."""
        frames = max(window.frames for window in request.pieces)
        given = bool(request.conditions or request.references or request.source or len(request.pieces) > 1)
        return cls(request.shape._replace(frames=frames), request.guidance_scale > 1, given)


def fit(
    card: ModelCard, shape: VideoShape, device: Device, *, guided: bool = True, pictures: bool = False
) -> MemoryPlan:
    """Return the fastest plan with which a clip fits.

    Args:
        card: The model's card, with its components.
        shape: What is made in one go; longer clips are made in windows of at most the card's ``max_frames``.
        device: Where it is to be made.
        guided: Whether classifier-free guidance is on.
        pictures: Whether frames are given, which the VAE has to encode.

    Raises:
        OutOfMemory: Nothing fits; the message says what is missing, and what would fit.
    """
    demand = Demand(shape, guided, pictures)
    ladder = rungs(card, demand, device)
    fitting = next((plan for plan in ladder if lacks(plan, device) is None), None)
    if fitting is None:
        raise OutOfMemory(_advice(card, demand, device, ladder))
    return fitting


def lacks(plan: MemoryPlan, device: Device) -> str | None:
    """Return what a plan needs that a device does not have, as a phrase; None if it fits."""
    stage, peak = max(plan.peak_bytes.items(), key=lambda item: item[1])
    if peak > device.memory_bytes:
        return f"{stage} needs {_of(peak, device.memory_bytes)} on {device.id}"
    if plan.ram_bytes > device.ram_bytes:
        return f"needs {_of(plan.ram_bytes, device.ram_bytes)} RAM"
    if plan.disk_bytes > device.disk_bytes:
        return f"needs {_of(plan.disk_bytes, device.disk_bytes)} free disk"
    return None


def lower(ladder: Iterable[MemoryPlan], plan: MemoryPlan, stage: Stage, device: Device) -> MemoryPlan | None:
    """Return the next plan after one that ran out of memory in a stage which needs less there; None if there is none.

    What the stage was predicted to need has proven too low, so fitting the device is not asked for again; RAM and
    disk are.
    """
    below = iter(ladder)
    reached = next((rung for rung in below if _choices(rung) == _choices(plan)), None)
    if reached is None:
        return None
    most, roomy = reached.peak_bytes[stage], replace(device, memory_bytes=reached.peak)
    return next((rung for rung in below if rung.peak_bytes[stage] < most and lacks(rung, roomy) is None), None)


def rungs(card: ModelCard, demand: Demand, device: Device) -> tuple[MemoryPlan, ...]:
    """Return every plan that makes sense, the fastest first, with what it needs.

    Weights stay as they are for as long as that costs little: what comes and goes gives the same frames, what is
    stored in a byte does not.
    """
    return tuple(_predicted(card, demand, plan) for plan in _choices_in_order(card, demand, device))


def needs(card: ModelCard, demand: Demand, plan: MemoryPlan) -> Mapping[Stage, Need]:
    """Return what each stage needs of the plan's device."""
    shape = _window(card, demand.shape)
    wide = 2 if plan.dtype == "float32" else 1
    vae_wide = 1 if all(part.dtype for part in card.weights.components.values() if part.stage == "decode") else wide
    tokens = card.shape.tokens(shape) * (2 if demand.guided and card.memory.batched_guidance else 1)
    sampling = int(tokens * card.memory.token_cost(_largest(card)) * wide)
    picture = card.memory.picture_bytes(shape, tiled=plan.tiled) * vae_wide if demand.pictures else 0
    decoding = card.memory.decode_bytes(shape, tiled=plan.tiled) * vae_wide
    text = 0 if plan.text_encoder_on_cpu else card.memory.text_bytes * wide
    beside = {Stage.ENCODE: text, Stage.DENOISE: max(sampling, picture), Stage.DECODE: decoding}
    base = CONTEXT_BYTES if plan.device.startswith("cuda") else CPU_PROCESS_BYTES
    return {stage: Need(_weights_at(card, demand, plan, stage), size, base) for stage, size in beside.items()}


def stored_bytes(name: str, part: Component, plan: MemoryPlan) -> int:
    """Return what a part's weights take under a plan."""
    if _is_denoiser(name) and plan.quantisation is not Quantisation.NONE:
        return int(part.params * _PACKED_BYTES)
    # Nothing computes in fewer bytes than the plan's.
    own: DType = plan.dtype if part.dtype is None or plan.dtype == "float32" else part.dtype
    return part.params * BYTES[own]


def model_bytes(card: ModelCard, plan: MemoryPlan) -> int:
    """Return what all weights of a model take under a plan, wherever they are."""
    return sum(stored_bytes(name, part, plan) for name, part in card.weights.components.items())


def _predicted(card: ModelCard, demand: Demand, plan: MemoryPlan) -> MemoryPlan:
    peaks = {stage: need.reserved for stage, need in needs(card, demand, plan).items()}
    ram = _ram(card, plan) if plan.device.startswith("cuda") else max(peaks.values())
    moved = _denoisers(card) if plan.offload is Offload.DISK else {}
    disk = sum(stored_bytes(name, part, plan) for name, part in moved.items())
    return replace(plan, peak_bytes=peaks, ram_bytes=ram, disk_bytes=disk)


def _ram(card: ModelCard, plan: MemoryPlan) -> int:
    """Return the highest memory of the process beside a GPU, which is when the model is loaded.

    Parts are loaded one after the other, denoisers first; each goes where it is to be before the next one comes.
    """
    plain = replace(plan, quantisation=Quantisation.NONE)
    highest = kept = 0
    for denoisers in (True, False):
        parts = {n: part for n, part in card.weights.components.items() if _is_denoiser(n) is denoisers}
        stays = {n: stored_bytes(n, part, plan) if _in_ram(n, plan) else 0 for n, part in parts.items()}
        kept += sum(stays.values())
        passing = max((stored_bytes(n, part, plain) - stays[n] for n, part in parts.items()), default=0)
        highest = max(highest, kept + passing)
    return PROCESS_BYTES + highest


def _in_ram(name: str, plan: MemoryPlan) -> bool:
    """Tell whether a part is in the machine's memory while it has nothing to do."""
    if _is_denoiser(name):
        return plan.offload not in (Offload.NONE, Offload.DISK)
    return plan.offload is not Offload.NONE or (plan.text_encoder_on_cpu and _is_text_encoder(name))


def _weights_at(card: ModelCard, demand: Demand, plan: MemoryPlan, stage: Stage) -> int:
    """Return the bytes of the weights that are on the device in a stage."""
    parts = {
        name: part
        for name, part in card.weights.components.items()
        if not (plan.text_encoder_on_cpu and _is_text_encoder(name))
    }
    size = {name: stored_bytes(name, part, plan) for name, part in parts.items()}
    if plan.offload is Offload.NONE:
        return sum(size.values())
    here = {name for name, part in parts.items() if part.stage == stage.value}
    if stage is Stage.DENOISE and demand.pictures:
        # Given frames are encoded there and then, by all that has eyes.
        here |= {name for name in parts if not _is_text_encoder(name)}
    denoisers = [size[name] for name in here if _is_denoiser(name)]
    others = sum(size[name] for name in here if not _is_denoiser(name))
    return others + _at_hand(card, plan, max(denoisers, default=0))


def _at_hand(card: ModelCard, plan: MemoryPlan, denoiser: int) -> int:
    """Return how much of a denoiser's weights is on the device at a time."""
    match plan.offload:
        case Offload.NONE | Offload.MODEL:
            return denoiser
        case Offload.GROUP | Offload.DISK:
            return denoiser * min(_BLOCKS_AT_HAND, card.memory.blocks) // card.memory.blocks
        case Offload.SEQUENTIAL:
            return denoiser // card.memory.blocks


def _choices_in_order(card: ModelCard, demand: Demand, device: Device) -> Iterator[MemoryPlan]:
    plans = _on_gpu(card, demand, device) if device.is_gpu else _on_cpu(device)
    for plan in plans:
        yield plan
        # Tiles overlap, so decoding takes longer; but decoding is the shorter part.
        yield replace(plan, tiled=True)


def _on_cpu(device: Device) -> Iterator[MemoryPlan]:
    yield MemoryPlan(device.id, "float32")
    if "bfloat16" in device.numbers:
        yield MemoryPlan(device.id, "bfloat16")


def _on_gpu(card: ModelCard, demand: Demand, device: Device) -> Iterator[MemoryPlan]:
    plain = MemoryPlan(device.id, _dtype(card, device))
    has_text_encoder = any(map(_is_text_encoder, card.weights.components))

    def places(plan: MemoryPlan, *offloads: Offload) -> Iterator[MemoryPlan]:
        for words_on_cpu in (False, True) if has_text_encoder else (False,):
            for offload in offloads:
                yield replace(plan, offload=offload, text_encoder_on_cpu=words_on_cpu)

    streamed = list(places(plain, Offload.GROUP))
    packed = [
        packed
        for kind in (Quantisation.INT8, Quantisation.FP8)
        if kind.value in device.numbers and plain.dtype != "float32"
        for packed in places(replace(plain, quantisation=kind), Offload.NONE, Offload.MODEL)
    ]
    hidden = card.shape.tokens(_window(card, demand.shape)) >= TOKENS_THAT_HIDE_THE_BUS
    yield from places(plain, Offload.NONE, Offload.MODEL)
    yield from [*streamed, *packed] if hidden else [*packed, *streamed]
    yield from places(plain, Offload.SEQUENTIAL)
    yield from places(plain, Offload.DISK)


def _dtype(card: ModelCard, device: Device) -> DType:
    if "bfloat16" in device.numbers:
        return "bfloat16"
    return "float16" if card.memory.float16 and "float16" in device.numbers else "float32"


def _window(card: ModelCard, shape: VideoShape) -> VideoShape:
    return shape._replace(frames=min(shape.frames, card.shape.max_frames))


def _is_denoiser(name: str) -> bool:
    # The names under which diffusers keeps whatever runs at every step.
    return name.startswith("transformer")


def _is_text_encoder(name: str) -> bool:
    return name.startswith("text_encoder")


def _denoisers(card: ModelCard) -> dict[str, Component]:
    return {name: part for name, part in card.weights.components.items() if _is_denoiser(name)}


def _largest(card: ModelCard) -> int:
    return max((part.params for part in _denoisers(card).values()), default=0)


def _choices(plan: MemoryPlan) -> tuple[object, ...]:
    return plan.dtype, plan.quantisation, plan.offload, plan.text_encoder_on_cpu, plan.tiled


def _advice(card: ModelCard, demand: Demand, device: Device, ladder: Iterable[MemoryPlan]) -> str:
    """Return why nothing fits, and what would."""
    sentence = f"{_clip(card, demand.shape)} does not fit on {device.id}: {_lack(ladder, device)}."
    would = _largest_that_fits(card, demand, device)
    if would is not None:
        return f"{sentence} {would.size} with {would.frames} frames ({would.seconds:.1f} s) would fit."
    least = min(card.shape.sizes, key=lambda size: size.width * size.height)
    shortest = demand.shape._replace(frames=card.shape.min_frames, width=least.width, height=least.height)
    still = _lack(rungs(card, replace(demand, shape=shortest), device), device)
    return f"{sentence} Nor does its smallest clip, {shortest.size} with {shortest.frames} frames: {still}."


def _clip(card: ModelCard, shape: VideoShape) -> str:
    return f"{card.id} at {shape.size} with {shape.frames} frames"


def _lack(ladder: Iterable[MemoryPlan], device: Device) -> str:
    """Return what is missing to the plan that comes closest."""
    closest = min(ladder, key=lambda plan: (max(plan.peak - device.memory_bytes, 0), plan.ram_bytes))
    return f"with {closest.describe()}, {lacks(closest, device)}"


def _largest_that_fits(card: ModelCard, demand: Demand, device: Device) -> VideoShape | None:
    """Return the largest clip of the card that fits: of the same size if one does, else of the next smaller ones."""
    rules = card.shape
    native = sorted({(size.width, size.height) for size in rules.sizes}, key=lambda size: -size[0] * size[1])
    wanted = (demand.shape.width, demand.shape.height)
    smaller = [size for size in native if size[0] * size[1] <= wanted[0] * wanted[1] and size != wanted]
    most = rules.frames_for(min(demand.shape.frames, rules.max_frames))
    for width, height in [wanted, *smaller]:
        for frames in range(most, rules.min_frames - 1, -rules.frame_stride):
            tried = replace(demand, shape=VideoShape(frames, height, width, demand.shape.fps))
            if any(lacks(plan, device) is None for plan in rungs(card, tried, device)):
                return tried.shape
    return None


def _of(need: int, have: int) -> str:
    # Rounded up, lest too much look like just enough.
    return f"{math.ceil(10 * need / GIB) / 10:.1f} GiB of {have / GIB:.1f} GiB"
