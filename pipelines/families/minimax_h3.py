"""MiniMax-H3: pictures and stereo sound in one sequence of tokens, from words, pictures at both ends, or subjects.

Source: https://github.com/MiniMax-AI/MiniMax-H3. diffusers has it as blocks alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers import MiniMaxH3Blocks, MiniMaxH3ModularPipeline
from diffusers.modular_pipelines.minimax_h3 import MiniMaxH3ImageReference, MiniMaxH3VideoReference
from diffusers.modular_pipelines.minimax_h3.modular_pipeline import resolve_canvas_size
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize
from typing_extensions import override

from pipelines import footage
from pipelines.accel.host import Host
from pipelines.accel.lora import loras
from pipelines.accel.modular import hosted, run, watch
from pipelines.accel.offload import take_on_cpu
from pipelines.accel.pixels import finite, frames_of, video_of
from pipelines.accel.sketches import Sketcher
from pipelines.accel.sounding import Made, SoundingPipeline, sound_of
from pipelines.accel.states import freeze, thaw
from pipelines.card import ModelCard
from pipelines.images import fitted, open_image
from pipelines.plan import MemoryPlan
from pipelines.types import Audio, Frames, GenerationRequest, Given, OnStep, Step, is_clip

# Frames that a latent stands for within a chunk, whose first stands for one.
_STRIDE = 4
# The blocks read what goes into the last of these.
_LAYERS = 51
# The proportions that it knows end at four to one, and rounding widens them.
_CROP = r"crop=min(iw\,3*ih):min(ih\,3*iw)"
_WORKFLOWS = {"frames": "fl2va", "references": "ref2va"}


class Options(BaseModel):
    """What a MiniMax-H3 card may say beyond the common fields.

    Attributes:
        task: What the denoiser was trained for: words and frames at both ends, or pictures of subjects.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    task: Literal["frames", "references"] = "frames"


class Pictures(Qwen2VLImageProcessorPil):
    """Prepares pictures for the text encoder without torchvision: they are seen alike wherever that is not there.

    Attributes:
        clip_pixels: Least and most of a clip, its frames together, as the publisher of the text encoder has them.
    """

    clip_pixels = (4096, 25_165_824)


