"""``homereel plan``: whether a model fits a device, and how it would run there. Computes; loads nothing."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table

from pipelines.errors import DoesNotFit, PipelineError, UnknownModel, WeightsMissing
from pipelines.fitting import fit, lacks, rungs
from pipelines.needs import GIB, Demand, Need, needs, typical_request
from pipelines.plan import Device, MemoryPlan, numbers_of
from pipelines.types import GenerationRequest, Stage
from server.cli.models import registry
from server.cli.outcome import Failure, Outcome
from server.devices import describe, find_devices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipelines.card import ModelCard
    from pipelines.registry import Registry

# What a card that is only thought of can do: that of the generation most people have.
_ASSUMED = (8, 9)
_SIZE = re.compile(r"(\d+)x(\d+)")
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*(?:gb|gib|g)?", re.IGNORECASE)


@dataclass(frozen=True)
class Passed:
    """A plan that would be faster, and what it lacks."""

    plan: str
    lacks: str


@dataclass(frozen=True)
class Report:
    """What was found out.

    Attributes:
        request: What is to be made.
        tokens: How many tokens its largest window has.
        device: Where.
        plan: The one that fits; if none does, the one that comes closest.
        needs: What each stage needs under it.
        passed: The faster ones.
        refusal: Why nothing fits and what would; None if something does.
    """

    card: ModelCard
    request: GenerationRequest
    tokens: int
    device: Device
    plan: MemoryPlan
    needs: Mapping[Stage, Need]
    passed: tuple[Passed, ...]
    refusal: str | None


def configure(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model's id or alias (see: homereel list)")
    parser.add_argument("--size", type=_size, metavar="WxH", help="size of the file; default: the model's own")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of the video")
    parser.add_argument("--image", action="store_true", help="plan for a video that starts from a picture")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda:0, ...; default: the first of this machine")
    parser.add_argument("--vram", type=_amount, metavar="24GB", help="plan for a GPU with so much memory")
    parser.add_argument("--ram", type=_amount, metavar="64GB", help="plan for a machine with so much memory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: Namespace) -> int:
    """Print the plan, and what was passed over; fail if nothing fits."""
    card = _card(registry(), options.model)
    device = _device(options.device, options.vram, options.ram)
    try:
        request = typical_request(card, size=options.size, seconds=options.seconds, picture=options.image)
    except PipelineError as error:
        raise Failure(error.message, Outcome.MISUSED) from error
    found = report(card, request, device)
    if options.json:
        print(json.dumps(_body(found)))
    else:
        _print(found)
    return Outcome.DONE if found.refusal is None else Outcome.FAILED


def report(card: ModelCard, request: GenerationRequest, device: Device) -> Report:
    """Return the plan for a request on a device, and everything that people may want to know of it."""
    demand = Demand.of(request)
    ladder, refusal = rungs(card, demand, device), None
    try:
        plan = fit(card, demand.shape, device, guided=demand.guided, pictures=demand.pictures, clips=demand.clips)
    except DoesNotFit as error:
        plan, refusal = min(ladder, key=lambda rung: (rung.peak, rung.ram_bytes)), error.message
    faster = ladder if refusal else ladder[: ladder.index(plan)]
    tokens = card.shape.tokens(demand.shape)
    return Report(card, request, tokens, device, plan, needs(card, demand, plan), _passed(faster, device), refusal)


def _passed(plans: Sequence[MemoryPlan], device: Device) -> tuple[Passed, ...]:
    """Say what plans lack, leaving out those that would not have helped over one before."""
    helpful: list[MemoryPlan] = []
    for plan in plans:
        if not any(one.peak <= plan.peak and one.ram_bytes <= plan.ram_bytes for one in helpful):
            helpful.append(plan)
    return tuple(Passed(plan.describe(), lacks(plan, device) or "") for plan in helpful)


def _card(cards: Registry, name: str) -> ModelCard:
    """Return all of what a name stands for here; or would, if it were here."""
    try:
        return cards.cards[cards.find(name).id]
    except UnknownModel as error:
        raise Failure(f"there is no model {name!r}; see: homereel list", Outcome.MISUSED) from error
    except WeightsMissing:
        return next(cards.cards[card] for card in cards.aliases.get(name, (name,)) if card in cards.cards)


def _device(name: str | None, vram: int | None, ram: int | None) -> Device:
    if vram is None:
        name = name or find_devices()[0]
        device = _described(name)
        if ram is None:
            return device
        return replace(device, ram_bytes=ram, memory_bytes=device.memory_bytes if device.is_gpu else ram)
    here = describe(name or "cuda:0")
    capability = here.capability if here and here.capability else _ASSUMED
    machine = here or _described("cpu")
    # What is only thought of has no disk to look at; that of this machine will do.
    return Device(
        name or "cuda:0",
        f"a GPU with {vram / GIB:g} GB",
        vram,
        ram or machine.ram_bytes,
        machine.disk_bytes,
        capability,
        numbers_of(capability, int8=bool(here and "int8" in here.numbers)),
    )


def _described(name: str) -> Device:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise Failure(f"'{name}' is no device; say cpu, cuda:0 and so on", Outcome.MISUSED)
    device = describe(name)
    if device is None:
        raise Failure(f"there is no {name} on this machine; --vram 24GB plans for a GPU that is not here")
    return device


def _size(text: str) -> tuple[int, int]:
    if not (match := _SIZE.fullmatch(text)):
        raise ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")
    return int(match[1]), int(match[2])


def _amount(text: str) -> int:
    """Read ``24GB``. Memory is sold by the power of two, whatever the label says."""
    if not (match := _AMOUNT.fullmatch(text.strip())) or not float(match[1]):
        raise ArgumentTypeError(f"{text!r} is not an amount such as 24GB")
    return int(float(match[1]) * GIB)


def _body(found: Report) -> dict[str, object]:
    plan, device, shape = found.plan, found.device, found.request.shape
    return {
        "model": found.card.id,
        "size": found.request.delivery.size,
        "native_size": shape.size,
        "num_frames": found.request.delivery.frames,
        "seconds": found.request.delivery.seconds,
        "windows": len(found.request.pieces),
        "tokens": found.tokens,
        "device": {
            "id": device.id,
            "name": device.name,
            "memory_bytes": device.memory_bytes,
            "ram_bytes": device.ram_bytes,
            "disk_bytes": device.disk_bytes,
            "compute_capability": device.capability and "{}.{}".format(*device.capability),
        },
        "fits": found.refusal is None,
        "refusal": found.refusal,
        "plan": {
            "dtype": plan.dtype,
            "quantisation": plan.quantisation.value,
            "offload": plan.offload.value,
            "text_encoder_on_cpu": plan.text_encoder_on_cpu,
            "tiled": plan.tiled,
            "peak_bytes": plan.peak,
            "ram_bytes": plan.ram_bytes,
            "disk_bytes": plan.disk_bytes,
        },
        "stages": {
            stage.value: {"weights": need.weights, "activations": need.activations, "peak": need.reserved}
            for stage, need in found.needs.items()
        },
        "passed_over": [{"plan": passed.plan, "lacks": passed.lacks} for passed in found.passed],
    }


def _print(found: Report) -> None:
    console = Console(soft_wrap=True, highlight=False)
    device, plan = found.device, found.plan
    console.print(f"[bold]{found.card.id}[/]  {found.card.name}", markup=True)
    console.print(_described_clip(found))
    extra = f", {device.ram_bytes / GIB:.1f} GiB RAM" if device.is_gpu else ""
    console.print(f"{device.id}: {device.name}, {device.memory_bytes / GIB:.1f} GiB{extra}\n", markup=False)
    verdict = f"runs with {plan.describe()}" if found.refusal is None else found.refusal
    console.print(verdict + "\n", markup=False)
    right = [Column(name, justify="right") for name in ("weights", "activations", "peak")]
    table = Table("GiB", *right, box=None, pad_edge=False)
    for stage, need in found.needs.items():
        table.add_row(stage.value, *(f"{size / GIB:.1f}" for size in (need.weights, need.activations, need.reserved)))
    console.print(table)
    if device.is_gpu:
        disk = f", disk {plan.disk_bytes / GIB:.1f} GiB" if plan.disk_bytes else ""
        console.print(f"RAM {plan.ram_bytes / GIB:.1f} GiB{disk}", markup=False)
    if found.passed:
        console.print("\nfaster, but too large:" if found.refusal is None else "\ntried:")
        for passed in found.passed:
            console.print(f"  {passed.plan}: {passed.lacks}", markup=False)
    if not found.card.memory.source:
        console.print("\nThis model's memory has not been measured: the figures follow from its size.")


def _described_clip(found: Report) -> str:
    request, shape = found.request, found.request.delivery
    pieces = f" in {len(request.pieces)} windows" if len(request.pieces) > 1 else ""
    scaled = "" if shape.size == request.shape.size else f" (made at {request.shape.size})"
    steps = f"{request.num_inference_steps} steps"
    if request.refine_steps:
        steps += f" at half of it, {request.refine_steps} at the whole"
    return (
        f"{shape.size}{scaled}, {shape.frames} frames at {shape.fps} fps = {shape.seconds:g} s{pieces}, "
        f"{steps}; {found.tokens} tokens per {'window' if pieces else 'clip'}"
    )
