"""LTX-Video as it is published: 8x32 compression, a decoder that takes noise away, and the distilled schedules."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from transformers import T5Config, T5EncoderModel

from pipelines.accel.pixels import video_of
from pipelines.types import Frames, GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny
from tests.pipelines.families.resuming import ResumeContract

SIZES = ((64, 32), (64, 96))
FRAMES = (17, 25)
TOKENS = 32


def vae() -> AutoencoderKLLTXVideo:
    return AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4, layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, timestep_conditioning=True, patch_size=4,
        patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip


def transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=2, caption_channels=32,
    )  # fmt: skip


def text_encoder(words: int) -> T5EncoderModel:
    config = T5Config(vocab_size=words, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return T5EncoderModel(config).eval()


class LtxCheckpoint(CheckpointContract):
    @classmethod
    def build(cls, folder: Path) -> None:
        words = vocabularies.t5()
        scheduler = FlowMatchEulerDiscreteScheduler()
        LTXConditionPipeline(scheduler, vae(), text_encoder(len(words)), words, transformer()).save_pretrained(folder)

    @classmethod
    def arguments(cls, request: GenerationRequest) -> dict[str, Any]:
        options: Any = cls.card.options
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "height": request.shape.height,
            "width": request.shape.width,
            "num_frames": request.shape.frames,
            "frame_rate": request.shape.fps,
            "num_inference_steps": request.num_inference_steps,
            "timesteps": options.get("timesteps"),
            "guidance_scale": request.guidance_scale,
            "guidance_rescale": options.get("guidance_rescale", 0.0),
            "image_cond_noise_scale": options.get("image_cond_noise_scale", 0.15),
            "decode_timestep": options["decode_timestep"],
            "decode_noise_scale": options["decode_noise_scale"],
            "generator": torch.Generator().manual_seed(request.seed),
            "max_sequence_length": TOKENS,
        }

    @classmethod
    def loaded(cls, folder: Path) -> Any:
        pipe = LTXConditionPipeline.from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @classmethod
    def called(cls, folder: Path, request: GenerationRequest, conditions: list[LTXVideoCondition], kind: str) -> Any:
        """Return latents or frames, whichever ``kind`` of output is wanted, as diffusers is called by hand."""
        return cls.loaded(folder)(**cls.arguments(request), conditions=conditions or None, output_type=kind).frames

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> Any:
        conditions = [LTXVideoCondition(image=picture, frame_index=frame) for frame, picture in pictures.items()]
        return [cls.called(folder, request, conditions, "latent"), None]

    @classmethod
    def seen_again(cls, pipe: Any, frames: Frames) -> torch.Tensor:
        latents = pipe.vae.encode(video_of(frames, "cpu", torch.float32)).latent_dist.mode()
        options: Any = cls.card.options
        return pipe.vae.decode(latents, torch.tensor([options["decode_timestep"]])).sample

    def test_the_noise_that_the_decoder_takes_away_is_that_of_one_plain_call(
        self, checkpoint: Path, pipeline: Any, album: Path
    ) -> None:
        request = self.wish(album)
        frames = self.called(checkpoint, request, [], "pt")[0]
        expected = (frames.movedim(1, -1) * 2 - 1).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
        made = self.made(pipeline, request)
        assert abs(made.astype(int) - expected.astype(int)).max() <= 1


class TestFull(LtxCheckpoint, FamilyContract):
    card = tiny("ltx-video-0.9.7-dev", SIZES, FRAMES, max_sequence_length=TOKENS)


class TestDistilled(LtxCheckpoint, ResumeContract):
    """Its weights are others, and its levels of noise."""

    card = tiny("ltx-video-0.9.8-distilled", SIZES, FRAMES, max_sequence_length=TOKENS)
    steps = 8
