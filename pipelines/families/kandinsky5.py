"""Kandinsky 5: text to video and picture to video.

Source: "Kandinsky 5.0: A Family of Foundation Models for Image and Video Generation", https://arxiv.org/abs/2511.14993.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import Kandinsky5I2VPipeline, Kandinsky5T2VPipeline
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor
from typing_extensions import override

from pipelines.accel.host import Host
from pipelines.accel.hosted import DecodedAtOnce
from pipelines.accel.lora import loras
from pipelines.accel.pixels import finite
from pipelines.accel.qwen import read_by_qwen
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.card import ModelCard
from pipelines.images import beginning, fitted
from pipelines.plan import MemoryPlan
from pipelines.types import GenerationRequest, Given, OnStep, Step

_KINDS: Mapping[str, Any] = {"text": Kandinsky5T2VPipeline, "image": Kandinsky5I2VPipeline}


class Options(BaseModel):
    """What a Kandinsky 5 card may say beyond the common fields.

    Attributes:
        task: What the checkpoint was trained for; ``image`` cannot do without one.
        max_sequence_length: Tokens after which the prompt is cut.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Literal["text", "image"] = "text"
    max_sequence_length: PositiveInt = 512


@dataclass(frozen=True)
class Conditioning:
    """Encoded words by the arguments of the pipeline, and pictures at the clip's size by their files."""

    words: Mapping[str, Tensor]
    pictures: Mapping[Path, Image.Image]


class Pipeline(DecodedAtOnce[Conditioning]):
    """Latents are normalised, channels last: ``(1, latent frames, latent height, latent width, channels)``."""

    def __init__(self, host: Host[Any], card: ModelCard) -> None:
        self._host = host
        self._options = Options.model_validate(card.options)
        pipe = host.pipe
        self._sketcher = Sketcher(
            self._painted, self._encoded, pipe.vae_scale_factor_temporal, pipe.vae_scale_factor_spatial
        )

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> Pipeline:
        task = Options.model_validate(card.options).task
        return cls(read_by_qwen(_KINDS[task], card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        host = self._host
        host.start_measuring()
        with host.stage("Encoding the prompt", "text_encoder", "text_encoder_2"):
            words = self._words("", request.prompt)
            if request.guidance_scale > 1:
                words |= self._words("negative_", request.negative_prompt)
        with host.stage("Encoding", "vae"):
            self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        return Conditioning(words, {c.path: fitted(c, width, height) for c in request.conditions})

    def _words(self, which: str, prompt: str) -> dict[str, Tensor]:
        pipe, limit = self._host.pipe, self._options.max_sequence_length
        made = pipe.encode_prompt(prompt, max_sequence_length=limit, dtype=pipe.transformer.dtype)
        names = ("prompt_embeds_qwen", "prompt_embeds_clip", "prompt_cu_seqlens")
        return {f"{which}{name}": value for name, value in zip(names, made, strict=True)}

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        eyes = ("vae",) if self._options.task == "image" else ()
        stage = self._host.stage(f"Denoising {request.shape.size}", "transformer", *eyes)
        with stage, loras(self._host.pipe, request.loras):
            return finite(self._sample(request, conditioning, given, on_step))

    def _sample(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        pipe, shape, steps = self._host.pipe, request.shape, request.num_inference_steps
        generator = torch.Generator("cpu").manual_seed(request.seed)
        first = {"image": beginning(conditioning.pictures, request, given)} if self._options.task == "image" else {}
        channels = pipe.transformer.config.in_visual_dim
        earlier: list[tuple[float, Tensor]] = []

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            # Beside them the loop carries the picture and where it is; the scheduler makes all but the picture's own.
            latents = tensors["latents"][..., :channels]
            level, seen = float(pipe.scheduler.sigmas[step + 1]), latents.clone().movedim(-1, 1)
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, seen))
            sketch = partial(self._sketcher.paint, seen, level, last, higher)
            point = Point.of(step + 1, [(pipe.scheduler, latents[:, len(first) :])], generator)
            on_step(Step(step + 1, steps, sketch, point.freeze))
            return {}

        point = Point.thaw(given.state, self._host.plan.device) if given.state else None
        with resumed(pipe, point, generator):
            return pipe(
                **first,
                **conditioning.words,
                height=shape.height,
                width=shape.width,
                num_frames=shape.frames,
                num_inference_steps=steps,
                guidance_scale=request.guidance_scale,
                generator=generator,
                output_type="latent",
                callback_on_step_end=step_end,
            ).frames

    @override
    def _clip(self, request: GenerationRequest, latents: Tensor) -> Tensor:
        return latents.movedim(-1, 1)
