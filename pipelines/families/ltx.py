"""LTX-Video in the layout of ``LTXConditionPipeline``: text, and pictures at any frame.

Source: "LTX-Video: Realtime Video Latent Diffusion", https://arxiv.org/abs/2501.00103.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition, linear_quadratic_schedule
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt
from typing_extensions import override

from pipelines.accel.flow_edit import Course, Noise, Velocities, edited
from pipelines.accel.host import Host
from pipelines.accel.hosted import HostedPipeline
from pipelines.accel.lora import loras
from pipelines.accel.pixels import encoded, finite, frames_of
from pipelines.accel.refining import Pass, Refinement, begun, doubled, load_host
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.accel.states import Frozen, freeze, thaw
from pipelines.accel.step_cache import stream
from pipelines.card import ModelCard
from pipelines.images import fitted
from pipelines.plan import MemoryPlan, Offload
from pipelines.types import Frames, GenerationRequest, Given, ImageCondition, OnStep, Step, VideoShape
from pipelines.weights import UPSAMPLER


class Options(BaseModel):
    """What an LTX card may say beyond the common fields.

    Attributes:
        max_sequence_length: Tokens that the prompt is padded or cut to.
        image_cond_noise_scale: Noise on given frames; what the checkpoint was trained with.
        schedule: ``linear`` noise levels, or the pipeline's own ``linear_quadratic`` list.
        timesteps: The ones that the checkpoint was distilled to, in place of a schedule.
        guidance_rescale: How far guided predictions are brought back to the spread of the others.
        refinement: The second stage of sizes that are made in two.
        decode_timestep: What a decoder that takes noise away is told of it.
        decode_noise_scale: How much noise it is given; as much as it is told if nothing else is said.
        reference_frame: Frame, far past a clip's end, as which the checkpoint was trained to see pictures of subjects.
        paired_edits: Whether edits take every noise with its sign turned too: for models whose paths the noise turns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    max_sequence_length: PositiveInt = 256
    image_cond_noise_scale: NonNegativeFloat = 0.15
    schedule: Literal["linear", "linear_quadratic"] = "linear_quadratic"
    timesteps: tuple[PositiveFloat, ...] | None = None
    guidance_rescale: NonNegativeFloat = 0.0
    refinement: Refinement = Refinement()
    decode_timestep: NonNegativeFloat = 0.0
    decode_noise_scale: NonNegativeFloat | None = None
    reference_frame: PositiveInt | None = None
    paired_edits: bool = False


@dataclass(frozen=True)
class Conditioning:
    """Encoded words, each ``(1, tokens, channels)`` with masks ``(1, tokens)``, and pictures at the clip's size.

    Attributes:
        words: The arguments that the pipeline takes instead of prompts.
        source_words: Embeddings and mask of what the source shows, if there is one.
        pictures: Those that the clip passes through.
        references: Those of subjects.
    """

    words: Mapping[str, torch.Tensor | None]
    source_words: tuple[torch.Tensor, torch.Tensor] | None
    pictures: Mapping[Path, Image.Image]
    references: tuple[LTXVideoCondition, ...]


class _Loop(NamedTuple):
    """Who is told of the steps, and where the noise comes from."""

    on_step: OnStep
    generator: torch.Generator


class Made(NamedTuple):
    """A clip that is to be decoded.

    Attributes:
        latents: Normalised, float32, ``(1, channels, latent frames, latent height, latent width)``.
        noise: Of the same shape, for decoders that take noise away; None for the others.
    """

    latents: torch.Tensor
    noise: torch.Tensor | None


