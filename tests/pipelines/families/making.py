"""What the family contract is run with: small cards, pictures, and comparing to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image, ImageOps

from pipelines.card import ModelCard
from pipelines.registry import load_registry
from pipelines.shapes import FrameSize
from pipelines.types import Frames, GenerationRequest, Step, VideoShape


def tiny(
    card_id: str,
    sizes: tuple[tuple[int, int], ...],
    frames: tuple[int, int],
    *,
    stages: Literal[1, 2] = 1,
    **options: object,
) -> ModelCard:
    """Return a card with sizes and lengths that a tiny checkpoint makes in a moment, and options changed."""
    card = load_registry().cards[card_id]
    shape = card.shape.model_copy(
        update={
            "sizes": tuple(FrameSize(width=width, height=height, stages=stages) for width, height in sizes),
            "min_frames": frames[0],
            "max_frames": frames[1],
            "overlap": min(card.shape.overlap, frames[0] - card.shape.frame_stride),
        }
    )
    changes: dict[str, Any] = {"shape": shape, "options": {**card.options, **options}}
    if stages == 1:
        changes["sampling"] = card.sampling.model_copy(update={"refine_steps": None})
        changes["weights"] = card.weights.in_one_stage()
    return card.model_copy(update=changes)


@cache
def picture(folder: Path, colour: str) -> Path:
    path = folder / f"{colour}.png"
    Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(path)
    Image.blend(Image.open(path), Image.new("RGB", (96, 64), colour), 0.6).save(path)
    return path


def shortest(card: ModelCard) -> VideoShape:
    """Return the first of the card's sizes at its fewest frames."""
    size = card.shape.sizes[0]
    return VideoShape(card.shape.min_frames, size.height, size.width, card.shape.fps)


class Kept(list[bytes]):
    """What a loop can go on from, after each of its steps."""

    def on_step(self, step: Step) -> None:
        assert step.snapshot is not None
        self.append(step.snapshot()())


def fit(picture: Image.Image, request: GenerationRequest) -> Image.Image:
    return ImageOps.fit(picture.convert("RGB"), (request.shape.width, request.shape.height), Image.Resampling.LANCZOS)


def first(latents: Any) -> torch.Tensor:
    """Return what is decoded to frames, whatever comes with it."""
    return latents if isinstance(latents, torch.Tensor) else latents[0]


def equal(one: Any, other: Any) -> bool:
    """Compare latents, whatever they are made of, to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return all(equal(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None)


def moving_bar(size: FrameSize, frames: int, start: int = 0) -> Frames:
    """Return frames of a bar that moves over a gradient, from where it is in frame ``start``."""
    clip = np.zeros((frames, size.height, size.width, 3), dtype=np.uint8)
    clip[..., 1] = np.linspace(40, 200, size.width).astype(np.uint8)
    for index in range(frames):
        clip[index, :, start + index : start + index + size.width // 4] = (220, 60, 30)
    return clip


def random_lora(pipe: Any, denoiser: Any, modules: Iterable[str], folder: Path) -> Path:
    """Write a LoRA with random weights for the denoiser, as the pipeline's own trainer would."""
    adapted: Any = type(denoiser).from_config(denoiser.config)
    adapted.add_adapter(LoraConfig(r=2, target_modules=list(modules)), adapter_name="mine")
    found = get_peft_model_state_dict(adapted, adapter_name="mine")
    layers = {name: torch.randn_like(value) for name, value in found.items()}
    type(pipe).save_lora_weights(folder, transformer_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"
