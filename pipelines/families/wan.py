"""Wan 2.1 and 2.2: text to video, image to video, both in one, and VACE, which takes frames anywhere.

Source: "Wan: Open and Advanced Large-Scale Video Generative Models", https://arxiv.org/abs/2503.20314; VACE:
"VACE: All-in-One Video Creation and Editing", https://arxiv.org/abs/2503.07598.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVACEPipeline,
)
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt, model_validator
from torch import Tensor
from typing_extensions import override

from pipelines.accel.flow_edit import Course, Noise, Velocities, edited
from pipelines.accel.host import Host
from pipelines.accel.hosted import HostedPipeline
from pipelines.accel.lora import loras
from pipelines.accel.pixels import encoded, finite, frames_of
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.accel.states import Frozen
from pipelines.accel.step_cache import stream
from pipelines.card import ModelCard
from pipelines.images import fitted, open_image
from pipelines.plan import MemoryPlan
from pipelines.types import Frames, GenerationRequest, Given, OnStep, Step

_KINDS: Mapping[str, type[DiffusionPipeline]] = {
    "text": WanPipeline,
    "image": WanImageToVideoPipeline,
    "either": WanPipeline,
    "vace": WanVACEPipeline,
}
# What VACE reads as "to be made": neither dark nor bright.
_GREY = 128


class Options(BaseModel):
    """What a Wan card may say beyond the common fields.

    Attributes:
        task: What the checkpoint was trained for: ``text``, ``image`` (it cannot do without one), ``either``, ``vace``.
        solver: ``unipc``, which the models come with, or what those distilled to a few steps were taught: ``euler``, or
            ``renoise``, which makes the clip anew at every step and adds new noise.
        timesteps: The thousandths of noise at which ``renoise`` was taught; no other number of steps is possible.
        max_sequence_length: Tokens that the prompt is padded or cut to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Literal["text", "image", "either", "vace"] = "text"
    solver: Literal["unipc", "euler", "renoise"] = "unipc"
    timesteps: tuple[PositiveInt, ...] = ()
    max_sequence_length: PositiveInt = 512

    @model_validator(mode="after")
    def _renoising_needs_levels(self) -> Options:
        if bool(self.timesteps) != (self.solver == "renoise"):
            raise ValueError("timesteps and the solver renoise belong together")
        return self


@dataclass(frozen=True)
class Conditioning:
    """Encoded words, each ``(1, tokens, channels)``, and pictures at the clip's size.

    Attributes:
        positive: What to show.
        negative: What to steer away from; None without guidance.
        source: What the source shows; None without one.
        pictures: Those that the clip passes through, by their files.
        references: Those of subjects.
    """

    positive: Tensor
    negative: Tensor | None
    source: Tensor | None
    pictures: Mapping[Path, Image.Image]
    references: tuple[Image.Image, ...]


class _UniPC(UniPCMultistepScheduler):
    """Starts at its first step. Left to find it by its timestep, it takes the second where two are rounded alike."""

    @override
    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.set_begin_index(0)


