"""LTX-Video in the layout of ``LTXConditionPipeline``: text, and pictures at any frame.

Source: "LTX-Video: Realtime Video Latent Diffusion", https://arxiv.org/abs/2501.00103.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt
from typing_extensions import override

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.errors import BadOutput, OutOfMemory, WeightsMissing
from pipelines.images import fitted
from pipelines.types import Frames, GenerationRequest, Given, ImageCondition, OnStep, Step


def _quiet() -> None:
    """Keep loading bars out of a worker's log, and a warning that cannot apply: these schedulers do not shift."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger(LTXConditionPipeline.__module__).setLevel(logging.ERROR)
    logging.getLogger(FlowMatchEulerDiscreteScheduler.__module__).setLevel(logging.ERROR)


class Options(BaseModel):
    """What an LTX card may say beyond the common fields.

    Attributes:
        max_sequence_length: Tokens that the prompt is padded or cut to.
        image_cond_noise_scale: Noise on given frames; what the checkpoint was trained with.
        schedule: ``linear`` noise levels, or the pipeline's own ``linear_quadratic`` list.
        reference_frame: Frame, far past a clip's end, as which the checkpoint was trained to see pictures of subjects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_sequence_length: PositiveInt = 256
    image_cond_noise_scale: NonNegativeFloat = 0.15
    schedule: Literal["linear", "linear_quadratic"] = "linear_quadratic"
    reference_frame: PositiveInt | None = None


@dataclass(frozen=True)
class Conditioning:
    """Encoded words, each ``(1, tokens, channels)`` with masks ``(1, tokens)``, and pictures at the clip's size.

    Attributes:
        words: The arguments that the pipeline takes instead of prompts.
        pictures: Those that the clip passes through.
        references: Those of subjects.
    """

    words: Mapping[str, torch.Tensor | None]
    pictures: Mapping[Path, Image.Image]
    references: tuple[LTXVideoCondition, ...]


class Pipeline(VideoPipeline[Conditioning, torch.Tensor]):
    """Latents are normalised, float32, ``(1, channels, latent frames, latent height, latent width)``."""

    def __init__(self, pipe: LTXConditionPipeline, card: ModelCard, device: str) -> None:
        self._pipe = pipe
        self._options = Options.model_validate(card.options)
        self._device = device

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, device: str) -> Pipeline:
        # Without AVX512-BF16 or AMX a CPU multiplies bfloat16 up to 90 times slower than float32.
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        _quiet()
        try:
            pipe = LTXConditionPipeline.from_pretrained(weights, dtype=dtype, local_files_only=True)
            pipe.to(device)
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{card.id} does not fit on {device}: {error}") from error
        except (OSError, ValueError) as error:
            raise WeightsMissing(f"The weights of {card.id} cannot be read: {error}") from error
        pipe.set_progress_bar_config(disable=True)
        return cls(pipe, card, device)

    @property
    @override
    def facts(self) -> Mapping[str, str]:
        return {
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "dtype": str(self._pipe.transformer.dtype).removeprefix("torch."),
            "device": self._device,
        }

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        if self._device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self._device)
        positive, mask, negative, negative_mask = self._pipe.encode_prompt(
            request.prompt,
            request.negative_prompt,
            do_classifier_free_guidance=request.guidance_scale > 1,
            max_sequence_length=self._options.max_sequence_length,
        )
        words = {
            "prompt_embeds": positive,
            "prompt_attention_mask": mask,
            "negative_prompt_embeds": negative,
            "negative_prompt_attention_mask": negative_mask,
        }
        width, height = request.shape.width, request.shape.height
        pictures = {c.path: fitted(c, width, height) for c in request.conditions}
        # Subjects are small and somewhere: padding keeps all of the picture, cropping would not.
        stills = [fitted(ImageCondition(path, fit="contain"), width, height) for path in request.references]
        references = tuple(LTXVideoCondition(image=s, frame_index=self._options.reference_frame or 0) for s in stills)
        return Conditioning(words, pictures, references)

    @override
    def denoise(
        self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep
    ) -> torch.Tensor:
        steps = request.num_inference_steps

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            # Raising stops at once; the pipeline's own interrupt flag would run through the remaining steps.
            on_step(Step(step + 1, steps, lambda: None))
            return tensors

        try:
            latents: torch.Tensor = self._pipe(
                **conditioning.words,
                conditions=self._conditions(request, conditioning, given) or None,
                height=request.shape.height,
                width=request.shape.width,
                num_frames=request.shape.frames,
                frame_rate=request.shape.fps,
                num_inference_steps=steps,
                timesteps=self._timesteps(steps),
                guidance_scale=request.guidance_scale,
                image_cond_noise_scale=self._options.image_cond_noise_scale,
                generator=torch.Generator("cpu").manual_seed(request.seed),
                output_type="latent",
                callback_on_step_end=step_end,
            ).frames
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"Denoising {request.shape.size} does not fit on {self._device}: {error}") from error
        finally:
            self._pipe.maybe_free_model_hooks()
        if not torch.isfinite(latents).all():
            raise BadOutput("The latents are not finite: the model overflowed. Try a wider dtype.")
        return latents

    def _conditions(
        self, request: GenerationRequest, conditioning: Conditioning, given: Given
    ) -> list[LTXVideoCondition]:
        pictures = [
            LTXVideoCondition(image=conditioning.pictures[c.path], frame_index=c.frame) for c in request.conditions
        ]
        if given.before is not None:
            before = [Image.fromarray(frame) for frame in given.before]
            pictures.append(LTXVideoCondition(video=before, frame_index=0))
        return [*conditioning.references, *pictures]

    def _timesteps(self, steps: int) -> list[float] | None:
        if self._options.schedule == "linear":
            return [1000 * (1 - step / steps) for step in range(steps)]
        return None

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> Iterator[Frames]:
        vae = self._pipe.vae
        raw = self._pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor).to(
            vae.dtype
        )
        try:
            video = vae.decode(raw, return_dict=False)[0]
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"Decoding {request.shape.size} does not fit on {self._device}: {error}") from error
        if not torch.isfinite(video).all():
            raise BadOutput("The frames are not finite: the VAE overflowed. Try a wider dtype.")
        for frame in video[0].movedim(1, 0):
            picture = frame.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
            yield np.asarray(picture.movedim(0, -1).cpu().numpy())[None]

    @property
    @override
    def peak_memory_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated(self._device) if self._device.startswith("cuda") else None

    @override
    def close(self) -> None:
        del self._pipe
        gc.collect()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
