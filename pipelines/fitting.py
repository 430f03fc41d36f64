"""Finds the fastest plan with which a clip fits a device. Pure arithmetic on what ``pipelines.needs`` predicts.

``rungs`` is a ladder: every plan that makes sense for a model on a device, the fastest first. ``fit`` takes the first
that fits. Who runs out of memory all the same goes down by ``lower``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipelines.card import ModelCard
from pipelines.errors import DoesNotFit
from pipelines.needs import GIB, Demand, is_text_encoder, predicted, typical_request, window_of
from pipelines.plan import Device, MemoryPlan, Offload, Quantisation, numbers_of
from pipelines.types import DType, GenerationRequest, Stage, VideoShape

# A weight of two bytes is two FLOPs for each token: with this many, the next block has arrived over the bus (some
# 10 GB/s) before this one is computed (some 150 TFLOP/s), and it costs nothing that blocks come and go.
TOKENS_THAT_HIDE_THE_BUS = 16_000
# What the GPUs that most people have can do, and memory that never is too little.
_USUAL = (8, 9)
_BOUNDLESS = 1 << 60


def fit(
    card: ModelCard,
    shape: VideoShape,
    device: Device,
    *,
    guided: bool = True,
    pictures: bool = False,
    clips: int = 0,
) -> MemoryPlan:
    """Return the fastest plan with which a clip fits.

    Args:
        card: The model's card, with its components.
        shape: What is made in one go; longer clips are made in windows of at most the card's ``max_frames``.
        device: Where it is to be made.
        guided: Whether classifier-free guidance is on.
        pictures: Whether frames are given, which the VAE has to encode.
        clips: How many clips of subjects are given.

    Raises:
        DoesNotFit: Nothing does; the message says what is missing, and what would fit.
    """
    demand = Demand(shape, guided, pictures, clips)
    ladder = rungs(card, demand, device)
    fitting = next((plan for plan in ladder if lacks(plan, device) is None), None)
    if fitting is None:
        raise DoesNotFit(_advice(card, demand, device, ladder))
    return fitting


def fits(card: ModelCard, request: GenerationRequest, device: Device) -> bool:
    """Tell whether there is a plan with which a request fits a device."""
    return any(lacks(plan, device) is None for plan in rungs(card, Demand.of(request), device))


def least_vram(card: ModelCard) -> int | None:
    """Return the bytes of the smallest GPU that makes a model's default clip in a machine with RAM and disk enough.

    None if the card does not say what the model consists of.
    """
    if not card.weights.components:
        return None
    boundless = Device("cuda:0", "", _BOUNDLESS, _BOUNDLESS, _BOUNDLESS, _USUAL, numbers_of(_USUAL))
    return min(plan.peak for plan in rungs(card, Demand.of(typical_request(card)), boundless))


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
    disk are. Stages that no plan speaks of count as the one that needs most.
    """
    stage = stage if stage in plan.peak_bytes else max(plan.peak_bytes, key=lambda each: plan.peak_bytes[each])
    below = iter(ladder)
    reached = next((rung for rung in below if _choices(rung) == _choices(plan)), None)
    if reached is None:
        return None
    most, roomy = reached.peak_bytes[stage], replace(device, memory_bytes=reached.peak)
    fewer = [rung for rung in below if rung.peak_bytes[stage] < most and lacks(rung, roomy) is None]
    if stage is Stage.DECODE:
        # Other numbers make other latents, and those that are to be decoded are finished.
        fewer.sort(key=lambda rung: (rung.dtype, rung.quantisation) != (plan.dtype, plan.quantisation))
    return next(iter(fewer), None)


def rungs(card: ModelCard, demand: Demand, device: Device) -> tuple[MemoryPlan, ...]:
    """Return every plan that makes sense, the fastest first, with what it needs.

    Weights stay as they are for as long as that costs little: what comes and goes gives the same frames, what is
    stored in a byte does not.
    """
    return tuple(predicted(card, demand, plan) for plan in _choices_in_order(card, demand, device))


def _choices_in_order(card: ModelCard, demand: Demand, device: Device) -> Iterator[MemoryPlan]:
    plans = _on_gpu(card, demand, device) if device.is_gpu else _on_cpu(card, device)
    for plan in plans:
        yield plan
        # Tiles overlap, so decoding takes longer; but decoding is the shorter part.
        yield replace(plan, tiled=True)


def _on_cpu(card: ModelCard, device: Device) -> Iterator[MemoryPlan]:
    yield MemoryPlan(device.id, "float32", _as_stored(card))
    if "bfloat16" in device.numbers:
        yield MemoryPlan(device.id, "bfloat16", _as_stored(card))


def _as_stored(card: ModelCard) -> Quantisation:
    """Return how the card's own files have the denoiser's weights."""
    return Quantisation.GGUF if card.weights.is_packed else Quantisation.NONE


def _on_gpu(card: ModelCard, demand: Demand, device: Device) -> Iterator[MemoryPlan]:
    plain = MemoryPlan(device.id, _dtype(card, device), _as_stored(card))
    has_text_encoder = any(map(is_text_encoder, card.weights.components))

    def places(plan: MemoryPlan, *offloads: Offload) -> Iterator[MemoryPlan]:
        for words_on_cpu in (False, True) if has_text_encoder else (False,):
            for offload in offloads:
                yield replace(plan, offload=offload, text_encoder_on_cpu=words_on_cpu)

    streamed = list(places(plain, Offload.GROUP))
    packed = [
        packed
        for kind in (Quantisation.INT8, Quantisation.FP8)
        if kind.value in device.numbers and plain.dtype != "float32" and plain.quantisation is Quantisation.NONE
        for packed in places(replace(plain, quantisation=kind), Offload.NONE, Offload.MODEL)
    ]
    # Of two stages, the first has most of the steps.
    most_steps = card.shape.first_stage(window_of(card, demand.shape))
    hidden = card.shape.tokens(most_steps) >= TOKENS_THAT_HIDE_THE_BUS
    yield from places(plain, Offload.NONE, Offload.MODEL)
    yield from [*streamed, *packed] if hidden else [*packed, *streamed]
    yield from places(plain, Offload.SEQUENTIAL)
    if not card.weights.is_packed:
        # What comes in few bits is small, and does not come back from the disk as it was.
        yield from places(plain, Offload.DISK)


def _dtype(card: ModelCard, device: Device) -> DType:
    if "bfloat16" in device.numbers:
        return "bfloat16"
    return "float16" if card.memory.float16 and "float16" in device.numbers else "float32"


def _choices(plan: MemoryPlan) -> tuple[object, ...]:
    return plan.dtype, plan.quantisation, plan.offload, plan.text_encoder_on_cpu, plan.tiled


def _advice(card: ModelCard, demand: Demand, device: Device, ladder: Iterable[MemoryPlan]) -> str:
    """Return why nothing fits, and what would."""
    sentence = f"{_clip(card, demand.shape)} does not fit on {device.id}: {_lack(ladder, device)}."
    would = largest_that_fits(card, demand, device)
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


def largest_that_fits(card: ModelCard, demand: Demand, device: Device) -> VideoShape | None:
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
