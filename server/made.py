"""What an MP4 says of its making, as far as everybody who reads it needs."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

Short = Annotated[str, Field(max_length=500)]


class Made(BaseModel):
    """What ``pipelines.media.provenance`` wrote, perhaps in an older version; the file may come from anywhere."""

    prompt: str
    negative_prompt: str = ""
    seed: int
    num_inference_steps: int
    guidance_scale: float
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    step_cache: float = 0.0
    sound: bool = False
    model: Short
    facts: Annotated[dict[Short, Annotated[str, Field(max_length=2000)]], Field(max_length=64)] = {}
