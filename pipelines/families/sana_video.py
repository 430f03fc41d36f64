"""SANA-Video: text to video and picture to video with linear attention, by one checkpoint.

Source: "SANA-Video: Efficient Video Generation with Block Linear Diffusion Transformer", https://arxiv.org/abs/2509.24695.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SanaImageToVideoPipeline, SanaVideoPipeline
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt
from torch import Tensor
from typing_extensions import override

from pipelines.accel.host import Host
from pipelines.accel.hosted import DecodedAtOnce
from pipelines.accel.lora import loras
from pipelines.accel.pixels import encoded, finite
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.card import ModelCard
from pipelines.images import beginning, fitted
from pipelines.plan import MemoryPlan
from pipelines.types import Frames, GenerationRequest, Given, OnStep, Step

# What the model was trained to read before every prompt; the pipeline says it by default, its encoding alone does not.
_INSTRUCTION = inspect.signature(SanaVideoPipeline.__call__).parameters["complex_human_instruction"].default


class Options(BaseModel):
    """What a SANA-Video card may say beyond the common fields.

    Attributes:
        motion_score: How much is to move, which the model was trained to be told behind the prompt.
        max_sequence_length: Tokens that the prompt is padded or cut to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    motion_score: NonNegativeInt = 30
    max_sequence_length: PositiveInt = 300


@dataclass(frozen=True)
class Conditioning:
    """Encoded words by the arguments of the pipeline, and pictures at the clip's size by their files."""

    words: Mapping[str, Tensor | None]
    pictures: Mapping[Path, Image.Image]


class Pipeline(DecodedAtOnce[Conditioning]):
    """Latents are normalised: ``(1, channels, latent frames, latent height, latent width)``."""

    def __init__(self, host: Host[Any], card: ModelCard) -> None:
        self._host = host
        self._options = Options.model_validate(card.options)
        pipe = host.pipe
        self._sketcher = Sketcher(
            self._painted, self._encoded, pipe.vae_scale_factor_temporal, pipe.vae_scale_factor_spatial
        )
        # A picture's clip is solved in another way, since the noise is not the same for all of its frames.
        self._from_picture: Any = host.sibling(SanaImageToVideoPipeline, scheduler=FlowMatchEulerDiscreteScheduler())

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> Pipeline:
        return cls(Host.load(SanaVideoPipeline, card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        host = self._host
        host.start_measuring()
        with host.stage("Encoding the prompt", "text_encoder"):
            made = host.pipe.encode_prompt(
                f"{request.prompt} motion score: {self._options.motion_score}.",
                request.guidance_scale > 1,
                negative_prompt=request.negative_prompt,
                max_sequence_length=self._options.max_sequence_length,
                complex_human_instruction=_INSTRUCTION,
            )
        with host.stage("Encoding", "vae"):
            self._sketcher.fit()
        names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        width, height = request.shape.width, request.shape.height
        pictures = {c.path: fitted(c, width, height) for c in request.conditions}
        return Conditioning(dict(zip(names, made, strict=True)), pictures)

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        eyes = ("vae",) if _begins_with_a_picture(request, given) else ()
        stage = self._host.stage(f"Denoising {request.shape.size}", "transformer", *eyes)
        with stage, loras(self._host.pipe, request.loras):
            return finite(self._sample(request, conditioning, given, on_step))

    def _sample(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        shape, steps = request.shape, request.num_inference_steps
        generator = torch.Generator("cpu").manual_seed(request.seed)
        pipe, first = self._host.pipe, {}
        if _begins_with_a_picture(request, given):
            pipe, first = self._from_picture, {"image": beginning(conditioning.pictures, request, given)}
        pipe.scheduler = _shifted(pipe.scheduler, request.flow_shift)
        earlier: list[tuple[float, Tensor]] = []

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            level, latents = float(pipe.scheduler.sigmas[step + 1]), tensors["latents"]
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, latents))
            sketch = partial(self._sketcher.paint, latents, level, last, higher)
            # The scheduler makes all but the picture's own.
            point = Point.of(step + 1, [(pipe.scheduler, latents[:, :, len(first) :])], generator)
            on_step(Step(step + 1, steps, sketch, point.freeze))
            return {}

        point = Point.thaw(given.state, self._host.plan.device) if given.state else None
        with resumed(pipe, point, generator):
            return pipe(
                **first,
                **conditioning.words,
                # A text that is not None would be encoded again.
                negative_prompt=None,
                height=shape.height,
                width=shape.width,
                frames=shape.frames,
                num_inference_steps=steps,
                guidance_scale=request.guidance_scale,
                use_resolution_binning=False,
                generator=generator,
                output_type="latent",
                callback_on_step_end=step_end,
            ).frames

    @override
    def _encoded(self, frames: Frames) -> Tensor:
        raw = encoded(self._host.pipe.vae, frames, self._host.plan.device)
        mean, std = self._statistics(raw)
        return (raw - mean) / std

    @override
    def _painted(self, latents: Tensor) -> Tensor:
        """Return frames ``(1, 3, frames, height, width)`` in about [-1, 1] of normalised latents."""
        vae = self._host.pipe.vae
        ready = latents.to(self._host.plan.device, vae.dtype)
        mean, std = self._statistics(ready)
        return vae.decode(ready * std + mean, return_dict=False)[0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the VAE's latents, ``(1, channels, 1, 1, 1)``."""
        config = self._host.pipe.vae.config
        mean, std = (
            like.new_tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std)
        )
        return mean, std


def _begins_with_a_picture(request: GenerationRequest, given: Given) -> bool:
    return given.before is not None or bool(request.conditions)


def _shifted(scheduler: Any, flow_shift: float) -> Any:
    """Return a fresh scheduler; the two kinds call the shift by two names."""
    name = "shift" if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else "flow_shift"
    return type(scheduler).from_config(scheduler.config, **{name: flow_shift})
