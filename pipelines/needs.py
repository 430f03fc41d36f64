"""Predicts what a clip needs of device, RAM and disk under a plan: weights, activations, what is always there. Pure.

``pipelines.fitting`` chooses the plan by it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from pipelines.card import ModelCard
from pipelines.memory import BYTES
from pipelines.plan import MemoryPlan, Offload, Quantisation
from pipelines.types import LAST, DType, GenerationRequest, ImageCondition, Stage, VideoShape
from pipelines.weights import UPSAMPLER, Component, OwnLora
from pipelines.wish import Wish

GIB = 2**30
# What CUDA, its libraries and their workspaces take of the device before the first tensor.
CONTEXT_BYTES = GIB
# Convolutions' workspaces, and the gaps between blocks of the allocator, on top of live tensors.
SLACK = 1.2
# Python and its libraries in RAM before the first weight, with CUDA's and without.
PROCESS_BYTES, CPU_PROCESS_BYTES = int(1.5 * GIB), GIB // 2
# Embeddings, norms and biases keep their numbers; what is stored in a byte has scales beside it.
_PACKED_BYTES = 1.05
# What widening a weight of a GGUF file takes at most, with all that is in between: the larger blocks' 7.2 bytes.
_WIDENING_BYTES = 7.2
# A LoRA that is put into weights for good is in RAM twice then: as its file has it, and as it is added.
_FUSING_BYTES = 8
# The names under which diffusers keeps what looks at pictures.
_EYES = ("vae", "image_encoder")
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


class Held(NamedTuple):
    """Bytes of the device and of RAM."""

    device: int
    ram: int


@dataclass(frozen=True)
class Demand:
    """What decides the memory of a clip.

    Attributes:
        shape: The largest window that is made in one go.
        guided: Whether classifier-free guidance is on.
        pictures: Whether frames are given, which the VAE encodes before denoising.
        clips: How many clips of subjects the denoiser sees beside its own; it sees as much of each at most.
    """

    shape: VideoShape
    guided: bool = True
    pictures: bool = False
    clips: int = 0

    @classmethod
    def of(cls, request: GenerationRequest) -> Demand:
        """Return what decides the memory of a request."""
        frames = max(window.frames for window in request.pieces)
        given = bool(request.conditions or request.references or request.source or len(request.pieces) > 1)
        return cls(request.shape._replace(frames=frames), request.guidance_scale > 1, given, request.filmed)


def typical_request(
    card: ModelCard, *, size: tuple[int, int] | None = None, seconds: float | None = None, picture: bool = False
) -> GenerationRequest:
    """Return the request that a card makes of so few words; pictures that it cannot do without are given.

    Raises:
        UnsupportedShape: The card cannot make that size or length.
        UnsupportedOption: It cannot start from a picture.
    """
    least = least_wish(card, Path("unread"), {"first_frame"} if picture else ())
    return card.resolve(replace(least, size=size, seconds=seconds, seed=0)).request


def least_wish(card: ModelCard, picture: Path, further: Collection[str] = ()) -> Wish:
    """Return a wish with the pictures that a card cannot do without, and those for ``further``: always the same one."""
    frames = {"first_frame": 0, "last_frame": LAST}
    given = card.requires | set(further)
    conditions = tuple(ImageCondition(picture, frames[which]) for which in sorted(given & frames.keys()))
    return Wish("", conditions=conditions, references=(picture,) if "references" in given else ())


def needs(card: ModelCard, demand: Demand, plan: MemoryPlan) -> Mapping[Stage, Need]:
    """Return what each stage needs of the plan's device."""
    demand = replace(demand, pictures=demand.pictures or card.memory.always_encodes)
    shape = window_of(card, demand.shape)
    wide = 2 if plan.dtype == "float32" else 1
    vae_wide = 1 if all(part.dtype for part in card.weights.components.values() if part.stage == "decode") else wide
    tokens = _tokens(card, demand) + _shown_beside(card, demand)
    sampling = int(tokens * card.memory.token_cost(_largest(card)) * wide)
    picture = card.memory.picture_bytes(shape, tiled=plan.tiled) * vae_wide if demand.pictures else 0
    decoding = card.memory.decode_bytes(shape, tiled=plan.tiled) * vae_wide
    reading = card.memory.text_bytes + demand.clips * card.memory.clip_bytes
    text = 0 if plan.text_encoder_on_cpu else reading * wide
    connecting = card.memory.connect_bytes * (2 if demand.guided else 1) * wide
    denoising = max(sampling, picture) + _widening(card)
    beside = {Stage.ENCODE: max(text, connecting), Stage.DENOISE: denoising, Stage.DECODE: decoding}
    base = CONTEXT_BYTES if plan.device.startswith("cuda") else CPU_PROCESS_BYTES
    return {stage: Need(_weights_at(card, demand, plan, stage), size, base) for stage, size in beside.items()}


