from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from pipelines.families.wan import Pipeline
from pipelines.types import GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny

SIZES = ((48, 32), (64, 80))
# Two latents a token and side.
SIZES_OF_5B = ((64, 32), (64, 96))
FRAMES = (9, 17)
TOKENS = 32


def text_encoder(words: int) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=words, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=8,
    )  # fmt: skip
    # A model that was just made is in training, and its dropout makes calls differ.
    return UMT5EncoderModel(config).eval()


def vae(**changes: Any) -> AutoencoderKLWan:
    values: dict[str, Any] = {
        "base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }  # fmt: skip
    return AutoencoderKLWan(**values | changes)


def vae_of_5b() -> AutoencoderKLWan:
    return vae(
        z_dim=48, in_channels=12, out_channels=12, is_residual=True, patch_size=2, latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48, scale_factor_spatial=16, scale_factor_temporal=4,
    )  # fmt: skip


def transformer(kind: Any = WanTransformer3DModel, channels: int = 16, seen: int | None = None, **more: Any) -> Any:
    values: dict[str, Any] = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 32, "freq_dim": 256,
        "ffn_dim": 32, "num_layers": 2, "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 64, "in_channels": seen or channels, "out_channels": channels,
    }  # fmt: skip
    return kind(**values | more)


def scheduler(shift: float) -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def arguments(request: GenerationRequest) -> dict[str, Any]:
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "height": request.shape.height,
        "width": request.shape.width,
        "num_frames": request.shape.frames,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale,
        "generator": torch.Generator().manual_seed(request.seed),
        "output_type": "latent",
        "max_sequence_length": TOKENS,
    }


class WanCheckpoint(CheckpointContract):
    kind: Any = WanPipeline
    shift = 3.0

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return {"transformer": transformer(), "vae": vae()}

    @classmethod
    def build(cls, folder: Path) -> None:
        words = vocabularies.t5()
        parts = {"tokenizer": words, "text_encoder": text_encoder(len(words)), "scheduler": scheduler(cls.shift)}
        cls.kind(**parts | cls.parts()).save_pretrained(folder)

    @classmethod
    def loaded(cls, folder: Path, kind: Any = None) -> Any:
        pipe = (kind or cls.kind).from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        names = {0: "image", request.shape.frames - 1: "last_image"}
        shown: dict[str, Any] = {names[frame]: picture for frame, picture in pictures.items()}
        pipe = cls.loaded(folder)
        if pipe.config.get("boundary_ratio") is not None:
            shown["guidance_scale_2"] = request.guidance_scale_2
        return pipe(**arguments(request), **shown).frames


class WanContract(WanCheckpoint, FamilyContract):
    """What is peculiar to a kind of checkpoint here is more than its weights."""


class TestText(WanContract):
    card = tiny("wan2.1-t2v-1.3b", SIZES, FRAMES, max_sequence_length=TOKENS)


class TestTwoExperts(WanContract):
    card = tiny("wan2.2-t2v-a14b", SIZES, FRAMES, max_sequence_length=TOKENS)
    shift = 5.0

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return {"transformer": transformer(), "transformer_2": transformer(), "vae": vae(), "boundary_ratio": 0.875}

    def test_each_expert_has_its_guidance(self, pipeline: Any, album: Path) -> None:
        one, other = (self.latents(pipeline, self.wish(album, guidance_scale_2=scale)) for scale in (2.0, 6.0))
        assert not torch.equal(one, other)

    def test_flow_shift_moves_the_boundary_between_them(self, pipeline: Any, album: Path) -> None:
        near, far = (self.latents(pipeline, self.wish(album, flow_shift=shift)) for shift in (1.0, 12.0))
        assert not torch.equal(near, far)


class TestImage(WanContract):
    card = tiny("wan2.1-i2v-14b-480p", SIZES, FRAMES, max_sequence_length=TOKENS)
    kind = WanImageToVideoPipeline

    @classmethod
    def parts(cls) -> dict[str, Any]:
        eyes = CLIPVisionConfig(
            hidden_size=4, projection_dim=4, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            intermediate_size=16, patch_size=16,
        )  # fmt: skip
        return {
            "transformer": transformer(seen=36, image_dim=4),
            "vae": vae(),
            "image_encoder": CLIPVisionModel(eyes).eval(),
            "image_processor": CLIPImageProcessor(crop_size=32, size=32),
        }


class TestFirstAndLast(TestImage):
    card = tiny("wan2.1-flf2v-14b", SIZES, FRAMES, max_sequence_length=TOKENS)
    shift = 16.0

    @classmethod
    def parts(cls) -> dict[str, Any]:
        # It looks at two pictures, and tells them apart by their places.
        return super().parts() | {"transformer": transformer(seen=36, image_dim=4, pos_embed_seq_len=10)}


class TestImageWithTwoExperts(WanContract):
    card = tiny("wan2.2-i2v-a14b", SIZES, FRAMES, max_sequence_length=TOKENS)
    kind = WanImageToVideoPipeline
    shift = 5.0

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return {
            "transformer": transformer(seen=36),
            "transformer_2": transformer(seen=36),
            "vae": vae(),
            "image_encoder": None,
            "image_processor": None,
            "boundary_ratio": 0.9,
        }


class TestEither(WanContract):
    card = tiny("wan2.2-ti2v-5b", SIZES_OF_5B, FRAMES, max_sequence_length=TOKENS)
    shift = 5.0

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return {"transformer": transformer(channels=48), "vae": vae_of_5b(), "expand_timesteps": True}

    def test_a_picture_goes_through_the_stages_as_through_one_call(
        self, checkpoint: Path, pipeline: Any, album: Path
    ) -> None:
        from pipelines.types import ImageCondition
        from tests.pipelines.families.making import fit, picture

        path = picture(album, "red")
        request = self.wish(album, conditions=(ImageCondition(path),), negative_prompt="blue")
        plain = WanImageToVideoPipeline.from_pretrained(
            checkpoint, image_encoder=None, image_processor=None, dtype=torch.float32
        )
        plain.set_progress_bar_config(disable=True)
        expected = plain(**arguments(request), image=fit(Image.open(path), request)).frames
        assert torch.equal(self.latents(pipeline, request), expected)


class TestVace(WanContract):
    card = tiny("wan2.1-vace-1.3b", SIZES, FRAMES, max_sequence_length=TOKENS)
    kind = WanVACEPipeline

    @classmethod
    def parts(cls) -> dict[str, Any]:
        made = transformer(WanVACETransformer3DModel, num_layers=3, vace_layers=[0, 2], vace_in_channels=96)
        return {"transformer": made, "vae": vae()}


@pytest.mark.usefixtures("quick_sketches")
@pytest.mark.parametrize("steps", [80, 100])
def test_many_steps_at_a_large_shift_begin_with_the_first(steps: int, tmp_path: Path) -> None:
    """Two of its timesteps are then the same number, and the stock scheduler would run past its end."""
    torch.manual_seed(0)
    TestImageWithTwoExperts.build(tmp_path)
    contract = TestImageWithTwoExperts()
    loaded = contract.load(tmp_path)
    request = contract.wish(tmp_path, num_inference_steps=steps, flow_shift=16.0)
    assert contract.latents(loaded, request).isfinite().all()
    assert isinstance(loaded, Pipeline)
