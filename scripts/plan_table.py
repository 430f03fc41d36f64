"""The plan of every card on common GPUs, for its default clip: tests/pipelines/golden/plans/CARD.md. Rewrites them;
--check only compares. A test compares too, so whoever adds or changes a card runs this."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.card import ModelCard
from pipelines.needs import GIB, typical_request
from pipelines.plan import Device, numbers_of
from pipelines.registry import load_registry
from pipelines.shapes import halved
from pipelines.types import GenerationRequest
from server.cli.plan import Report, report

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "pipelines" / "golden" / "plans"
# Memory of the GPU, of a usual machine around it, and what such a GPU can do.
GPUS = ((8, 16, (8, 9)), (12, 32, (8, 9)), (16, 32, (8, 9)), (24, 64, (8, 9)), (48, 128, (8, 9)), (80, 256, (9, 0)))


def gpu(memory_gib: int, ram_gib: int, capability: tuple[int, int]) -> Device:
    return Device(
        "cuda:0", "", memory_gib * GIB, ram_gib * GIB, 500 * GIB, capability, numbers_of(capability, int8=False)
    )  # fmt: skip


def table(card: ModelCard) -> str:
    """Return the Markdown for one card: its default clip, and the largest that it makes in two stages if it does."""
    lines = [f"# {card.id}", *_of(card, typical_request(card))]
    in_two = [size for size in card.shape.sizes if size.stages == 2]
    if in_two:
        largest = max(in_two, key=lambda size: size.width * size.height)
        lines += _of(card, typical_request(card, size=(largest.width, largest.height)))
    return "\n".join(lines) + "\n"


def _of(card: ModelCard, request: GenerationRequest) -> list[str]:
    reports = [report(card, request, gpu(*kind)) for kind in GPUS]
    shape = request.shape
    staged = f" in two stages, the first at {halved(shape).size}" if request.refine_steps else ""
    return [
        "",
        f"{shape.size}{staged}, {shape.frames} frames; {reports[0].tokens} tokens. GiB. "
        "Written by `scripts/plan_table.py`.",
        "",
        "| VRAM | RAM | plan | encode | denoise | decode | RAM used |",
        "|---|---|---|---|---|---|---|",
        *(_row(memory, ram, found) for (memory, ram, _), found in zip(GPUS, reports, strict=True)),
    ]


def _row(memory: int, ram: int, found: Report) -> str:
    if found.refusal is not None:
        return f"| {memory} | {ram} | {found.refusal} | | | | |"
    peaks = " | ".join(f"{need.reserved / GIB:.1f}" for need in found.needs.values())
    return f"| {memory} | {ram} | {found.plan.describe()} | {peaks} | {found.plan.ram_bytes / GIB:.1f} |"


def planned() -> dict[str, str]:
    """Return the tables of all cards that list their parts, by id."""
    return {card.id: table(card) for card in load_registry().cards.values() if card.weights.components}


def main(arguments: list[str]) -> None:
    wrong: list[str] = []
    for card, wanted_text in planned().items():
        path = FOLDER / f"{card}.md"
        if arguments != ["--check"]:
            path.write_text(wanted_text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != wanted_text:
            wrong.append(card)
    if wrong:
        sys.exit(f"plans of {', '.join(wrong)} have changed; run: python -m scripts.plan_table")


if __name__ == "__main__":
    main(sys.argv[1:])
