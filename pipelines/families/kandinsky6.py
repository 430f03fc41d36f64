"""Kandinsky 6: pictures and sound in one denoising loop, from words or a first frame.

Source: "Kandinsky 6.0 Video: Foundation Models for Synchronized Video and Audio Generation",
https://arxiv.org/abs/2610.05608.
"""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import Kandinsky6TI2VAPipeline
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor
from typing_extensions import override

from pipelines.accel.answers import answered
from pipelines.accel.host import Host
from pipelines.accel.hosted import PlainlyScaled
from pipelines.accel.pixels import finite, frames_of
from pipelines.accel.qwen import read_by_qwen
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.accel.sounding import Made, SoundingPipeline, sound_of
from pipelines.card import ModelCard
from pipelines.images import beginning, fitted
from pipelines.plan import MemoryPlan
from pipelines.types import Audio, Frames, GenerationRequest, Given, OnStep, Step

# Both streams of the loop.
_STREAMS = ("latents", "audio_latents")


class Options(BaseModel):
    """What a Kandinsky 6 card may say beyond the common fields.

    Attributes:
        max_sequence_length: Tokens that the prompt is padded or cut to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_sequence_length: PositiveInt = 1024


@dataclass(frozen=True)
class Conditioning:
    """What a clip is made from.

    Attributes:
        words: All that the pipeline's ``encode_prompt`` returns.
        pictures: At the clip's size, by their files.
    """

    words: tuple[Tensor | None, ...]
    pictures: Mapping[Path, Image.Image]


class Pipeline(PlainlyScaled[Conditioning, Made], SoundingPipeline[Conditioning]):
    """Latents of sound are ``(1, channels, length)``; those of both are scaled as the denoiser knows them."""

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
        return cls(read_by_qwen(Kandinsky6TI2VAPipeline, card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        host = self._host
        host.start_measuring()
        with host.stage("Encoding the prompt", "text_encoder", "text_encoder_2"):
            words = host.pipe.encode_prompt(
                request.prompt,
                # In a list, for it takes an empty one on its own for none and has a text of its own.
                [request.negative_prompt],
                do_classifier_free_guidance=request.guidance_scale > 1,
                max_sequence_length=self._options.max_sequence_length,
                dtype=host.pipe.transformer.dtype,
            )
        with host.stage("Encoding", "vae"):
            self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        return Conditioning(words, {c.path: fitted(c, width, height) for c in request.conditions})

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Made:
        first = beginning(conditioning.pictures, request, given) if _is_shown(request, given) else None
        eyes = () if first is None else ("vae",)
        with self._host.stage(f"Denoising {request.shape.size}", "transformer", *eyes):
            made = self._sample(request, conditioning, first, given, on_step)
        return Made(finite(made.video), finite(made.audio))

    def _sample(
        self,
        request: GenerationRequest,
        conditioning: Conditioning,
        first: Image.Image | None,
        given: Given,
        on_step: OnStep,
    ) -> Made:
        pipe, shape, steps = self._host.pipe, request.shape, request.num_inference_steps
        generator = torch.Generator("cpu").manual_seed(request.seed)
        count = (shape.frames - 1) // pipe.vae_scale_factor_temporal + 1
        earlier: list[tuple[float, Tensor]] = []

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            # A picture comes behind the clip's own latents.
            level, seen = float(pipe.scheduler.sigmas[step + 1]), tensors["latents"][:, :count].clone().movedim(-1, 1)
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, seen))
            sketch = partial(self._sketcher.paint, seen, level, last, higher)
            pairs = [(s, tensors[name]) for s, name in zip((pipe.scheduler, sounds), _STREAMS, strict=True)]
            on_step(Step(step + 1, steps, sketch, Point.of(step + 1, pairs, generator).freeze))
            return {}

        point = Point.thaw(given.state, self._host.plan.device) if given.state else None
        with (
            # The call takes encoded words but not their masks, without which padding would be attended to.
            answered(pipe, "encode_prompt", conditioning.words),
            _of_sound(pipe.scheduler) as sounds,
            resumed(pipe, point, generator, sounds),
        ):
            made = pipe(
                prompt=request.prompt,
                image=first,
                height=shape.height,
                width=shape.width,
                num_frames=shape.frames,
                frame_rate=float(shape.fps),
                num_inference_steps=steps,
                guidance_scale=request.guidance_scale,
                generator=generator,
                output_type="latent",
                callback_on_step_end=step_end,
                callback_on_step_end_tensor_inputs=list(_STREAMS),
            )
        return Made(made.frames, made.audio)

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: Made) -> Iterator[Frames]:
        with self._host.stage(f"Decoding {request.shape.size}", "vae"):
            video = self._painted(latents.video)
        yield from frames_of(video)

    @override
    @torch.no_grad()
    def audio(self, request: GenerationRequest, latents: Made) -> Audio:
        pipe = self._host.pipe
        with self._host.stage("Decoding the sound", "audio_vae", "vocoder"):
            vae = pipe.audio_vae
            raw = latents.audio.to(self._host.plan.device, vae.dtype) / vae.config.scaling_factor
            mel = vae.decode(raw, return_dict=False)[0]
            wave = pipe.vocoder(mel.to(pipe.vocoder.dtype), return_dict=False)[0]
        return sound_of(wave[0], int(pipe.audio_sample_rate), request.shape.seconds)


def _is_shown(request: GenerationRequest, given: Given) -> bool:
    return bool(request.conditions) or given.before is not None


@contextmanager
def _of_sound(scheduler: Any) -> Generator[Any]:
    """Return the scheduler which a call will have for the sound: it makes a copy for itself, out of sight."""
    twin = copy.deepcopy(scheduler)

    def copied(_memo: dict[int, Any]) -> Any:
        # By now the call has told the scheduler its steps.
        state = {name: value for name, value in vars(scheduler).items() if name != "__deepcopy__"}
        vars(twin).update(copy.deepcopy(state))
        return twin

    scheduler.__deepcopy__ = copied
    try:
        yield twin
    finally:
        del scheduler.__deepcopy__