class Clips:
    """Prepares clips for the text encoder as pictures are: its own class cannot do without torchvision."""

    temporal_patch_size = 2

    def __init__(self, pictures: Any) -> None:
        self._pictures = pictures

    def __call__(self, videos: list[NDArray[np.uint8]], **_how: Any) -> dict[str, Tensor]:
        """Return the patches of clips ``(frames, height, width, 3)``, and how many each has in time and space."""
        made = [self._patches(video) for video in videos]
        return {
            "pixel_values_videos": torch.cat([patches for patches, _ in made]),
            "video_grid_thw": torch.tensor([grid for _, grid in made]),
        }

    def _patches(self, video: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int, int]]:
        pictures, deep = self._pictures, self.temporal_patch_size
        side, merged = pictures.patch_size, pictures.merge_size
        least, most = getattr(pictures, "clip_pixels", Pictures.clip_pixels)
        count, high, wide = video.shape[:3]
        height, width = smart_resize(count, high, wide, deep, side * merged, least, most)
        pictured = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in video)
        shown = list(map(np.asarray, pictured))
        frames = torch.from_numpy(np.stack([*shown, *shown[-1:] * (-count % deep)])).float().permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (pictures.image_mean, pictures.image_std))
        grid = len(frames) // deep, height // side, width // side
        split = (grid[0], deep, 3, grid[1] // merged, merged, side, grid[2] // merged, merged, side)
        # Neighbours that become one token follow each other.
        patches = ((frames - mean) / std).view(split).permute(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return patches.reshape(grid[0] * grid[1] * grid[2], -1), grid


class Processor:
    """What the text encoder's blocks ask of a processor, whose own class cannot do without a reader of videos."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = image_processor
        self.video_processor = Clips(image_processor)
        names = ("<|image_pad|>", "<|video_pad|>")
        self._kinds = {tokenizer.convert_tokens_to_ids(name): kind for kind, name in enumerate(names, start=1)}

    def create_mm_token_type_ids(self, input_ids: list[list[int]]) -> list[list[int]]:
        """Return 1 for what stands for a picture's patch, 2 for a clip's, 0 for words."""
        return [[self._kinds.get(token, 0) for token in tokens] for tokens in input_ids]


def read_processor(folder: Path, _dtype: Any = None) -> Any:
    """Read what prepares pictures and clips for the text encoder."""
    made = Pictures.from_pretrained(folder, local_files_only=True)
    for name in ("video_preprocessor_config.json", "processor_config.json"):
        if (folder / name).exists():
            said = json.loads((folder / name).read_text(encoding="utf-8"))
            size = said.get("video_processor", said).get("size", {})
            if {"shortest_edge", "longest_edge"} <= size.keys():
                made.clip_pixels = (size["shortest_edge"], size["longest_edge"])
                break
    return made


def read_text_encoder(folder: Path, dtype: Any) -> Any:
    """Read a text encoder without the layers behind the one that the denoiser hears, which are a fifth of it."""
    config: Any = Qwen3VLConfig.from_pretrained(folder, local_files_only=True)
    config.text_config.num_hidden_layers = _LAYERS
    return _Heard.from_pretrained(folder, config=config, dtype=dtype, local_files_only=True, use_safetensors=True)


class _Heard(Qwen3VLForConditionalGeneration):
    """One whose file holds more layers than it has."""

    _keys_to_ignore_on_load_unexpected = [r"layers\.\d+\."]  # noqa: RUF012 - as in the class above


_READERS = {"processor": read_processor, "text_encoder": read_text_encoder}


@dataclass(frozen=True)
class Conditioning:
    """What the blocks made of words and pictures, by name, and pictures at the clip's size by their files."""

    told: Mapping[str, Any]
    pictures: Mapping[Path, Image.Image]


class Pipeline(SoundingPipeline[Conditioning]):
    """Latents of pictures are normalised; those of sound are ``(2, channels, latent length)``, an ear each."""

    def __init__(self, host: Host[Any], card: ModelCard) -> None:
        self._host = host
        self._task = Options.model_validate(card.options).task
        pipe = host.pipe
        pipe.update_components(processor=Processor(pipe.processor, pipe.tokenizer))
        self._sketcher = Sketcher(self._painted, self._encoded, _STRIDE, pipe.vae_spatial_compression_ratio)
        self._keep_tiles()
        if host.plan.text_encoder_on_cpu:
            # The blocks call what is inside, past the hooks of the whole, and fetch one layer's words of fifty's.
            take_on_cpu(pipe.text_encoder.model)

    @classmethod
    @override
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> Pipeline:
        workflow = _WORKFLOWS[Options.model_validate(card.options).task]
        kind = hosted(MiniMaxH3ModularPipeline, workflow, _READERS)
        return cls(Host.load(kind, card, weights, plan), card)

    @override
    def adopt(self, plan: MemoryPlan) -> None:
        super().adopt(plan)
        self._keep_tiles()

    def _keep_tiles(self) -> None:
        """Have pictures decoded tile by tile whatever the plan says: the decoder was trained on tiles alone."""
        self._host.pipe.vae.enable_tiling()

    @override
    def encode(self, request: GenerationRequest) -> Conditioning:
        host, shape = self._host, request.shape
        host.start_measuring()
        with host.stage("Encoding", "vae"):
            self._sketcher.fit()
        pictures = {c.path: fitted(c, shape.width, shape.height) for c in request.conditions}
        # The pictures of later windows are not for the first one; an extension's waits for what it goes on from.
        told = {} if request.kept_frames else self._told(request, _ends(request, pictures, None))
        return Conditioning(told, pictures)

    def _told(self, request: GenerationRequest, ends: Mapping[str, Image.Image]) -> dict[str, Any]:
        """Return what the blocks make of words and pictures. The text encoder sees the pictures too."""
        shape, blocks = request.shape, MiniMaxH3Blocks().sub_blocks
        told: dict[str, Any] = {"prompt": request.prompt, "height": shape.height, "width": shape.width, **ends}
        told["num_frames"] = request.pieces[0].frames
        if self._task == "references":
            told["references"] = [self._reference(path, told["num_frames"]) for path in request.references]
        with self._host.stage("Encoding the prompt", "text_encoder"):
            told = run(self._host.pipe, told, blocks["before_encode"], blocks["text_encoder"])
        ears = ("audio_vae",) if any(one.has_audio for one in told.get("references", ())) else ()
        with self._host.stage("Encoding", "vae", *ears):
            return run(self._host.pipe, told, blocks["vae_encoder"])

    def _reference(self, path: Path, frames: int) -> MiniMaxH3ImageReference | MiniMaxH3VideoReference:
        """Return what a file shows of a subject: of a clip, at most so many frames, and what is heard meanwhile."""
        if not is_clip(path):
            return MiniMaxH3ImageReference(open_image(path))
        pipe = self._host.pipe
        (first,) = footage.frames(path, f"trim=end_frame=1,{_CROP}")
        high, wide = first.shape[:2]
        rule = (pipe.canvas_multiple, pipe.config.canvas_short_edge, pipe.config.canvas_max_pixels)
        height, width = resolve_canvas_size(wide, high, *rule)
        scale = f"scale={width}:{height}:flags=lanczos+accurate_rnd+full_chroma_int"
        found = list(
            footage.frames(path, f"setpts=PTS-STARTPTS,fps={pipe.fps},trim=end_frame={frames},{_CROP},{scale}")
        )
        # It is read twice a second, two moments at a time: the last one stays if there is no other.
        shown = np.stack(found + found[-1:] * (pipe.fps // 2 + 1 - len(found)))
        rate, seconds = pipe.audio_sampling_rate, len(shown) / pipe.fps
        sound = footage.sound(path, rate, seconds)
        if sound is None:
            return MiniMaxH3VideoReference(shown, float(pipe.fps))
        heard = np.zeros((2, round(seconds * rate)), np.float32)
        heard[:, : sound.shape[1]] = sound[:, : heard.shape[1]]
        return MiniMaxH3VideoReference(shown, float(pipe.fps), torch.from_numpy(heard), rate)

    @override
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Made:
        told = conditioning.told
        if given.before is not None:
            told = self._told(request, _ends(request, conditioning.pictures, given.before))
        stage = self._host.stage(f"Denoising {request.shape.size}", "transformer", "transformer_ref")
        with stage, loras(self._host.pipe, request.loras):
            made = self._sample(request, told, given, on_step)
        return Made(finite(made.video), finite(made.audio))

    def _sample(self, request: GenerationRequest, told: Mapping[str, Any], given: Given, on_step: OnStep) -> Made:
        pipe, steps = self._host.pipe, request.num_inference_steps
        core = MiniMaxH3Blocks().sub_blocks["denoise"].sub_blocks[_workflow(told)].sub_blocks
        earlier: list[tuple[float, Tensor]] = []

        def step_end(number: int, state: Any) -> None:
            level = float(pipe.scheduler.sigmas[number])
            latents = self._unpacked(request, state.latents[state.num_condition_video_rows :])
            higher, last = earlier.pop() if earlier else (1.0, None)
            earlier.append((level, latents))
            # The loop writes into both of them.
            kept = {"step": number, "latents": state.latents, "audio_latents": state.audio_latents}
            on_step(Step(number, steps, partial(self._sketch, latents, level, last, higher), partial(freeze, kept)))

        watch(core["denoise"], step_end, thaw(given.state, self._host.plan.device) if given.state else None)
        told = {
            **told,
            "generator": torch.Generator("cpu").manual_seed(request.seed),
            # It counts levels of noise, of which the last, 0, is no step.
            "num_inference_steps": steps + 1,
        }
        made = run(pipe, told, *core.values())
        return Made(made["latents"], made["audio_latents"])

    def _unpacked(self, request: GenerationRequest, rows: Tensor) -> Tensor:
        """Return a copy of rows, a token each, as latents ``(1, channels, f, h, w)``."""
        pipe, shape = self._host.pipe, request.shape
        deep, high, wide = pipe.patch_size
        side = pipe.vae_spatial_compression_ratio
        grid = (-1, shape.height // side // high, shape.width // side // wide, pipe.vae_latent_channels)
        patches = rows.clone().view(*grid, deep, high, wide).permute(3, 0, 4, 1, 5, 2, 6)
        return patches.flatten(5, 6).flatten(3, 4).flatten(1, 2)[None]

    def _sketch(self, latents: Tensor, level: float, earlier: Tensor | None, earlier_level: float) -> Frames | None:
        """Return small frames, chunk by chunk: the first latent of each stands for one frame."""
        chunk = self._host.pipe.vae_latents_per_chunk
        before = [None] * len(latents.split(chunk, 2)) if earlier is None else earlier.split(chunk, 2)
        shown = [
            self._sketcher.paint(part, level, last, earlier_level)
            for part, last in zip(latents.split(chunk, 2), before, strict=True)
        ]
        painted = [frames for frames in shown if frames is not None]
        return np.concatenate(painted) if painted else None

    def _encoded(self, frames: Frames) -> Tensor:
        """Return normalised latents of at most a chunk of frames ``(frames, height, width, 3)``, float32."""
        vae = self._host.pipe.vae
        # The last latents of all are dropped: let them be of another chunk.
        ends = np.repeat(frames[-1:], vae.config.clip_length + 1 - len(frames), 0)
        video = video_of(np.concatenate([frames, ends]), self._host.plan.device, torch.float32)
        mean, std = self._of_pixels(video)
        raw = vae.encode(((video + 1) / 2 - mean) / std, return_dict=False)[0].mode().float()
        mean, std = self._of_latents(raw)
        return ((raw - mean) / std)[:, :, : (len(frames) - 1) // _STRIDE + 1]

    def _decoded(self, latents: Tensor) -> Tensor:
        """Return the decoder's own colours of normalised latents."""
        mean, std = self._of_latents(latents)
        return self._host.pipe.vae.decode(latents * std + mean, return_dict=False)[0]

    def _coloured(self, video: Tensor) -> Tensor:
        """Return a video in [-1, 1], a little more where the decoder overshoots."""
        mean, std = self._of_pixels(video)
        return (video.float() * std + mean) * 2 - 1

    def _of_latents(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the VAE's latents, ``(1, channels, 1, 1, 1)``."""
        config = self._host.pipe.vae.config
        return _channels(config.latents_mean, like), _channels(config.latents_std, like)

    def _of_pixels(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the colours, in [0, 1], that the VAE knows, ``(1, 3, 1, 1, 1)``."""
        pipe = self._host.pipe
        return _channels(pipe.pixel_mean, like), _channels(pipe.pixel_std, like)

    def _painted(self, latents: Tensor) -> Tensor:
        """Return frames ``(1, 3, frames, height, width)`` in about [-1, 1] of at most a chunk of latents."""
        return self._coloured(self._decoded(latents.to(self._host.plan.device)))

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: Made) -> Iterator[Frames]:
        with self._host.stage(f"Decoding {request.shape.size}", "vae"):
            video = self._decoded(latents.video.to(self._host.plan.device))
        for frame in video.split(1, 2):
            yield from frames_of(self._coloured(frame))

    @override
    def audio(self, request: GenerationRequest, latents: Made) -> Audio:
        block = MiniMaxH3Blocks().sub_blocks["decode"].sub_blocks["audio"]
        with self._host.stage("Decoding the sound", "audio_vae"):
            made = run(self._host.pipe, {"audio_latents": latents.audio.to(self._host.plan.device)}, block)
        return sound_of(made["audio"][0], made["sampling_rate"], request.shape.seconds)


def _channels(values: Any, like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(1, -1, 1, 1, 1)


def _workflow(told: Mapping[str, Any]) -> str:
    if "references" in told:
        return "ref2va"
    return "fl2va" if told.keys() & {"image", "last_image"} else "t2va"


def _ends(
    request: GenerationRequest, pictures: Mapping[Path, Image.Image], before: Frames | None
) -> dict[str, Image.Image]:
    """Return the pictures that a window begins and ends with, as the blocks call them."""
    frames = request.pieces[0].frames
    found = {c.frame: pictures[c.path] for c in request.conditions if c.frame < frames}
    if before is not None:
        found[0] = Image.fromarray(before[0])
    return {"image" if frame == 0 else "last_image": found[frame] for frame in sorted(found)}
