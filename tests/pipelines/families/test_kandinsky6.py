import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    MMAudioVAE,
    MMAudioVocoder,
    PiflowScheduler,
)
from diffusers.pipelines.kandinsky6 import pipeline_kandinsky6_ti2va as published
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from pipelines.card import Wish
from pipelines.errors import UnsupportedShape
from pipelines.registry import load_registry
from pipelines.types import GenerationRequest, VideoShape
from tests.pipelines.families import vocabularies
from tests.pipelines.families.checkpoints import CheckpointContract
from tests.pipelines.families.contract import FamilyContract
from tests.pipelines.families.making import equal, fit, tiny
from tests.pipelines.families.resuming import ResumeContract
from tests.pipelines.families.sketching import SketchContract

SIZES = ((48, 32), (64, 80))
FRAMES = (17, 21)
TOKENS = 64
CARDS = ("kandinsky-6.0-lite-5s", "kandinsky-6.0-lite-5s-distilled")


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


def transformer(predictions: int) -> Kandinsky6Transformer3DModel:
    made = Kandinsky6Transformer3DModel(
        in_visual_dim=4, out_visual_dim=4 * predictions, in_text_dim=16, in_text_dim2=8, time_dim=16, model_dim=16,
        ff_dim=32, num_text_blocks=1, num_visual_blocks=2, axes_dims=(4, 2, 2), visual_cond=True, in_audio_dim=4,
        out_audio_dim=4 * predictions, model_dim_a=8, time_dim_a=8, ff_dim_a=16, axes_dims_a=(4, 2, 2),
        audio_freqs_scaling=0.144, text_token_padding=True, ca_rope=True, cross_gates=True, fix_modulation=True,
        visual_token_type_num_embeddings=2,
    )  # fmt: skip
    for parameter in made.parameters():
        if not parameter.any():
            # Training begins with blocks that do nothing.
            torch.nn.init.normal_(parameter, std=0.3)
    return made


class KandinskyCheckpoint(CheckpointContract):
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=5.0)
    predictions = 1

    @classmethod
    def build(cls, folder: Path) -> None:
        clip, words = vocabularies.clip(), vocabularies.qwen(published._PROMPT_TEMPLATE)
        pipe = Kandinsky6TI2VAPipeline(
            transformer=transformer(cls.predictions),
            vae=AutoencoderKLHunyuanVideo(
                latent_channels=4, block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=2
            ),
            text_encoder=text_encoder(len(words)),
            tokenizer=None,
            text_encoder_2=pooled_encoder(len(clip)),
            tokenizer_2=clip,
            scheduler=cls.scheduler,
            audio_vae=MMAudioVAE(mel_bins=8, latent_channels=4, hidden_channels=16, layers_per_block=1),
            vocoder=MMAudioVocoder(num_mels=8, upsample_initial_channel=64),
        )
        pipe.register_modules(tokenizer=words)
        pipe.save_pretrained(folder)
        index = json.loads((folder / "model_index.json").read_text())
        index["tokenizer"] = ["transformers", "Qwen2_5_VLProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index))

    @classmethod
    def loaded(cls, folder: Path) -> Any:
        pipe: Any = Kandinsky6TI2VAPipeline.from_pretrained(folder, dtype=torch.float32, tokenizer=None)
        pipe.register_modules(tokenizer=vocabularies.qwen(published._PROMPT_TEMPLATE))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @classmethod
    def plain(cls, folder: Path, request: GenerationRequest, pictures: Mapping[int, Image.Image], **more: Any) -> Any:
        made = cls.loaded(folder)(
            **({"image": pictures[0]} if pictures else {}),
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            height=request.shape.height,
            width=request.shape.width,
            num_frames=request.shape.frames,
            frame_rate=float(request.shape.fps),
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
            max_sequence_length=TOKENS,
            **{"output_type": "latent", **more},
        )
        return [made.frames, made.audio]

    def test_a_first_frame_equals_one_plain_call_of_diffusers(
        self, checkpoint: Path, pipeline: Any, album: Path
    ) -> None:
        request = self.wish(album, conditions=self.pictures(album, first_frame="red"))
        shown = fit(Image.open(request.conditions[0].path), request)
        assert equal(self.latents(pipeline, request), self.plain(checkpoint, request, {0: shown}))

    def test_the_sound_is_that_of_one_plain_call(self, checkpoint: Path, pipeline: Any, album: Path) -> None:
        request = self.wish(album)
        _, wave = self.plain(checkpoint, request, {}, output_type="pt")
        made = pipeline.audio(request, self.latents(pipeline, request))
        samples = round(request.shape.seconds * 44100)
        assert made.rate == 44100
        assert made.samples.shape == (1, samples)
        assert torch.equal(torch.from_numpy(made.samples), wave[:, :samples].clamp(-1, 1))

    def test_what_a_call_is_lent_is_taken_back(self, pipeline: Any, album: Path) -> None:
        pipe = pipeline._host.pipe
        self.latents(pipeline, self.wish(album))
        assert "encode_prompt" not in vars(pipe)
        assert "__deepcopy__" not in vars(pipe.scheduler)


class TestFull(KandinskyCheckpoint, FamilyContract):
    card = tiny("kandinsky-6.0-lite-5s", SIZES, FRAMES, max_sequence_length=TOKENS)


class TestDistilled(KandinskyCheckpoint, ResumeContract, SketchContract):
    """Its weights are others, and its scheduler, by which it is sketched."""

    card = tiny("kandinsky-6.0-lite-5s-distilled", SIZES, FRAMES, max_sequence_length=TOKENS)
    steps = 10
    scheduler = PiflowScheduler(shift=5.0, n_grid=10)
    predictions = 10


@pytest.mark.parametrize("card_id", CARDS)
class TestShapes:
    def test_lengths_are_one_more_than_a_multiple_of_four(self, card_id: str) -> None:
        card = load_registry().cards[card_id]
        for frames in range(25, 122):
            if frames % 4 == 1:
                assert card.resolve(Wish("ball", num_frames=frames)).request.shape.frames == frames
            else:
                with pytest.raises(UnsupportedShape):
                    card.resolve(Wish("ball", num_frames=frames))

    def test_sides_are_multiples_of_sixteen(self, card_id: str) -> None:
        for size in load_registry().cards[card_id].shape.sizes:
            assert size.width % 16 == size.height % 16 == 0

    def test_a_clip_is_five_seconds_at_24_frames_unless_asked_otherwise(self, card_id: str) -> None:
        card = load_registry().cards[card_id]
        assert card.shape.max_frames == 121
        request = card.resolve(Wish("ball", num_frames=121)).request
        assert request.shape == VideoShape(121, 480, 864, 24)
        # What the denoiser makes of sound reaches to the end, of which the clip keeps its own length.
        assert math.ceil(request.shape.seconds * 44100 / 1024) * 1024 >= request.shape.seconds * 44100

    def test_guidance_is_what_the_checkpoint_was_made_for(self, card_id: str) -> None:
        request = load_registry().cards[card_id].resolve(Wish("ball")).request
        expected = (10, 1.0) if "distilled" in card_id else (50, 5.0)
        assert (request.num_inference_steps, request.guidance_scale) == expected