class Pipeline(HostedPipeline[Conditioning, Made]):
    """Text, pictures at any frame, clips to go on from, edits, and subjects for checkpoints that know them."""

    def __init__(self, host: Host[LTXConditionPipeline], card: ModelCard) -> None:
        self._host = host
        self._options = Options.model_validate(card.options)
        self._options.refinement.check(card)
        self._sketcher = Sketcher(
            self._painted,
            self._encoded,
            host.pipe.vae_temporal_compression_ratio,
            host.pipe.vae_spatial_compression_ratio,
        )

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> Pipeline:
        # They warn of a shift that these schedulers do not make.
        for module in (LTXConditionPipeline.__module__, FlowMatchEulerDiscreteScheduler.__module__):
            logging.getLogger(module).setLevel(logging.ERROR)
        return cls(load_host(LTXConditionPipeline, LTXLatentUpsamplerModel, card, weights, plan), card)

    @override
    @torch.no_grad()
    def encode(self, request: GenerationRequest) -> Conditioning:
        self._host.start_measuring()
        with self._host.stage("Encoding the prompt", "text_encoder"):
            words, source_words = self._encode_words(request)
        if self._host.plan.offload is not Offload.NONE:
            # Later the VAE is away. Where it is not, the map is fitted for whoever looks first, and for nobody else.
            with self._host.stage("Encoding", "vae"):
                self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        pictures = {c.path: fitted(c, width, height) for c in request.conditions}
        # Subjects are small and somewhere: padding keeps all of the picture, cropping would not.
        stills = [fitted(ImageCondition(path, fit="contain"), width, height) for path in request.references]
        references = tuple(LTXVideoCondition(image=s, frame_index=self._options.reference_frame or 0) for s in stills)
        return Conditioning(words, source_words, pictures, references)

    def _encode_words(
        self, request: GenerationRequest
    ) -> tuple[Mapping[str, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor] | None]:
        """Return the arguments that replace prompts, and embeddings and mask of the source's words if it has one."""
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
        if request.source is None:
            return words, None
        embeds, mask, _, _ = self._pipe.encode_prompt(
            request.source.prompt,
            do_classifier_free_guidance=False,
            max_sequence_length=self._options.max_sequence_length,
        )
        assert embeds is not None  # noqa: S101 - for the type checker
        assert mask is not None  # noqa: S101 - for the type checker
        return words, (embeds, mask)

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Made:
        make = self._sample if given.edited is None else self._edit
        generator = torch.Generator("cpu").manual_seed(request.seed)
        looks = request.conditions or request.references or given.before is not None or given.edited is not None
        parts = ["transformer", *(["vae"] if looks else []), *([UPSAMPLER] if request.refine_steps else [])]
        stage = self._host.stage(f"Denoising {request.shape.size}", *parts)
        with stage, loras(self._host.pipe, request.loras):
            latents = finite(make(request, conditioning, given, _Loop(on_step, generator)))
        if not self._pipe.vae.config.timestep_conditioning:
            return Made(latents, None)
        dtype = self._pipe.transformer.dtype
        return Made(latents, randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=dtype))

    def _sample(
        self, request: GenerationRequest, conditioning: Conditioning, given: Given, loop: _Loop
    ) -> torch.Tensor:
        first, second = begun(request, given.state, self._host.plan.device)
        if second is None:
            told = {"timesteps": [1000 * level for level in self._sigmas(request.num_inference_steps)[:-1]]}
            latents = self._run(request, conditioning, given, loop, Pass.first(request, first, told))
            if not request.refine_steps:
                return latents
            latents = doubled(self._host.sibling(LTXLatentUpsamplePipeline), latents, self._options.refinement)
        else:
            # What the first stage left is in the point already.
            latents = torch.zeros(1, self._pipe.transformer.config.in_channels, *self._grid(request.shape))
        # Each stage draws as if it were a clip of its own.
        loop.generator.manual_seed(request.seed)
        return self._run(request, conditioning, given, loop, self._refining(request, latents, second))

    def _refining(self, request: GenerationRequest, latents: torch.Tensor, point: Point | None) -> Pass:
        """Return the second stage: the end of a schedule, of which the pipeline is told how much."""
        levels = self._options.refinement.levels
        whole = self._sigmas(self._options.refinement.of_steps)[:-1] if levels is None else [1.0, *levels]
        # Half a step more, lest rounding make it one less.
        strength = (request.refine_steps + 0.5) / len(whole)
        timesteps = [1000 * level for level in whole]
        told = {"timesteps": timesteps, "denoise_strength": strength, "latents": latents}
        return Pass.second(request, point, told)

    def _run(
        self, request: GenerationRequest, conditioning: Conditioning, given: Given, loop: _Loop, run: Pass
    ) -> torch.Tensor:
        levels = [timestep / 1000 for timestep in run.arguments["timesteps"][-run.steps :]] + [0.0]
        earlier: list[torch.Tensor] = []

        def step_end(_pipe: object, step: int, _timestep: object, tensors: dict[str, Any]) -> dict[str, Any]:
            if run.point is not None and step + 1 == run.point.step:
                # Of pictures' own tokens, the loop keeps those of the step that it has run once more.
                tensors = {"latents": run.point.latents[0]}
            latents: torch.Tensor = tensors["latents"]
            last = earlier.pop() if earlier else None
            sketch = partial(self._sketch, run.shape, latents, levels[step + 1], last, levels[step])
            earlier.append(latents)
            done = run.before + step + 1
            point = Point.of(done, [(self._pipe.scheduler, latents)], loop.generator)
            # Raising stops at once; the pipeline's own interrupt flag would run through the remaining steps.
            loop.on_step(Step(done, request.steps, sketch, point.freeze))
            return tensors

        with resumed(self._pipe, run.point, loop.generator):
            return self._pipe(
                **conditioning.words,
                conditions=self._conditions(request, conditioning, given) or None,
                **run.arguments,
                height=run.shape.height,
                width=run.shape.width,
                num_frames=run.shape.frames,
                frame_rate=run.shape.fps,
                guidance_scale=request.guidance_scale,
                guidance_rescale=self._options.guidance_rescale,
                image_cond_noise_scale=self._options.image_cond_noise_scale,
                generator=loop.generator,
                output_type="latent",
                callback_on_step_end=step_end,
            ).frames

    @torch.no_grad()
    def _edit(self, request: GenerationRequest, conditioning: Conditioning, given: Given, loop: _Loop) -> torch.Tensor:
        """Make a source anew. Frames that are there already are given to both flows, clean, as in sampling."""
        assert request.source is not None  # noqa: S101 - for the type checker
        assert given.edited is not None  # noqa: S101 - for the type checker
        pipe, steps = self._pipe, request.num_inference_steps
        clip = self._encoded(given.edited)
        _, _, *grid = clip.shape
        packed = pipe._pack_latents(clip)
        there = None if given.before is None else pipe._pack_latents(self._encoded(given.before))
        clean = 0 if there is None else there.shape[1]
        coordinates = pipe._scale_video_ids(
            pipe._prepare_video_ids(1, *grid, device=clip.device),
            scale_factor=pipe.vae_spatial_compression_ratio,
            scale_factor_t=pipe.vae_temporal_compression_ratio,
            device=clip.device,
        ).float()
        coordinates[:, 0] /= request.shape.fps
        embeds, masks = self._edit_words(request, conditioning)

        def predict(edit: torch.Tensor, noisy: torch.Tensor, sigma: float) -> Velocities:
            if there is not None:
                edit = torch.cat([there, edit[:, clean:]], dim=1)
                noisy = torch.cat([packed[:, :clean], noisy[:, clean:]], dim=1)
            timestep = torch.full((3, edit.shape[1]), 1000 * sigma, device=edit.device)
            timestep[:, :clean] = 0
            with stream(pipe.transformer, "edit"):
                made = pipe.transformer(
                    hidden_states=torch.cat([edit, edit, noisy]).to(embeds.dtype),
                    encoder_hidden_states=embeds,
                    timestep=timestep,
                    encoder_attention_mask=masks,
                    video_coords=coordinates.expand(3, -1, -1),
                    return_dict=False,
                )[0]
            return Velocities(*made.float().chunk(3))

        def step_end(step: int, edit: torch.Tensor, snapshot: Callable[[], Frozen]) -> None:
            loop.on_step(Step(step, steps, partial(self._sketch, request.shape, edit, 0.0), snapshot))

        levels = [request.source.strength * level for level in self._sigmas(steps)]
        noise = Noise(loop.generator, paired=self._options.paired_edits)
        edit = edited(packed, predict, Course(levels, request.guidance_scale, given.state), noise, step_end)
        if there is not None:
            edit = torch.cat([there, edit[:, clean:]], dim=1)
        return pipe._unpack_latents(edit, *grid)

    def _edit_words(self, request: GenerationRequest, conditioning: Conditioning) -> tuple[torch.Tensor, torch.Tensor]:
        """Return words and masks ``(3, tokens, ...)``: the new ones, those to go away from, the source's own."""
        assert conditioning.source_words is not None  # noqa: S101 - for the type checker
        words, away = conditioning.words, conditioning.source_words
        if request.negative_prompt and request.guidance_scale > 1:
            away = words["negative_prompt_embeds"], words["negative_prompt_attention_mask"]
        new = words["prompt_embeds"], words["prompt_attention_mask"]
        embeds, masks = zip(new, away, conditioning.source_words, strict=True)
        return torch.cat(embeds), torch.cat(masks)

    def _encoded(self, frames: Frames) -> torch.Tensor:
        """Return normalised latents ``(1, channels, f, h, w)``, float32, of ``(frames, height, width, 3)``."""
        vae = self._pipe.vae
        raw = encoded(vae, frames, self._host.plan.device)
        return self._pipe._normalize_latents(raw, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)

    def _sketch(
        self,
        shape: VideoShape,
        latents: torch.Tensor,
        level: float,
        earlier: torch.Tensor | None = None,
        earlier_level: float = 1.0,
    ) -> Frames | None:
        """Paint packed latents at a noise level, cleaned along the line that they came on since an earlier one."""
        grid = self._grid(shape)

        def clip(packed: torch.Tensor) -> torch.Tensor:
            # Tokens of references come first.
            return self._pipe._unpack_latents(packed[:, -math.prod(grid) :], *grid)

        return self._sketcher.paint(clip(latents), level, None if earlier is None else clip(earlier), earlier_level)

    def _grid(self, shape: VideoShape) -> tuple[int, int, int]:
        """Return frames, height and width of a shape's latents."""
        side = self._pipe.vae_spatial_compression_ratio
        count = (shape.frames - 1) // self._pipe.vae_temporal_compression_ratio + 1
        return count, shape.height // side, shape.width // side

    def _painted(self, latents: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Return frames ``(1, 3, frames, height, width)`` in about [-1, 1] of normalised latents."""
        vae, options = self._pipe.vae, self._options
        raw = self._pipe._denormalize_latents(latents, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
        raw = raw.to(self._host.plan.device, vae.dtype)
        if not vae.config.timestep_conditioning:
            return vae.decode(raw, return_dict=False)[0]
        told = torch.tensor([options.decode_timestep], device=raw.device, dtype=raw.dtype)
        if noise is not None:
            share = options.decode_timestep if options.decode_noise_scale is None else options.decode_noise_scale
            scale = torch.tensor([share], device=raw.device, dtype=raw.dtype)[:, None, None, None, None]
            raw = (1 - scale) * raw + scale * noise.to(raw.device, raw.dtype)
        return vae.decode(raw, told, return_dict=False)[0]

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

    def _sigmas(self, steps: int) -> list[float]:
        """Return the noise levels before the first step and after each, from 1 to 0."""
        if self._options.timesteps is not None:
            return [timestep / 1000 for timestep in self._options.timesteps] + [0.0]
        if self._options.schedule == "linear":
            return [1 - step / steps for step in range(steps)] + [0.0]
        return [*linear_quadratic_schedule(steps).tolist(), 0.0]

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: Made) -> Iterator[Frames]:
        vae = self._pipe.vae
        if self._host.plan.tiled:
            vae.enable_tiling()
        else:
            vae.disable_tiling()
        # Tiles in time too, which tiling alone does not turn on.
        vae.use_framewise_decoding = self._host.plan.tiled
        with self._host.stage(f"Decoding {request.shape.size}", "vae"):
            video = self._painted(*latents)
        yield from frames_of(video)

    @override
    def freeze(self, latents: Made) -> Frozen:
        return freeze(list(latents))

    @override
    def thaw(self, content: bytes) -> Made:
        return Made(*thaw(content, self._host.plan.device))

    @property
    def _pipe(self) -> LTXConditionPipeline:
        return self._host.pipe