def _widening(card: ModelCard) -> int:
    """Return what a layer of a file's own numbers takes beside its weights while it computes."""
    layers = (part.stored.layer for part in card.weights.components.values() if part.stored is not None)
    return int(_WIDENING_BYTES * max(layers, default=0))


def _tokens(card: ModelCard, demand: Demand) -> int:
    """Return how many tokens the denoiser sees at once at most."""
    shape = window_of(card, demand.shape)
    first = card.shape.first_stage(shape)
    predictions = 2 if demand.guided and card.memory.batched_guidance else 1
    if first == shape or card.memory.refining_is_guided:
        return card.shape.tokens(shape) * predictions
    return max(card.shape.tokens(shape), card.shape.tokens(first) * predictions)


def _shown_beside(card: ModelCard, demand: Demand) -> int:
    """Return how many tokens the clips of subjects have at most: each has the largest size, whatever is made."""
    shape = window_of(card, demand.shape)
    sizes = (shape._replace(width=size.width, height=size.height) for size in card.shape.sizes)
    return demand.clips * max(map(card.shape.tokens, sizes))


def stored_bytes(name: str, part: Component, plan: MemoryPlan) -> int:
    """Return what a part's weights take under a plan."""
    if part.stored is not None:
        return int(part.params * part.stored.bits / 8)
    wide = part.float32 * BYTES["float32"]
    if is_denoiser(name) and plan.quantisation in (Quantisation.FP8, Quantisation.INT8):
        return wide + int((part.params - part.float32) * _PACKED_BYTES)
    # Nothing computes in fewer bytes than the plan's.
    own: DType = plan.dtype if part.dtype is None or plan.dtype == "float32" else part.dtype
    return wide + (part.params - part.float32) * BYTES[own]


def parts_bytes(card: ModelCard, plan: MemoryPlan) -> dict[str, int]:
    """Return what the weights of each part take under a plan, with the LoRAs that stay beside them."""
    kept = dict.fromkeys(card.weights.components, 0)
    for lora in card.weights.loras:
        if card.weights.components[lora.part].stored is not None:
            kept[lora.part] += lora.params * BYTES[plan.dtype]
    return {name: stored_bytes(name, part, plan) + kept[name] for name, part in card.weights.components.items()}


def file_bytes(card: ModelCard) -> int:
    """Return what the files of a model take at least: two bytes a weight, unless they say otherwise; some have four."""
    parts = (
        part.params * BYTES["bfloat16"] if part.stored is None else int(part.params * part.stored.bits / 8)
        for part in card.weights.components.values()
    )
    return sum(parts) + sum(lora.params * BYTES["bfloat16"] for lora in card.weights.loras)


def model_bytes(card: ModelCard, plan: MemoryPlan) -> int:
    """Return what all weights of a model take under a plan, wherever they are."""
    return sum(parts_bytes(card, plan).values())


def held(card: ModelCard, plan: MemoryPlan) -> Held:
    """Return what a loaded model takes while it has nothing to do."""
    parts = parts_bytes(card, plan)
    in_ram = sum(size for name, size in parts.items() if _in_ram(name, plan))
    if not plan.device.startswith("cuda"):
        return Held(sum(parts.values()), sum(parts.values()))
    if plan.offload is Offload.NONE:
        return Held(sum(parts.values()) - in_ram, in_ram)
    # What was needed last is still there: the decoder.
    last = sum(parts[name] for name, part in card.weights.components.items() if part.stage == "decode")
    return Held(last, in_ram)


def predicted(card: ModelCard, demand: Demand, plan: MemoryPlan) -> MemoryPlan:
    """Return the plan with what it needs."""
    peaks = {stage: need.reserved for stage, need in needs(card, demand, plan).items()}
    at_once = card.shape.first_stage(demand.shape) == demand.shape
    beside = 0 if at_once else _refining(card, plan)
    ram = _ram(card, plan, beside) if plan.device.startswith("cuda") else max(peaks.values())
    moved = _denoisers(card) if plan.offload is Offload.DISK else {}
    disk = sum(size for name, size in parts_bytes(card, plan).items() if name in moved)
    return replace(plan, peak_bytes=peaks, ram_bytes=ram, disk_bytes=disk)