class _Euler(FlowMatchEulerDiscreteScheduler):
    """Goes down in equal steps before the shift, as distilled models were taught: 1, 0.75, 0.5, 0.25 of the noise.

    The stock one goes from all of it to the thousandth in one step less, and its last step is hardly any.
    Source: https://github.com/ModelTC/Wan2.2-Lightning (timesteps 1000, 937.5, 833.3, 625 at a shift of 5).
    """

    @override
    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        steps = num_inference_steps or 0
        super().set_timesteps(steps, *args, sigmas=[1 - step / steps for step in range(steps)], **kwargs)
        self.set_begin_index(0)

    @override
    def step(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        # It gives back what it is given; latents keep their numbers, whatever the denoiser computes in.
        return super().step(model_output.float(), *args, **kwargs)


class _Renoising(FlowMatchLCMScheduler):
    """Makes the clip anew at every step, and adds new noise up to the next level: what DMD teaches.

    Source: "VSA: Faster Video Diffusion with Trainable Sparse Attention", https://arxiv.org/abs/2505.13389, and
    https://github.com/hao-ai-lab/FastVideo (timesteps 1000, 757, 522).
    """

    levels: Sequence[float]
    noise: torch.Generator

    @classmethod
    def of(cls, timesteps: Sequence[int], noise: torch.Generator) -> _Renoising:
        """Return one for these thousandths of noise."""
        made = cls(shift=1.0)
        made.levels, made.noise = [step / 1000 for step in timesteps], noise
        return made

    @override
    def set_timesteps(self, num_inference_steps: int | None = None, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(num_inference_steps, *args, sigmas=self.levels, **kwargs)
        self.set_begin_index(0)

    @override
    def step(self, model_output: Tensor, *args: Any, **kwargs: Any) -> Any:
        # Left to itself it would draw from everybody's generator.
        return super().step(model_output.float(), *args, generator=self.noise, **kwargs)


class Pipeline(HostedPipeline[Conditioning, Tensor]):
    """Latents are normalised, float32, ``(1, channels, latent frames, latent height, latent width)``."""

    def __init__(self, host: Host[DiffusionPipeline], card: ModelCard) -> None:
        self._host = host
        self._options = Options.model_validate(card.options)
        self._sketcher = Sketcher(
            self._painted, self._encoded, host.pipe.vae_scale_factor_temporal, host.pipe.vae_scale_factor_spatial
        )
        self._from_picture = self._image_pipeline() if self._options.task == "either" else host.pipe

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> Pipeline:
        task = Options.model_validate(card.options).task
        return cls(Host.load(_KINDS[task], card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        host, pipe = self._host, self._host.pipe
        host.start_measuring()
        words = partial(pipe.encode_prompt, max_sequence_length=self._options.max_sequence_length)
        with host.stage("Encoding the prompt", "text_encoder"):
            positive, negative = words(
                request.prompt, request.negative_prompt, do_classifier_free_guidance=_is_guided(request)
            )
            there = request.source
            source = words(there.prompt, do_classifier_free_guidance=False)[0] if there else None
        with host.stage("Encoding", "vae"):
            # Now, since nobody else is at the decoder, which is not re-entrant.
            self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        pictures = {c.path: fitted(c, width, height) for c in request.conditions}
        return Conditioning(positive, negative, source, pictures, tuple(map(open_image, request.references)))

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        make = self._sample if given.edited is None else self._edit
        stage = self._host.stage(
            f"Denoising {request.shape.size}", "transformer", "transformer_2", *self._eyes(request, given)
        )
        with stage, loras(self._host.pipe, request.loras):
            return finite(make(request, conditioning, given, on_step))

    def _eyes(self, request: GenerationRequest, given: Given) -> tuple[str, ...]:
        """Return the parts that look at pictures while the denoiser is at hand; VACE looks at blank ones too."""
        task = self._options.task
        looks = task != "text" if task != "either" else request.conditions or given.before is not None
        return ("image_encoder", "vae") if looks else ()

    def _sample(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        shape, steps, references = request.shape, request.num_inference_steps, len(conditioning.references)
        earlier: list[tuple[float, Tensor]] = []
        generator = torch.Generator("cpu").manual_seed(request.seed)

        def step_end(pipe: Any, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            level, latents = float(pipe.scheduler.sigmas[step + 1]), tensors["latents"][:, :, references:]
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, latents))
            sketch = partial(self._sketcher.paint, latents, level, last, higher)
            point = Point.of(step + 1, [(pipe.scheduler, tensors["latents"])], generator)
            # Raising stops at once; the pipeline's own interrupt flag would run through the remaining steps.
            on_step(Step(step + 1, steps, sketch, point.freeze))
            return tensors

        pipe, given_pictures = self._pipe_for(request, conditioning, given)
        pipe.scheduler = self._scheduler(request, generator)
        second = {} if pipe.config.get("boundary_ratio") is None else {"guidance_scale_2": request.guidance_scale_2}
        point = Point.thaw(given.state, self._host.plan.device) if given.state else None
        with resumed(pipe, point, generator):
            latents = pipe(
                **given_pictures,
                **second,
                prompt_embeds=conditioning.positive,
                negative_prompt_embeds=conditioning.negative,
                height=shape.height,
                width=shape.width,
                num_frames=shape.frames,
                num_inference_steps=steps,
                guidance_scale=request.guidance_scale,
                generator=generator,
                output_type="latent",
                callback_on_step_end=step_end,
            ).frames
        return latents[:, :, references:]

    def _pipe_for(
        self, request: GenerationRequest, conditioning: Conditioning, given: Given
    ) -> tuple[Any, dict[str, Any]]:
        """Return the pipeline for what is given, and the arguments that say so."""
        known = {condition.frame: conditioning.pictures[condition.path] for condition in request.conditions}
        if given.before is not None:
            known |= {index: Image.fromarray(frame) for index, frame in enumerate(given.before)}
        if self._options.task == "vace":
            return self._host.pipe, _controlled(request, known, conditioning.references)
        if not known:
            return self._host.pipe, {}
        last = known.get(request.shape.frames - 1)
        return self._from_picture, {"image": known[0]} | ({} if last is None else {"last_image": last})

    def _image_pipeline(self) -> WanImageToVideoPipeline:
        """Return the pipeline that starts from a picture, of the same parts."""
        pipe = self._host.pipe
        # Only named parts are parts; how they are used is not, and would be dropped in silence.
        options = {name: pipe.config[name] for name in ("boundary_ratio", "expand_timesteps")}
        return self._host.sibling(WanImageToVideoPipeline, image_encoder=None, image_processor=None, **options)

    def _scheduler(self, request: GenerationRequest, noise: torch.Generator) -> Any:
        config = self._host.pipe.scheduler.config
        if self._options.solver == "renoise":
            return _Renoising.of(self._options.timesteps, noise)
        if self._options.solver == "euler":
            return _Euler(shift=request.flow_shift)
        return _UniPC.from_config(config, flow_shift=request.flow_shift)

    @torch.no_grad()
    def _edit(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        """Make a source anew by the difference of two flows."""
        assert request.source is not None  # noqa: S101 - for the type checker
        assert given.edited is not None  # noqa: S101 - for the type checker
        assert conditioning.source is not None  # noqa: S101 - for the type checker
        pipe: Any = self._host.pipe
        with self._host.stage("Encoding the source", "vae"):
            clip = self._encoded(given.edited)
        generator = torch.Generator("cpu").manual_seed(request.seed)
        scheduler = self._scheduler(request, generator)
        scheduler.set_timesteps(request.num_inference_steps, device=clip.device)
        away = conditioning.negative if request.negative_prompt and _is_guided(request) else conditioning.source
        boundary = (pipe.config.boundary_ratio or 0.0) if pipe.transformer_2 is not None else 0.0

        def predict(edit: Tensor, noisy: Tensor, sigma: float) -> Velocities:
            expert = pipe.transformer if sigma >= boundary else pipe.transformer_2
            said = ((edit, conditioning.positive), (edit, away), (noisy, conditioning.source))
            made: list[Tensor] = []
            # One after the other: a batch of three would need three times the room.
            for name, (state, words) in zip(Velocities._fields, said, strict=True):
                with stream(expert, name):
                    made.append(self._velocity(expert, state, words, sigma))
            return Velocities(*made)

        def step_end(step: int, edit: Tensor, snapshot: Callable[[], Frozen]) -> None:
            on_step(Step(step, request.num_inference_steps, partial(self._sketcher.paint, edit, 0.0), snapshot))

        levels = [request.source.strength * float(level) for level in scheduler.sigmas]
        with self._host.stage(f"Denoising {request.shape.size}", "transformer", "transformer_2"):
            course = Course(levels, request.guidance_scale, given.state)
            return edited(clip, predict, course, Noise(generator), step_end)

    def _velocity(self, expert: Any, state: Tensor, words: Tensor, sigma: float) -> Tensor:
        timestep = torch.full((1,), 1000 * sigma, device=state.device)
        if self._host.pipe.config.expand_timesteps:
            # One for each token.
            patch = expert.config.patch_size
            tokens = state[0, 0, :, :: patch[1], :: patch[2]].numel()
            timestep = timestep.expand(1, tokens)
        made = expert(
            hidden_states=state.to(expert.dtype),
            timestep=timestep,
            encoder_hidden_states=words.to(expert.dtype),
            return_dict=False,
        )[0]
        return made.float()

    def _encoded(self, frames: Frames) -> Tensor:
        """Return normalised latents, float32, of ``(frames, height, width, 3)``."""
        pipe: Any = self._host.pipe
        mean, std = self._statistics(torch.float32)
        return (encoded(pipe.vae, frames, self._host.plan.device) - mean) * std

    def _statistics(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the mean of the VAE's latents and one over their deviation, ``(1, channels, 1, 1, 1)``."""
        config, device = self._host.pipe.vae.config, self._host.plan.device
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1).to(device, dtype)
        return mean, 1.0 / torch.tensor(config.latents_std).view(1, -1, 1, 1, 1).to(device, dtype)

    def _raw(self, latents: Tensor) -> Tensor:
        """Return what the decoder takes of normalised latents."""
        vae: Any = self._host.pipe.vae
        mean, std = self._statistics(vae.dtype)
        return latents.to(self._host.plan.device, vae.dtype) / std + mean

    def _painted(self, latents: Tensor) -> Tensor:
        return self._host.pipe.vae.decode(self._raw(latents), return_dict=False)[0]

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: Tensor) -> Iterator[Frames]:
        vae: Any = self._host.pipe.vae
        with self._host.stage(f"Decoding {request.shape.size}", "vae"):
            if self._host.plan.tiled:
                vae.enable_tiling()
                yield from frames_of(self._painted(latents))
                return
            vae.disable_tiling()
            for chunk in _streamed(vae, self._raw(latents)):
                yield from frames_of(chunk)


def _is_guided(request: GenerationRequest) -> bool:
    return request.guidance_scale > 1


def _controlled(
    request: GenerationRequest, known: Mapping[int, Image.Image], references: tuple[Image.Image, ...]
) -> dict[str, Any]:
    """Return VACE's arguments: a clip that is grey where it is to be made, and a mask that is white there."""
    subjects: dict[str, Any] = {"reference_images": list(references) or None}
    if not known:
        return subjects
    size = request.shape.width, request.shape.height
    grey, make, keep = Image.new("RGB", size, (_GREY,) * 3), Image.new("L", size, 255), Image.new("L", size, 0)
    frames = range(request.shape.frames)
    return subjects | {
        "video": [known.get(index, grey) for index in frames],
        "mask": [keep if index in known else make for index in frames],
    }


def _streamed(vae: Any, raw: Tensor) -> Iterator[Tensor]:
    """Yield what ``vae.decode`` returns, a latent at a time: one frame, then four each. The decoder is causal."""
    vae.clear_cache()
    try:
        latents = vae.post_quant_conv(raw)
        for index in range(raw.shape[2]):
            vae._conv_idx = [0]
            frames = vae.decoder(
                latents[:, :, index : index + 1],
                feat_cache=vae._feat_map,
                feat_idx=vae._conv_idx,
                first_chunk=index == 0,
            )
            if vae.config.patch_size is not None:
                frames = unpatchify(frames, patch_size=vae.config.patch_size)
            yield frames.clamp(-1, 1)
    finally:
        vae.clear_cache()
