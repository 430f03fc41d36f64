"""LTX-2: pictures and sound in one denoising loop.

Source: "LTX-2: Efficient Joint Audio-Visual Foundation Model", https://arxiv.org/abs/2601.03233.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2ConditionPipeline, LTX2LatentUpsamplePipeline
from diffusers.pipelines.ltx2 import LTX2LatentUpsamplerModel
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.utils import STAGE_2_DISTILLED_SIGMA_VALUES
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from typing_extensions import override

from pipelines.accel.answers import answered
from pipelines.accel.host import Host
from pipelines.accel.lora import loras, refining
from pipelines.accel.pixels import encoded, finite, frames_of
from pipelines.accel.refining import Pass, Refinement, begun, doubled, load_host
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.accel.sounding import Made, SoundingPipeline, sound_of
from pipelines.card import ModelCard
from pipelines.images import fitted
from pipelines.plan import MemoryPlan
from pipelines.types import Audio, Frames, GenerationRequest, Given, OnStep, Step, VideoShape
from pipelines.weights import UPSAMPLER

# Every streamed tensor of the loop; the pipeline lets itself be asked for the first only.
_STREAMS = ("latents", "audio_latents")
# What the second stage was distilled to do without.
_UNGUIDED = {
    "guidance_scale": 1.0,
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "guidance_rescale": 0.0,
    "audio_guidance_scale": 1.0,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
    "audio_guidance_rescale": 0.0,
}


class Options(BaseModel):
    """What an LTX-2 card may say beyond the common fields. Each kind of guidance costs a forward pass a step.

    Attributes:
        sigmas: The noise levels that the checkpoint was distilled to, without the last, 0.
        stg_scale: Strength of guidance away from what blocks without attention over time would make; 0 for none.
        stg_blocks: Those blocks.
        modality_scale: Strength of guidance away from pictures and sound that do not hear each other; 1 for none.
        guidance_rescale: How far guided predictions are brought back to the spread of the others.
        audio_guidance_scale: Guidance of the sound by the prompt.
        cross_timestep: Whether what pictures hear of sound, and sound sees of pictures, is weighed by the noise of the
            other; 2.0 weighs it by their own, which differs where a picture was given.
        max_sequence_length: Tokens that the prompt is padded or cut to.
        refinement: The second stage of sizes that are made in two.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    sigmas: tuple[PositiveFloat, ...] | None = None
    stg_scale: NonNegativeFloat = 1.0
    stg_blocks: tuple[NonNegativeInt, ...] = (28,)
    modality_scale: PositiveFloat = 3.0
    guidance_rescale: NonNegativeFloat = 0.7
    audio_guidance_scale: PositiveFloat = 7.0
    cross_timestep: bool = True
    max_sequence_length: PositiveInt = 1024
    refinement: Refinement = Refinement(levels=tuple(STAGE_2_DISTILLED_SIGMA_VALUES))


@dataclass(frozen=True)
class Conditioning:
    """What a clip is made from.

    Attributes:
        words: As the connectors told them to pictures and to sound, each ``(1, tokens, channels)``, and their mask. Of
            guided clips in front of it what to go away from.
        pictures: At the clip's size, by their files.
    """

    words: tuple[Tensor, Tensor, Tensor]
    pictures: Mapping[Path, Image.Image]


class _Loop(NamedTuple):
    """Whose loop it is, who is told of its steps, and where the noise of all of a clip's loops comes from."""

    pipe: Any
    on_step: OnStep
    generator: torch.Generator


