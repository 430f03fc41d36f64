"""HunyuanVideo 1.5: text to video and picture to video, also distilled to one prediction a step and to a few steps.

Source: "HunyuanVideo 1.5 Technical Report", https://arxiv.org/abs/2511.18870.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import HunyuanVideo15ImageToVideoPipeline, HunyuanVideo15Pipeline
from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor
from PIL import Image
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor
from typing_extensions import override

from pipelines.accel.flow_edit import Course, Noise, Velocities, edited
from pipelines.accel.host import Host
from pipelines.accel.hosted import DecodedAtOnce
from pipelines.accel.pixels import finite
from pipelines.accel.resume import Point, resumed
from pipelines.accel.sketches import Sketcher
from pipelines.accel.states import Frozen
from pipelines.accel.step_cache import stream
from pipelines.accel.telling import told
from pipelines.card import ModelCard
from pipelines.images import beginning, fitted
from pipelines.plan import MemoryPlan
from pipelines.types import GenerationRequest, Given, OnStep, Step

_KINDS: Mapping[str, Any] = {"text": HunyuanVideo15Pipeline, "image": HunyuanVideo15ImageToVideoPipeline}
# What encode_prompt returns, by the names under which the loop and the transformer take it.
_FOR_THE_LOOP = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")
_FOR_THE_MODEL = (
    "encoder_hidden_states",
    "encoder_attention_mask",
    "encoder_hidden_states_2",
    "encoder_attention_mask_2",
)


class Options(BaseModel):
    """What a HunyuanVideo 1.5 card may say beyond the common fields.

    Attributes:
        task: What the checkpoint was trained for; ``image`` cannot do without one.
        max_sequence_length: Tokens that the prompt is padded or cut to, the instructions before it not counted.
        max_letters: Tokens that the words in quotation marks are padded or cut to.
        picture_tokens: What the image encoder makes of a picture; as many are left empty where there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Literal["text", "image"] = "text"
    max_sequence_length: PositiveInt = 1000
    max_letters: PositiveInt = 256
    picture_tokens: PositiveInt = 729


@dataclass(frozen=True)
class Conditioning:
    """Encoded words: what they mean, and the letters of what is in quotation marks, each with its mask.

    Attributes:
        positive: What to show.
        negative: What to steer away from; None without guidance.
        source: What the source shows; None without one.
        pictures: Those that the clip passes through, by their files.
    """

    positive: tuple[Tensor, ...]
    negative: tuple[Tensor, ...] | None
    source: tuple[Tensor, ...] | None
    pictures: Mapping[Path, Image.Image]


class _AsGiven(HunyuanVideo15ImageProcessor):
    """Leaves the size to us: the stock one takes the nearest of its own, which for upright pictures is another."""

    @override
    def calculate_default_height_width(self, height: int, width: int, target_size: int) -> tuple[int, int]:
        return height, width


