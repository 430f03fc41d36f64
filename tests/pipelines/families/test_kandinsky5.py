import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5I2VPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pipelines.types import GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny

SIZES = ((48, 32), (64, 80))
# Of fewer, a picture's clip has no latents behind its first four, which are evened out by those.
FRAMES = (17, 21)


def text_encoder(words: int) -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": words, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 16, "num_heads": 2}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes)).eval()


def pooled_encoder(words: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=words, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def transformer() -> Kandinsky5Transformer3DModel:
    made = Kandinsky5Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4, in_text_dim=16, in_text_dim2=8, time_dim=16, model_dim=16, ff_dim=32,
        num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 2, 2), visual_cond=True,
    )  # fmt: skip
    for parameter in made.parameters():
        if not parameter.any():
            # Training begins with blocks that do nothing.
            torch.nn.init.normal_(parameter, std=0.3)
    return made


class KandinskyCheckpoint(CheckpointContract):
    kind: Any = Kandinsky5T2VPipeline
    lora_modules = ("to_query", "to_value")

    @classmethod
    def build(cls, folder: Path) -> None:
        clip = vocabularies.clip()
        vae = AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=2
        )
        scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
        pipe = cls.kind(transformer(), vae, None, None, pooled_encoder(len(clip)), clip, scheduler)
        # The pipeline cuts its own words off, 128 tokens, so somebody has to know them.
        words = vocabularies.qwen(pipe.prompt_template)
        pipe.register_modules(tokenizer=words, text_encoder=text_encoder(len(words)))
        pipe.save_pretrained(folder)
        index = json.loads((folder / "model_index.json").read_text())
        index["tokenizer"] = ["transformers", "Qwen2_5_VLProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index))

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        pipe = cls.kind.from_pretrained(folder, dtype=torch.float32, tokenizer=None)
        pipe.register_modules(tokenizer=vocabularies.qwen(pipe.prompt_template))
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
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
        ).frames


class TestText(KandinskyCheckpoint, FamilyContract):
    card = tiny("kandinsky-5.0-lite-t2v-5s", SIZES, FRAMES)


@pytest.mark.slow
class TestFewSteps(KandinskyCheckpoint):
    """The same but for its weights."""

    card = tiny("kandinsky-5.0-lite-t2v-5s-distilled", SIZES, FRAMES)
    steps = 16


@pytest.mark.slow
class TestImage(KandinskyCheckpoint, FamilyContract):
    card = tiny("kandinsky-5.0-lite-i2v-5s", SIZES, FRAMES)
    kind = Kandinsky5I2VPipeline