class Pipeline(SoundingPipeline[Conditioning]):
    """Text, pictures at both ends, and clips to go on from; sound comes with all of it.

    Latents of sound are ``(1, channels, latent length, mel bins)``.
    """

    def __init__(self, host: Host[LTX2ConditionPipeline], card: ModelCard) -> None:
        self._host = host
        self._options = Options.model_validate(card.options)
        self._options.refinement.check(card)
        pipe: Any = host.pipe
        _let_hear(pipe)
        self._sketcher = Sketcher(
            self._painted, self._encoded, pipe.vae_temporal_compression_ratio, pipe.vae_spatial_compression_ratio
        )

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> Pipeline:
        return cls(load_host(LTX2ConditionPipeline, LTX2LatentUpsamplerModel, card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        pipe: Any = self._host.pipe
        self._host.start_measuring()
        with self._host.stage("Encoding the prompt", "text_encoder"):
            positive, mask, negative, negative_mask = pipe.encode_prompt(
                request.prompt,
                request.negative_prompt,
                do_classifier_free_guidance=self._is_guided(request),
                max_sequence_length=self._options.max_sequence_length,
            )
        if negative is not None:
            positive, mask = torch.cat([negative, positive]), torch.cat([negative_mask, mask])
        # Now, while the denoiser is away: what every layer of the text encoder says is thousands of times as much.
        with self._host.stage("Connecting the words", "connectors"), loras(pipe, request.loras):
            words = pipe.connectors(positive, mask, padding_side=pipe.tokenizer_padding_side)
        with self._host.stage("Encoding", "vae"):
            self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        return Conditioning(words, {c.path: fitted(c, width, height) for c in request.conditions})

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Made:
        parts = ["transformer"]
        parts += ["vae"] if request.conditions or given.before is not None else []
        parts += [UPSAMPLER] if request.refine_steps else []
        stage = self._host.stage(f"Denoising {request.shape.size}", *parts)
        with stage:
            made = self._sample(request, conditioning, given, on_step)
        return Made(finite(made.video), finite(made.audio))

    def _sample(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Made:
        first, second = begun(request, given.state, self._host.plan.device)
        loop = _Loop(self._host.pipe, on_step, torch.Generator("cpu").manual_seed(request.seed))
        if second is None:
            run = Pass.first(request, first, self._asked(request))
            made = self._run(request, conditioning, given, loop, run)
            if not request.refine_steps:
                return made
            upsample = partial(self._host.sibling(LTX2LatentUpsamplePipeline), latents_normalized=False)
            made = made._replace(video=doubled(upsample, made.video, self._options.refinement))
        else:
            # What the first stage left is in the point already; of what comes in its place, the shape alone counts.
            made = self._blank(request.shape, second)
        return self._run(request, conditioning, given, self._unshifted(loop), self._refining(request, made, second))

    def _asked(self, request: GenerationRequest) -> dict[str, Any]:
        """Return what the loop from noise is told."""
        options = self._options
        return {
            "num_inference_steps": request.num_inference_steps,
            "sigmas": None if options.sigmas is None else list(options.sigmas),
            "guidance_scale": request.guidance_scale,
            "stg_scale": options.stg_scale,
            "modality_scale": options.modality_scale,
            "guidance_rescale": options.guidance_rescale,
            "audio_guidance_scale": options.audio_guidance_scale if request.guidance_scale > 1 else 1.0,
            "audio_stg_scale": options.stg_scale,
            "audio_modality_scale": options.modality_scale,
            "audio_guidance_rescale": options.guidance_rescale,
            "spatio_temporal_guidance_blocks": list(options.stg_blocks),
        }

    def _refining(self, request: GenerationRequest, made: Made, point: Point | None) -> Pass:
        """Return the second stage. Sound goes through it as pictures do: noise is added to both and taken away."""
        levels = list(self._options.refinement.levels or ())
        begun_with = {"latents": made.video, "audio_latents": made.audio, "noise_scale": levels[0], "sigmas": levels}
        return Pass.second(request, point, {"num_inference_steps": len(levels), **begun_with, **_UNGUIDED})

    def _unshifted(self, loop: _Loop) -> _Loop:
        """Return the loop with schedulers that take noise levels as they are told."""
        unshifted = FlowMatchEulerDiscreteScheduler.from_config(
            loop.pipe.scheduler.config, use_dynamic_shifting=False, shift_terminal=None
        )
        pipe = self._host.sibling(LTX2ConditionPipeline, scheduler=unshifted, audio_scheduler=None)
        _let_hear(pipe)
        return loop._replace(pipe=pipe)

    def _blank(self, shape: VideoShape, point: Point) -> Made:
        """Return latents of a shape, and of the sound of a point."""
        pipe: Any = self._host.pipe
        bins = pipe.audio_mel_bins // pipe.audio_vae_mel_compression_ratio
        sound = pipe._unpack_audio_latents(point.latents[1], point.latents[1].shape[1], num_mel_bins=bins)
        return Made(torch.zeros(1, pipe.transformer.config.in_channels, *self._grid(shape), device=sound.device), sound)

    def _run(
        self, request: GenerationRequest, conditioning: Conditioning, given: Given, loop: _Loop, run: Pass
    ) -> Made:
        pipe, point, generator = loop.pipe, run.point, loop.generator
        earlier: list[tuple[float, Tensor]] = []

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            # The loop splits what it needs in its first step, so that is the one which is run again.
            done = point.step if point is not None and step == 0 else step + 1
            level, latents = float(pipe.scheduler.sigmas[done]), self._clip(run.shape, tensors["latents"])
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, latents))
            sketch = partial(self._sketcher.paint, latents, level, last, higher)
            schedulers = (pipe.scheduler, pipe.audio_scheduler)
            pairs = [(s, tensors[name]) for s, name in zip(schedulers, _STREAMS, strict=True)]
            done += run.before
            loop.on_step(Step(done, request.steps, sketch, Point.of(done, pairs, generator).freeze))
            return {}

        # The loop asks words for their numbers, and has the connectors see to the rest.
        told = conditioning.words
        unread = torch.zeros(1, 1, 1, dtype=told[0].dtype, device=told[0].device)
        words = {"prompt_embeds": unread, "prompt_attention_mask": unread[0]}
        if run.arguments["guidance_scale"] > 1:
            words |= {f"negative_{name}": value for name, value in words.items()}
        else:
            told = tuple(each[-1:] for each in told)
        added = [*request.loras, *(refining(self._host.card) if run.before else ())]
        connected = answered(pipe.connectors, "forward", told)
        going_on = resumed(pipe, point, generator, pipe.audio_scheduler, by_the_first=True)
        with loras(self._host.pipe, added), connected, going_on:
            made = pipe(
                **words,
                **run.arguments,
                conditions=_conditions(request, conditioning, given) or None,
                height=run.shape.height,
                width=run.shape.width,
                num_frames=run.shape.frames,
                frame_rate=float(run.shape.fps),
                use_cross_timestep=self._options.cross_timestep,
                generator=generator,
                output_type="latent",
                callback_on_step_end=step_end,
                callback_on_step_end_tensor_inputs=list(_STREAMS),
            )
        return Made(made.frames, made.audio)

    def _is_guided(self, request: GenerationRequest) -> bool:
        return request.guidance_scale > 1

    def _clip(self, shape: VideoShape, packed: Tensor) -> Tensor:
        """Return normalised latents ``(1, channels, f, h, w)`` of packed ones; pictures' own tokens come last."""
        pipe: Any = self._host.pipe
        grid = self._grid(shape)
        return pipe._unpack_latents(packed[:, : math.prod(grid)], *grid, 1, 1)

    def _grid(self, shape: VideoShape) -> tuple[int, int, int]:
        """Return frames, height and width of a shape's latents."""
        pipe: Any = self._host.pipe
        side = pipe.vae_spatial_compression_ratio
        count = (shape.frames - 1) // pipe.vae_temporal_compression_ratio + 1
        return count, shape.height // side, shape.width // side

    def _encoded(self, frames: Frames) -> Tensor:
        """Return normalised latents ``(1, channels, f, h, w)``, float32, of ``(frames, height, width, 3)``."""
        pipe: Any = self._host.pipe
        vae = pipe.vae
        raw = encoded(vae, frames, self._host.plan.device)
        return pipe._normalize_latents(raw, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)

    def _painted(self, latents: Tensor) -> Tensor:
        """Return frames ``(1, 3, frames, height, width)`` in about [-1, 1] of normalised latents."""
        pipe: Any = self._host.pipe
        vae = pipe.vae
        raw = pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        return vae.decode(raw.to(self._host.plan.device, vae.dtype), None, return_dict=False)[0]

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: Made) -> Iterator[Frames]:
        vae: Any = self._host.pipe.vae
        if self._host.plan.tiled:
            vae.enable_tiling()
        else:
            vae.disable_tiling()
        # Tiles in time too, which tiling alone does not turn on.
        vae.use_framewise_decoding = self._host.plan.tiled
        with self._host.stage(f"Decoding {request.shape.size}", "vae"):
            video = vae.decode(latents.video.to(self._host.plan.device, vae.dtype), None, return_dict=False)[0]
        yield from frames_of(video)

    @override
    @torch.no_grad()
    def audio(self, request: GenerationRequest, latents: Made) -> Audio:
        pipe: Any = self._host.pipe
        with self._host.stage("Decoding the sound", "audio_vae", "vocoder"):
            raw = latents.audio.to(self._host.plan.device, pipe.audio_vae.dtype)
            wave = pipe.vocoder(pipe.audio_vae.decode(raw, return_dict=False)[0])
        rate = int(pipe.vocoder.config.output_sampling_rate)
        return sound_of(wave[0], rate, request.shape.seconds)


def _let_hear(pipe: Any) -> None:
    """Have a pipeline show both streams to whoever is called after a step."""
    if pipe.audio_scheduler is None:
        # The loop would copy it for itself, out of sight.
        pipe.register_modules(audio_scheduler=copy.deepcopy(pipe.scheduler))
    pipe._callback_tensor_inputs = [*type(pipe)._callback_tensor_inputs, "audio_latents"]


def _conditions(request: GenerationRequest, conditioning: Conditioning, given: Given) -> list[LTX2VideoCondition]:
    """Return pictures and the clip to go on from; the pipeline counts in latents, of which -1 is the last."""
    found = [
        LTX2VideoCondition(frames=conditioning.pictures[c.path], index=0 if c.frame == 0 else -1, crf=0)
        for c in request.conditions
    ]
    if given.before is not None:
        found.append(LTX2VideoCondition(frames=[Image.fromarray(frame) for frame in given.before], index=0, crf=0))
    return found