class Pipeline(DecodedAtOnce[Conditioning]):
    """Latents are normalised, ``(1, channels, latent frames, latent height, latent width)``."""

    def __init__(self, host: Host[Any], card: ModelCard) -> None:
        self._host = host
        self._options = Options.model_validate(card.options)
        pipe = host.pipe
        pipe.tokenizer_max_length = self._options.max_sequence_length
        pipe.tokenizer_2_max_length = self._options.max_letters
        pipe.vision_num_semantic_tokens = self._options.picture_tokens
        if self._options.task == "image":
            pipe.video_processor = _AsGiven(
                vae_scale_factor=pipe.vae_scale_factor_spatial, do_resize=False, do_convert_rgb=True
            )
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
        host, pipe = self._host, self._host.pipe
        host.start_measuring()
        words = partial(pipe.encode_prompt, device=torch.device(host.plan.device), dtype=pipe.transformer.dtype)
        with host.stage("Encoding the prompt", "text_encoder", "text_encoder_2"):
            positive = words(request.prompt)
            negative = words(request.negative_prompt) if _is_guided(request) else None
            source = words(request.source.prompt) if request.source else None
        with host.stage("Encoding", "vae"):
            self._sketcher.fit()
        width, height = request.shape.width, request.shape.height
        pictures = {c.path: fitted(c, width, height) for c in request.conditions}
        return Conditioning(positive, negative, source, pictures)

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        make = self._sample if given.edited is None else self._edit
        eyes = ("image_encoder", "vae") if self._options.task == "image" else ()
        with self._host.stage(f"Denoising {request.shape.size}", "transformer", *eyes):
            return finite(make(request, conditioning, given, on_step))

    def _sample(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        pipe, shape = self._host.pipe, request.shape
        generator = torch.Generator("cpu").manual_seed(request.seed)
        scheduler = pipe.scheduler = self._scheduler(request)
        # How strongly it is guided is a part of the pipeline here, and has a count that a cancelled clip leaves behind.
        pipe.guider = pipe.guider.new(guidance_scale=request.guidance_scale)
        earlier: list[tuple[float, Tensor]] = []

        def step_end(done: int, latents: Tensor) -> None:
            level = float(scheduler.sigmas[done])
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, latents))
            sketch = partial(self._sketcher.paint, latents, level, last, higher)
            point = Point.of(done, [(scheduler, latents)], generator)
            on_step(Step(done, request.num_inference_steps, sketch, point.freeze))

        first: dict[str, Any] = {"height": shape.height, "width": shape.width}
        if self._options.task == "image":
            first = {"image": beginning(conditioning.pictures, request, given)}
        point = Point.thaw(given.state, self._host.plan.device) if given.state else None
        with resumed(pipe, point, generator), told(scheduler, step_end):
            return pipe(
                **first,
                **dict(zip(_FOR_THE_LOOP, conditioning.positive, strict=True)),
                **_negative(conditioning),
                num_frames=shape.frames,
                num_inference_steps=request.num_inference_steps,
                generator=generator,
                output_type="latent",
            ).frames

    def _scheduler(self, request: GenerationRequest) -> Any:
        scheduler = self._host.pipe.scheduler
        return type(scheduler).from_config(scheduler.config, shift=request.flow_shift)

    @torch.no_grad()
    def _edit(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Tensor:
        """Make a source anew by the difference of two flows."""
        assert request.source is not None  # noqa: S101 - for the type checker
        assert given.edited is not None  # noqa: S101 - for the type checker
        assert conditioning.source is not None  # noqa: S101 - for the type checker
        with self._host.stage("Encoding the source", "vae"):
            clip = self._encoded(given.edited)
        scheduler = self._scheduler(request)
        steps = request.num_inference_steps
        scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], device=clip.device)
        source = conditioning.source
        away = conditioning.negative if request.negative_prompt and conditioning.negative else source

        def predict(edit: Tensor, noisy: Tensor, sigma: float) -> Velocities:
            said = ((edit, conditioning.positive), (edit, away), (noisy, source))
            made: list[Tensor] = []
            for name, (state, words) in zip(Velocities._fields, said, strict=True):
                with stream(self._host.pipe.transformer, name):
                    made.append(self._velocity(state, words, sigma))
            return Velocities(*made)

        def step_end(step: int, edit: Tensor, snapshot: Callable[[], Frozen]) -> None:
            on_step(Step(step, steps, partial(self._sketcher.paint, edit, 0.0), snapshot))

        levels = [request.source.strength * float(level) for level in scheduler.sigmas]
        generator = torch.Generator("cpu").manual_seed(request.seed)
        with self._host.stage(f"Denoising {request.shape.size}", "transformer"):
            course = Course(levels, request.guidance_scale, given.state)
            return edited(clip, predict, course, Noise(generator), step_end)

    def _velocity(self, state: Tensor, words: tuple[Tensor, ...], sigma: float) -> Tensor:
        pipe = self._host.pipe
        model = pipe.transformer
        frames, mask = pipe.prepare_cond_latents_and_mask(state, model.dtype, state.device)
        no_picture = state.new_zeros(1, pipe.vision_num_semantic_tokens, pipe.vision_states_dim, dtype=model.dtype)
        made = model(
            hidden_states=torch.cat([state.to(model.dtype), frames, mask], dim=1),
            timestep=torch.full((1,), 1000 * sigma, device=state.device, dtype=model.dtype),
            image_embeds=no_picture,
            **dict(zip(_FOR_THE_MODEL, words, strict=True)),
            return_dict=False,
        )[0]
        return made.float()


def _is_guided(request: GenerationRequest) -> bool:
    return not math.isclose(request.guidance_scale, 1.0)


def _negative(conditioning: Conditioning) -> dict[str, Tensor]:
    if conditioning.negative is None:
        return {}
    return {f"negative_{name}": value for name, value in zip(_FOR_THE_LOOP, conditioning.negative, strict=True)}
