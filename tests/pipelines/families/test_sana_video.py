from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaImageToVideoPipeline,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
)
from PIL import Image
from transformers import Gemma2Config, Gemma2Model

from pipelines.types import GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny

TOKENS = 24


class SanaContract(FamilyContract):
    card = tiny("sana-video-2b-480p", ((96, 64), (64, 96)), (9, 13), max_sequence_length=TOKENS)

    @classmethod
    def build(cls, folder: Path) -> None:
        words = vocabularies.gemma()
        text = Gemma2Config(
            vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        )  # fmt: skip
        transformer = SanaVideoTransformer3DModel(
            num_attention_heads=2, attention_head_dim=12, num_layers=2, num_cross_attention_heads=2,
            cross_attention_head_dim=12, cross_attention_dim=24, caption_channels=16,
        )  # fmt: skip
        vae = AutoencoderKLWan(
            base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
        )
        scheduler = DPMSolverMultistepScheduler(
            algorithm_type="dpmsolver++", flow_shift=8.0, prediction_type="flow_prediction", use_flow_sigmas=True
        )
        SanaVideoPipeline(words, Gemma2Model(text).eval(), vae, transformer, scheduler).save_pretrained(folder)

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        kind: Any = SanaImageToVideoPipeline if pictures else SanaVideoPipeline
        pipe = kind.from_pretrained(folder, dtype=torch.float32)
        if pictures:
            pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=request.flow_shift)
        pipe.set_progress_bar_config(disable=True)
        return pipe(
            **({"image": pictures[0]} if pictures else {}),
            prompt=f"{request.prompt} motion score: 30.",
            negative_prompt=request.negative_prompt,
            height=request.shape.height,
            width=request.shape.width,
            frames=request.shape.frames,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            max_sequence_length=TOKENS,
            use_resolution_binning=False,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
        ).frames


class TestWords(SanaContract):
    def test_flow_shift_decides_where_the_noise_goes(self, pipeline: Any, album: Path) -> None:
        near, far = (self.latents(pipeline, self.wish(album, flow_shift=shift)) for shift in (1.0, 12.0))
        assert not torch.equal(near, far)


@pytest.mark.slow
class TestPicture(SanaContract):
    """Another loop and another solver, of the same parts."""

    card = SanaContract.card.model_copy(update={"requires": frozenset({"first_frame"})})
