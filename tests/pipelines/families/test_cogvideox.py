from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from PIL import Image
from transformers import T5Config, T5EncoderModel

from pipelines.types import GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny

SIZES = ((96, 64),)
FRAMES = (9, 17)
TOKENS = 16


def text_encoder(words: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=words, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


class CogContract(FamilyContract):
    kind: Any = CogVideoXPipeline
    scheduler: Any = CogVideoXDPMScheduler
    changes: ClassVar[Mapping[str, Any]] = {}
    vae_changes: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def transformer(cls) -> CogVideoXTransformer3DModel:
        values: dict[str, Any] = {
            "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4, "out_channels": 4, "num_layers": 1,
            "text_embed_dim": 32, "time_embed_dim": 8, "sample_width": 12, "sample_height": 8, "sample_frames": 17,
            "max_text_seq_length": TOKENS,
        }  # fmt: skip
        return CogVideoXTransformer3DModel(**{**values, **cls.changes})

    @classmethod
    def build(cls, folder: Path) -> None:
        words = vocabularies.t5()
        vae: dict[str, Any] = {"latent_channels": 4, "layers_per_block": 1, "norm_num_groups": 2, **cls.vae_changes}
        cls.kind(
            tokenizer=words,
            text_encoder=text_encoder(len(words)),
            transformer=cls.transformer(),
            vae=AutoencoderKLCogVideoX(block_out_channels=(4,) * 4, **vae),
            scheduler=cls.scheduler(
                clip_sample=False, prediction_type="v_prediction", rescale_betas_zero_snr=True,
                timestep_spacing="trailing",
            ),
        ).save_pretrained(folder)  # fmt: skip

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        pipe = cls.kind.from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe(
            **({"image": pictures[0]} if pictures else {}),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=request.shape.height,
            width=request.shape.width,
            num_frames=request.shape.frames,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            max_sequence_length=TOKENS,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
        ).frames


class TestRotary(CogContract):
    """Its solver has a memory of its own and draws noise at every step."""

    card = tiny("cogvideox-5b", SIZES, FRAMES, max_sequence_length=TOKENS)
    changes: ClassVar[Mapping[str, Any]] = {"use_rotary_positional_embeddings": True}


@pytest.mark.slow
class TestSmall(CogContract):
    card = tiny("cogvideox-2b", SIZES, FRAMES, max_sequence_length=TOKENS)
    scheduler = CogVideoXDDIMScheduler


@pytest.mark.slow
class TestImage(CogContract):
    card = tiny("cogvideox-5b-i2v", SIZES, FRAMES, max_sequence_length=TOKENS)
    kind = CogVideoXImageToVideoPipeline
    changes: ClassVar[Mapping[str, Any]] = {
        "use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True, "in_channels": 8,
    }  # fmt: skip


@pytest.mark.slow
class TestTwoLatentsAToken(CogContract):
    card = tiny("cogvideox-1.5-5b", SIZES, (17, 33), max_sequence_length=TOKENS)
    changes: ClassVar[Mapping[str, Any]] = {
        "use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False, "sample_width": 20,
        "sample_height": 20,
    }  # fmt: skip


@pytest.mark.slow
class TestImageTwoLatentsAToken(CogContract):
    card = tiny("cogvideox-1.5-5b-i2v", (*SIZES, (64, 96)), (17, 33), max_sequence_length=TOKENS)
    kind = CogVideoXImageToVideoPipeline
    changes: ClassVar[Mapping[str, Any]] = {
        **TestTwoLatentsAToken.changes, "in_channels": 8, "ofs_embed_dim": 8,
    }  # fmt: skip
    vae_changes: ClassVar[Mapping[str, Any]] = {"invert_scale_latents": True}
