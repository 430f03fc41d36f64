import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from PIL import Image
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3TextConfig, SiglipVisionConfig

from pipelines import snapshot
from pipelines.errors import WeightsMissing
from pipelines.registry import family_of, load_registry
from pipelines.types import GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.checkpoints import CPU, CheckpointContract
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import equal, fit, tiny
from tests.pipelines.families.resuming import ResumeContract

SIZES = ((96, 64), (64, 96))
FRAMES = (17, 25)
TOKENS = 32


def vae() -> AutoencoderKLLTX2Video:
    return AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8,) * 4, decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 4, encoder_causal=True, decoder_causal=False,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip


def audio_vae() -> AutoencoderKLLTX2Audio:
    return AutoencoderKLLTX2Audio(
        base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, attn_resolutions=None, in_channels=2,
        resolution=32, latent_channels=2, norm_type="pixel", causality_axis="height", dropout=0.0,
        mid_block_add_attention=False, sample_rate=16000, mel_hop_length=160, is_causal=True, mel_bins=8,
    )  # fmt: skip


def transformer() -> LTX2VideoTransformer3DModel:
    return LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        audio_in_channels=4, audio_out_channels=4, audio_num_attention_heads=2, audio_attention_head_dim=4,
        audio_cross_attention_dim=8, num_layers=2, caption_channels=32, rope_double_precision=False, rope_type="split",
    )  # fmt: skip


def connectors() -> LTX2TextConnectors:
    return LTX2TextConnectors(
        caption_channels=32, text_proj_in_factor=3, video_connector_num_attention_heads=4,
        video_connector_attention_head_dim=8, video_connector_num_layers=1,
        video_connector_num_learnable_registers=None, audio_connector_num_attention_heads=4,
        audio_connector_attention_head_dim=8, audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=None, connector_rope_base_seq_len=32, rope_double_precision=False,
        rope_type="split",
    )  # fmt: skip


def vocoder() -> LTX2Vocoder:
    return LTX2Vocoder(
        in_channels=16, hidden_channels=32, out_channels=2, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]], output_sampling_rate=16000,
    )  # fmt: skip


def text_encoder(words: int) -> Gemma3ForConditionalGeneration:
    text = Gemma3TextConfig(
        vocab_size=words + 8, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=16, max_position_embeddings=1024, pad_token_id=0,
        eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    eyes = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = Gemma3Config(
        text_config=text, vision_config=eyes, mm_tokens_per_image=4, image_token_index=words + 1,
        boi_token_index=words + 2, eoi_token_index=words + 3,
    )  # fmt: skip
    return Gemma3ForConditionalGeneration(config).eval()


class Ltx2Checkpoint(CheckpointContract):
    @classmethod
    def build(cls, folder: Path) -> None:
        cls.save(folder)

    @classmethod
    def save(cls, folder: Path) -> None:
        words = vocabularies.gemma()
        scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
            max_image_seq_len=4096, shift_terminal=0.1,
        )  # fmt: skip
        pipe = LTX2ConditionPipeline(
            scheduler=scheduler, vae=vae(), audio_vae=audio_vae(), text_encoder=text_encoder(len(words)),
            tokenizer=words, connectors=connectors(), transformer=transformer(), vocoder=vocoder(),
        )  # fmt: skip
        pipe.save_pretrained(folder)

    @classmethod
    def loaded(cls, folder: Path) -> Any:
        pipe: Any = LTX2ConditionPipeline.from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @classmethod
    def arguments(cls, request: GenerationRequest) -> dict[str, Any]:
        options: Any = cls.card.options
        guided = request.guidance_scale > 1
        shared = {"stg_scale": 1.0, "modality_scale": 3.0, "guidance_rescale": 0.7}
        shared = {name: options.get(name, default) for name, default in shared.items()}
        shared |= {f"audio_{name}": value for name, value in shared.items()}
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "height": request.shape.height,
            "width": request.shape.width,
            "num_frames": request.shape.frames,
            "frame_rate": float(request.shape.fps),
            "num_inference_steps": request.num_inference_steps,
            "sigmas": options.get("sigmas"),
            "guidance_scale": request.guidance_scale,
            **shared,
            "audio_guidance_scale": options.get("audio_guidance_scale", 7.0) if guided else 1.0,
            "spatio_temporal_guidance_blocks": list(options.get("stg_blocks", (28,))),
            "generator": torch.Generator().manual_seed(request.seed),
            "output_type": "latent",
            "max_sequence_length": TOKENS,
            "use_cross_timestep": options.get("cross_timestep", True),
        }

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image], **more: Any) -> Any:
        made = cls.loaded(folder)(**cls.arguments(request) | more)
        return [made.frames, made.audio]


class TestFull(Ltx2Checkpoint, FamilyContract):
    card = tiny("ltx-2.3", SIZES, FRAMES, max_sequence_length=TOKENS, stg_blocks=(1,))

    @pytest.mark.parametrize("card_id", ["ltx-2", "ltx-2.3"])
    def test_sound_and_pictures_weigh_each_other_as_a_version_learnt_it(
        self, checkpoint: Path, pipeline: Any, album: Path, card_id: str
    ) -> None:
        own = load_registry().cards[card_id]
        card = self.card.model_copy(update={"options": {**self.card.options, **own.options}})
        request = self.wish(album, conditions=self.pictures(album, first_frame="red"))
        shown = LTX2VideoCondition(frames=[fit(Image.open(request.conditions[0].path), request)], index=0, crf=0)
        plain, other = (
            self.plain(checkpoint, request, {}, conditions=[shown], use_cross_timestep=later)
            for later in (card_id == "ltx-2.3", card_id != "ltx-2.3")
        )
        made = self.latents(type(pipeline)(pipeline._host, card), request)
        assert equal(made, plain)
        assert not equal(made, other)


class TestDistilled(Ltx2Checkpoint, ResumeContract):
    """Its weights are others, and its levels of noise."""

    card = tiny("ltx-2.3-distilled", SIZES, FRAMES, max_sequence_length=TOKENS)
    steps = 8

    def test_parts_that_a_card_does_without_need_not_be_there(self, checkpoint: Path, tmp_path: Path) -> None:
        """LTX-2.5's index names a model that writes prompts anew, and what guesses lengths."""
        for part in checkpoint.iterdir():
            (tmp_path / part.name).symlink_to(part)
        index = json.loads((checkpoint / "model_index.json").read_text())
        index |= {
            "prompt_enhancer": ["transformers", "Gemma3ForConditionalGeneration"],
            "duration_head": ["ltx2", "LTX2DurationHead"],
        }
        (tmp_path / "model_index.json").unlink()
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        with pytest.raises(WeightsMissing):
            self.load(tmp_path)
        without = load_registry().cards["ltx-2.5-distilled"].weights.without
        assert not snapshot.missing(tmp_path, without)
        weights = self.card.weights.model_copy(update={"without": without})
        card = self.card.model_copy(update={"weights": weights})
        loaded = family_of(card).load(card, tmp_path, CPU)
        assert loaded._host.pipe.prompt_enhancer is None
        loaded.close()
