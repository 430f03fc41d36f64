import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from PIL import Image
from transformers import (
    ByT5Tokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from pipelines.types import GenerationRequest
from tests.pipelines.families import vocabularies
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import tiny

# The pipeline puts them before every prompt and cuts 108 tokens off: who knows their words makes a few more of them.
INSTRUCTIONS = inspect.signature(HunyuanVideo15Pipeline._get_mllm_prompt_embeds).parameters["system_message"].default
SIZES = ((48, 32), (64, 80))
FRAMES = (5, 9)
TOKENS, LETTERS, LOOKS = 32, 8, 4
LENGTHS = {"max_sequence_length": TOKENS, "max_letters": LETTERS, "picture_tokens": LOOKS}


def text_encoder() -> Qwen2_5_VLTextModel:
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [1, 1, 2]}
    return Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=600, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
            num_key_value_heads=2, rope_parameters=rope, bos_token_id=None, eos_token_id=None,
        )
    ).eval()  # fmt: skip


def letters_encoder() -> T5EncoderModel:
    config = T5Config(
        vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def transformer(**changes: Any) -> HunyuanVideo15Transformer3DModel:
    values: dict[str, Any] = {
        "in_channels": 9, "out_channels": 4, "num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1,
        "num_refiner_layers": 1, "mlp_ratio": 2.0, "text_embed_dim": 16, "text_embed_2_dim": 16,
        "image_embed_dim": 12, "rope_axes_dim": (2, 2, 4), "task_type": "t2v", "target_size": 40,
    }  # fmt: skip
    return HunyuanVideo15Transformer3DModel(**values | changes)


class HunyuanContract(FamilyContract):
    kind: Any = HunyuanVideo15Pipeline
    shift = 5.0
    guidance = 6.0

    @classmethod
    def parts(cls) -> dict[str, Any]:
        return {"transformer": transformer()}

    @classmethod
    def build(cls, folder: Path) -> None:
        parts = {
            "tokenizer": vocabularies.qwen(INSTRUCTIONS),
            "text_encoder": text_encoder(),
            "tokenizer_2": ByT5Tokenizer(),
            "text_encoder_2": letters_encoder(),
            "vae": AutoencoderKLHunyuanVideo15(latent_channels=4, block_out_channels=(8,) * 5, layers_per_block=1),
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=cls.shift),
            "guider": ClassifierFreeGuidance(guidance_scale=cls.guidance),
        }
        cls.kind(**parts | cls.parts()).save_pretrained(folder)

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image]) -> torch.Tensor:
        pipe = cls.kind.from_pretrained(folder, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        pipe.tokenizer_max_length, pipe.tokenizer_2_max_length = TOKENS, LETTERS
        pipe.vision_num_semantic_tokens = LOOKS
        pipe.guider = ClassifierFreeGuidance(guidance_scale=request.guidance_scale)
        shape = request.shape
        return pipe(
            **({"image": pictures[0]} if pictures else {"height": shape.height, "width": shape.width}),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            num_frames=shape.frames,
            num_inference_steps=request.num_inference_steps,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="latent",
        ).frames


class TestText(HunyuanContract):
    card = tiny("hunyuanvideo-1.5-480p-t2v", SIZES, FRAMES, **LENGTHS)

    def test_words_in_quotation_marks_are_read_letter_by_letter(self, pipeline: Any, album: Path) -> None:
        plain, written = (pipeline.encode(self.wish(album, prompt)).positive for prompt in ("a ball", 'a "ball"'))
        assert not plain[3].any()
        assert written[3].any()
        assert written[2].any()

    def test_flow_shift_decides_where_the_noise_goes(self, pipeline: Any, album: Path) -> None:
        near, far = (self.latents(pipeline, self.wish(album, flow_shift=shift)) for shift in (1.0, 12.0))
        assert not torch.equal(near, far)


class ImageContract(HunyuanContract):
    kind = HunyuanVideo15ImageToVideoPipeline
    changes: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def parts(cls) -> dict[str, Any]:
        eyes = SiglipVisionConfig(
            hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32,
            patch_size=16,
        )  # fmt: skip
        return {
            "transformer": transformer(task_type="i2v", **cls.changes),
            "image_encoder": SiglipVisionModel(eyes).eval(),
            "feature_extractor": SiglipImageProcessor(size={"height": 32, "width": 32}),
        }


@pytest.mark.slow
class TestImage(ImageContract):
    card = tiny("hunyuanvideo-1.5-480p-i2v", SIZES, FRAMES, **LENGTHS)


@pytest.mark.slow
class TestFewSteps(ImageContract):
    card = tiny("hunyuanvideo-1.5-480p-i2v-step-distilled", SIZES, FRAMES, **LENGTHS)
    steps = 4
    shift = 7.0
    guidance = 1.0
    changes: ClassVar[Mapping[str, Any]] = {"use_meanflow": True}


class Upright(ImageContract):
    card = tiny("hunyuanvideo-1.5-480p-i2v", ((160, 96), (96, 160)), FRAMES, **LENGTHS)
    changes: ClassVar[Mapping[str, Any]] = {"target_size": 124}


@pytest.mark.usefixtures("quick_sketches")
def test_an_upright_picture_keeps_its_size(tmp_path: Path) -> None:
    """The stock pipeline takes the nearest of its own sizes, whose proportions it has rounded, and misses the same."""
    torch.manual_seed(0)
    Upright.build(tmp_path)
    contract = Upright()
    loaded = contract.load(tmp_path)
    upright = contract.wish(tmp_path, size=(96, 160))
    assert contract.latents(loaded, upright).shape[-2:] == (10, 6)
    plain = Upright.plain(tmp_path, upright, {0: Image.new("RGB", (96, 160))})
    assert plain.shape[-2:] != (10, 6)
