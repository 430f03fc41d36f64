"""CogVideoX and CogVideoX 1.5: text to video and picture to video.

Source: "CogVideoX: Text-to-Video Diffusion Models with An Expert Transformer", https://arxiv.org/abs/2408.06072.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline, CogVideoXPipeline
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor
from typing_extensions import override

from pipelines.accel.host import Host
from pipelines.accel.hosted import DecodedAtOnce
from pipelines.accel.lora import loras
from pipelines.accel.pixels import finite
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.card import ModelCard
from pipelines.images import beginning, fitted
from pipelines.plan import MemoryPlan
from pipelines.types import GenerationRequest, Given, OnStep, Step

_KINDS: Mapping[str, Any] = {"text": CogVideoXPipeline, "image": CogVideoXImageToVideoPipeline}


class Options(BaseModel):
    """What a CogVideoX card may say beyond the common fields.

    Attributes:
        task: What the checkpoint was trained for; ``image`` cannot do without one.
        max_sequence_length: Tokens that the prompt is padded or cut to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Literal["text", "image"] = "text"
    max_sequence_length: PositiveInt = 226


@dataclass(frozen=True)
class Conditioning:
    """Encoded words, each ``(1, tokens, channels)``, and pictures at the clip's size by their files."""

    positive: Tensor
    negative: Tensor | None
    pictures: Mapping[Path, Image.Image]


class Pipeline(DecodedAtOnce[Conditioning]):
    """Latents are normalised, ``(1, latent frames, channels, latent height, latent width)``, padding first."""

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
        return cls(Host.load(_KINDS[task], card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        host = self._host
        host.start_measuring()
        with host.stage("Encoding the prompt", "text_encoder"):
            positive, negative = host.pipe.encode_prompt(
                request.prompt,
                request.negative_prompt,
                do_classifier_free_guidance=request.guidance_scale > 1,
                max_sequence_length=self._options.max_sequence_length,
            )
        with host.stage("Encoding", "vae"):
            self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        return Conditioning(positive, negative, {c.path: fitted(c, width, height) for c in request.conditions})

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        eyes = ("vae",) if self._options.task == "image" else ()
        stage = self._host.stage(f"Denoising {request.shape.size}", "transformer", *eyes)
        with stage, loras(self._host.pipe, request.loras):
            return finite(self._sample(request, conditioning, given, on_step))

    def _sample(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        pipe, shape, steps = self._host.pipe, request.shape, request.num_inference_steps
        generator = torch.Generator("cpu").manual_seed(request.seed)
        scheduler = pipe.scheduler = _remembering(pipe.scheduler)

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            sketch = partial(self._sketcher.paint, self._clip(request, scheduler.clean), 0.0)
            point = Point.of(step + 1, [(scheduler, tensors["latents"])], generator)
            on_step(Step(step + 1, steps, sketch, point.freeze))
            return {}

        first = {} if self._options.task == "text" else {"image": beginning(conditioning.pictures, request, given)}
        point = Point.thaw(given.state, self._host.plan.device) if given.state else None
        with resumed(pipe, point, generator):
            return pipe(
                **first,
                prompt_embeds=conditioning.positive,
                negative_prompt_embeds=conditioning.negative,
                height=shape.height,
                width=shape.width,
                num_frames=shape.frames,
                num_inference_steps=steps,
                guidance_scale=request.guidance_scale,
                max_sequence_length=self._options.max_sequence_length,
                generator=generator,
                output_type="latent",
                callback_on_step_end=step_end,
            ).frames

    @override
    def _clip(self, request: GenerationRequest, latents: Tensor) -> Tensor:
        """Return ``(1, channels, f, h, w)`` without the latents that fill the patches up, which come first."""
        wanted = (request.shape.frames - 1) // self._host.pipe.vae_scale_factor_temporal + 1
        return latents[:, latents.shape[1] - wanted :].transpose(1, 2)

    @override
    def _painted(self, latents: Tensor) -> Tensor:
        """Return frames ``(1, 3, frames, height, width)`` in about [-1, 1] of latents ``(1, channels, f, h, w)``."""
        pipe = self._host.pipe
        return pipe.decode_latents(latents.transpose(1, 2).to(self._host.plan.device, pipe.vae.dtype))


def _remembering(scheduler: Any) -> Any:
    """Return a fresh scheduler that keeps the clean latents of its last step, as the loop would in a variable."""
    kind: Any = type(scheduler)
    if not hasattr(kind, "clean"):
        kind = _kind_that_remembers(kind)
    return kind.from_config(scheduler.config)


def _kind_that_remembers(kind: Any) -> Any:
    hands_it_in = issubclass(kind, CogVideoXDPMScheduler)

    class Remembering(kind):
        clean: Tensor | None = None

        # The loop asks by its signature whether a step takes the noise.
        @wraps(kind.step)
        def step(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
            if hands_it_in:
                # What the loop hands in is gone once it is resumed.
                args = (self.clean, *args[1:])
            made = super().step(model_output, *args, **kwargs)
            self.clean = made[1]
            return made

        @property
        def beside(self) -> tuple[Tensor | None, ...]:
            """What a step returns beside the latents."""
            return (self.clean,)

    Remembering.__name__ = kind.__name__
    return Remembering