def _ram(card: ModelCard, plan: MemoryPlan, beside: int) -> int:
    """Return the highest memory of the process beside a GPU: when the model is loaded, or when so much comes to it.

    Denoisers come one after the other, and each goes where it is to be before the next one; all the rest follows.
    """
    sizes, plain = parts_bytes(card, plan), parts_bytes(card, replace(plan, quantisation=Quantisation.NONE))
    denoisers = _denoisers(card)
    stays = {name: sizes[name] if _in_ram(name, plan) else 0 for name in denoisers}
    passing = max((plain[name] + _fusing(card, name) - stays[name] for name in denoisers), default=0)
    rest = sum(size for name, size in sizes.items() if name not in denoisers)
    loading, working = sum(stays.values()) + max(passing, rest), held(card, plan).ram + beside
    return PROCESS_BYTES + max(loading, working)


def _fusing(card: ModelCard, name: str) -> int:
    """Return what a denoiser's own LoRAs take beside it while it is loaded: one at a time."""
    return max((_FUSING_BYTES * lora.params for lora in _own(card, refine=False) if lora.part == name), default=0)


def _refining(card: ModelCard, plan: MemoryPlan) -> int:
    """Return what the LoRAs of a second stage take."""
    return sum(lora.params * BYTES[plan.dtype] for lora in _own(card, refine=True))


def _own(card: ModelCard, *, refine: bool) -> list[OwnLora]:
    return [lora for lora in card.weights.loras if lora.refines == refine]


def _in_ram(name: str, plan: MemoryPlan) -> bool:
    """Tell whether a part is in the machine's memory while it has nothing to do."""
    if is_denoiser(name):
        return plan.offload not in (Offload.NONE, Offload.DISK)
    return plan.offload is not Offload.NONE or (plan.text_encoder_on_cpu and is_text_encoder(name))


def _weights_at(card: ModelCard, demand: Demand, plan: MemoryPlan, stage: Stage) -> int:
    """Return the bytes of the weights that are on the device in a stage."""
    here = parts_at(card, demand, plan, stage)
    size = {name: there for name, there in parts_bytes(card, plan).items() if name in here}
    at_once = card.shape.first_stage(demand.shape) == demand.shape
    refining = 0 if at_once or stage is not Stage.DENOISE else _refining(card, plan)
    if plan.offload is Offload.NONE:
        return sum(size.values()) + refining
    denoisers = [size[name] for name in here if is_denoiser(name)]
    words = sum(size[name] for name in here if is_text_encoder(name))
    others = sum(size[name] for name in here if not is_denoiser(name) and not is_text_encoder(name))
    # Words are encoded first, and what connects them comes when their encoder has gone.
    return max(words, others) + _at_hand(card, plan, max(denoisers, default=0)) + refining


def parts_at(card: ModelCard, demand: Demand, plan: MemoryPlan, stage: Stage) -> Collection[str]:
    """Return the names of the parts that are on the device in a stage, at once or one after the other."""
    parts = {
        name: part.stage
        for name, part in card.weights.components.items()
        if not (plan.text_encoder_on_cpu and is_text_encoder(name))
    }
    if plan.offload is Offload.NONE:
        return parts.keys()
    if card.shape.first_stage(demand.shape) == demand.shape:
        # Nothing is doubled. Where something is, that needs a tenth per token of what a step needs, or less.
        parts = {name: stage for name, stage in parts.items() if not name.startswith(UPSAMPLER)}
    # Given frames are encoded when the denoiser is there.
    looks = stage is Stage.DENOISE and (demand.pictures or card.memory.always_encodes)
    return {name for name, needed in parts.items() if needed == stage.value or (looks and name in _EYES)}


def _at_hand(card: ModelCard, plan: MemoryPlan, denoiser: int) -> int:
    """Return how much of a denoiser's weights is on the device at a time."""
    match plan.offload:
        case Offload.NONE | Offload.MODEL:
            return denoiser
        case Offload.GROUP | Offload.DISK:
            return denoiser * min(_BLOCKS_AT_HAND, card.memory.blocks) // card.memory.blocks
        case Offload.SEQUENTIAL:
            return denoiser // card.memory.blocks


def window_of(card: ModelCard, shape: VideoShape) -> VideoShape:
    """Return what is made in one go of a clip."""
    return shape._replace(frames=min(shape.frames, card.shape.max_frames))


def is_denoiser(name: str) -> bool:
    """Tell by its name whether a part runs at every step: diffusers keeps all that do under such names."""
    return name.startswith("transformer")


def is_text_encoder(name: str) -> bool:
    """Tell by its name whether a part encodes words."""
    return name.startswith("text_encoder")


def _denoisers(card: ModelCard) -> dict[str, Component]:
    return {name: part for name, part in card.weights.components.items() if is_denoiser(name)}


def _largest(card: ModelCard) -> int:
    return max((part.params for part in _denoisers(card).values()), default=0)
