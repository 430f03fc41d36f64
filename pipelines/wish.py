"""What somebody asks a model for, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.types import GenerationRequest, ImageCondition, Lora, SourceClip


@dataclass(frozen=True)
class Wish:
    """What somebody asked for. None means that the card decides; this is the one place where it may."""

    prompt: str
    negative_prompt: str | None = None
    size: tuple[int, int] | None = None
    """Width and height of the file."""
    seconds: float | None = None
    num_frames: int | None = None
    fps: int | None = None
    seed: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    step_cache: float | None = None
    sound: bool | None = None
    aspect_ratio: tuple[int, int] | None = None
    """Width to height, for whom no size is given."""
    conditions: tuple[ImageCondition, ...] = ()
    source: SourceClip | None = None
    """What to edit or to extend; ``seconds`` and ``num_frames`` are then the length of what is new."""
    strength: float | None = None
    """How far an edit may go from its source."""
    references: tuple[Path, ...] = ()
    """Pictures of subjects."""
    clips: Mapping[Path, Path] = field(default_factory=dict[Path, Path])
    """Clips of some of them, MP4 files by their pictures, for models that look at clips."""
    loras: tuple[Lora, ...] = ()


@dataclass(frozen=True)
class Resolved:
    """A request, and in which points it differs from the wish."""

    request: GenerationRequest
    warnings: tuple[str, ...]
