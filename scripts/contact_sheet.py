"""Draw a contact sheet: a row per prompt, frames from first to last. README's picture is made with it.

python scripts/contact_sheet.py --into scripts/results/contact-sheet.png ["a prompt" ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard, Wish
from pipelines.engine import generate
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline, load_registry

PROMPTS = (
    "a red ball bouncing on a green field",
    "a yellow star moves left over the ocean at night, the camera is static",
    "a blue square drifting right across sand dunes, the camera pans left",
    "a purple triangle rises over snowy hills in daylight, zoom in",
    "an orange ball falling on a grey street at night",
    "a cyan star flies in circles over pink hills by day",
    "a pink square stands still in a meadow, the camera pans right",
    "a green triangle moves right on snow at night",
)
COLUMNS, SCALE, GAP, CAPTION = 6, 1.5, 6, 24


def frames_of(pipeline: VideoPipeline[Any, Any], card: ModelCard, prompt: str, seed: int) -> list[Image.Image]:
    request = card.resolve(Wish(prompt, seed=seed)).request
    clip = generate(pipeline, request, lambda _progress: None)
    every = np.concatenate(list(clip.chunks))[: request.delivery.frames]
    chosen = [every[round(i * (len(every) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
    size = (round(request.shape.width * SCALE), round(request.shape.height * SCALE))
    return [Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="*", default=PROMPTS)
    parser.add_argument("--into", type=Path, default=Path("scripts/results/contact-sheet.png"))
    parser.add_argument("--model", default="sora-2")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    card = load_registry().find(args.model)
    pipeline = load_pipeline(card, MemoryPlan("cpu"))
    rows = [(prompt, frames_of(pipeline, card, prompt, args.seed)) for prompt in args.prompts]
    width, height = rows[0][1][0].size
    sheet = Image.new("RGB", (COLUMNS * (width + GAP) + GAP, len(rows) * (height + CAPTION + GAP) + GAP), "#16181d")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=15)
    for index, (prompt, frames) in enumerate(rows):
        top = GAP + index * (height + CAPTION + GAP)
        draw.text((GAP, top + 2), prompt, fill="#d5d9e0", font=font)
        for column, frame in enumerate(frames):
            sheet.paste(frame, (GAP + column * (width + GAP), top + CAPTION))
    args.into.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.into, optimize=True)
    print(args.into)


if __name__ == "__main__":
    main()
