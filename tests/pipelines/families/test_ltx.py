"""The LTX family on a tiny random checkpoint in the published layout, loaded by the code that loads real ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from pipelines.card import ModelCard, Wish
from pipelines.engine import generate
from pipelines.errors import BadOutput, Cancelled, InvalidImage, WeightsMissing
from pipelines.families.ltx import Pipeline
from pipelines.registry import load_registry
from pipelines.types import NOTHING_GIVEN, Frames, GenerationRequest, ImageCondition, Progress, Stage

CARD = load_registry().cards["homereel-mini"]


def tokenizer() -> PreTrainedTokenizerFast:
    words = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", "red", "ball", "blue", "night"])}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=32
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every part tiny and random; compression 32x32x4, as the card's shape rules want it."""
    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, patch_size=8, block_out_channels=(8, 16, 16),
        down_block_types=("LTXVideo095DownBlock3D",) * 3,
        layers_per_block=(0, 0, 0), spatio_temporal_scaling=(True, True), downsample_type=("spatiotemporal",) * 2,
        decoder_block_out_channels=(8, 16), decoder_layers_per_block=(1, 1, 0),
        decoder_spatio_temporal_scaling=(True, True), decoder_inject_noise=(False,) * 3,
        upsample_residual=(False, False), upsample_factor=(1, 2),
    )  # fmt: skip
    with torch.no_grad():
        # The last channel is the log-variance: without it, what the encoder samples is its mean.
        vae.encoder.conv_out.conv.weight[-1] = 0
        vae.encoder.conv_out.conv.bias[-1] = -30
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=12, cross_attention_dim=24,
        num_layers=2, caption_channels=16,
    )  # fmt: skip
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=7, d_model=16, d_kv=8, num_heads=2, d_ff=16, num_layers=1, is_encoder_decoder=False)
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    pipe = LTXConditionPipeline(scheduler, vae, text_encoder.eval(), tokenizer(), transformer)
    folder = tmp_path_factory.mktemp("tiny-ltx")
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(checkpoint: Path) -> Iterator[Pipeline]:
    loaded = Pipeline.load(CARD, checkpoint, "cpu")
    yield loaded
    loaded.close()


def wish(prompt: str = "red ball", seed: int = 1, **changes: object) -> GenerationRequest:
    values: dict[str, object] = {"num_frames": 17, "num_inference_steps": 3, "seed": seed} | changes
    return CARD.resolve(Wish(prompt, **values)).request


def made(pipeline: Pipeline, request: GenerationRequest) -> Frames:
    return np.concatenate(list(generate(pipeline, request, lambda _: None).chunks))


@pytest.mark.parametrize("size", [(160, 96), (96, 160)])
@pytest.mark.parametrize("frames", [17, 33])
def test_a_clip_has_exactly_the_shape_that_was_asked_for(
    pipeline: Pipeline, size: tuple[int, int], frames: int
) -> None:
    clip = made(pipeline, wish(size=size, num_frames=frames))
    assert clip.shape == (frames, size[1], size[0], 3)
    assert clip.dtype == np.uint8


def test_the_seed_decides_and_nothing_before_it_does(pipeline: Pipeline) -> None:
    first, other, again = (made(pipeline, wish(seed=seed)) for seed in (1, 2, 1))
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "blue night"},
        {"negative_prompt": "blue night"},
        {"guidance_scale": 1.0},
        {"guidance_scale": 7.0},
        {"num_inference_steps": 2},
    ],
)
def test_every_parameter_reaches_the_model(pipeline: Pipeline, changes: dict[str, object]) -> None:
    assert (made(pipeline, wish()) != made(pipeline, wish(**changes))).any()


@pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
def test_stages_equal_one_plain_call_of_diffusers(checkpoint: Path, pipeline: Pipeline, guidance_scale: float) -> None:
    request = wish(negative_prompt="blue", guidance_scale=guidance_scale)
    plain = LTXConditionPipeline.from_pretrained(checkpoint, dtype=torch.float32)
    plain.set_progress_bar_config(disable=True)
    frames = plain(
        prompt=request.prompt, negative_prompt=request.negative_prompt, height=96, width=160, num_frames=17,
        frame_rate=8, num_inference_steps=3, timesteps=pipeline._timesteps(3), guidance_scale=guidance_scale,
        image_cond_noise_scale=0.0, generator=torch.Generator().manual_seed(1), max_sequence_length=128,
        output_type="pt",
    ).frames[0]  # fmt: skip
    expected = (frames.movedim(1, -1) * 2 - 1).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    assert np.abs(made(pipeline, request).astype(int) - expected.astype(int)).max() <= 1
    # Rounding to 8 bits happens in different places; the latents before it are equal to the bit.
    latents = plain(
        prompt=request.prompt, negative_prompt=request.negative_prompt, height=96, width=160, num_frames=17,
        frame_rate=8, num_inference_steps=3, timesteps=pipeline._timesteps(3), guidance_scale=guidance_scale,
        image_cond_noise_scale=0.0, generator=torch.Generator().manual_seed(1), max_sequence_length=128,
        output_type="latent",
    ).frames  # fmt: skip
    assert torch.equal(pipeline.denoise(request, pipeline.encode(request), NOTHING_GIVEN, lambda _: None), latents)


def test_an_image_fixes_the_first_frame(pipeline: Pipeline, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((320, 180)).convert("RGB").save(tmp_path / "a.png")
    condition = ImageCondition(tmp_path / "a.png")
    request = wish(conditions=(condition,))
    latents = pipeline.denoise(request, pipeline.encode(request), NOTHING_GIVEN, lambda _: None)
    other = pipeline.denoise(
        wish(seed=2, conditions=(condition,)), pipeline.encode(request), NOTHING_GIVEN, lambda _: None
    )
    assert torch.allclose(latents[:, :, 0], other[:, :, 0], atol=1e-4)
    assert not torch.allclose(latents[:, :, 1:], other[:, :, 1:], atol=1e-1)


def test_an_image_that_cannot_be_read_is_an_error_of_its_own(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    with pytest.raises(InvalidImage):
        made(pipeline, wish(conditions=(ImageCondition(tmp_path / "a.png"),)))


def test_cancelling_stops_at_once_and_leaves_the_pipeline_whole(pipeline: Pipeline) -> None:
    before = made(pipeline, wish())
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if progress == Progress(Stage.DENOISE, 2, 3):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        generate(pipeline, wish(), report)
    assert seen[-1] == Progress(Stage.DENOISE, 2, 3)
    assert (made(pipeline, wish()) == before).all()


@pytest.mark.parametrize("component", ["transformer", "vae"])
def test_values_that_are_not_numbers_are_an_error_and_never_a_clip(checkpoint: Path, component: str) -> None:
    broken = Pipeline.load(CARD, checkpoint, "cpu")
    parameter = next(getattr(broken._pipe, component).parameters())
    with torch.no_grad():
        target = parameter if component == "transformer" else broken._pipe.vae.decoder.conv_out.conv.weight
        target.fill_(float("nan"))
    with pytest.raises(BadOutput, match="not finite"):
        made(broken, wish())


def test_a_checkpoint_that_is_not_there_or_not_whole_is_said_to_be_so(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(WeightsMissing):
        Pipeline.load(CARD, tmp_path, "cpu")
    for part in checkpoint.rglob("*"):
        copy = tmp_path / part.relative_to(checkpoint)
        copy.mkdir(parents=True, exist_ok=True) if part.is_dir() else copy.write_bytes(part.read_bytes())
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsMissing):
        Pipeline.load(CARD, tmp_path, "cpu")


def test_options_that_the_family_does_not_know_are_an_error(checkpoint: Path) -> None:
    card: ModelCard = CARD.model_copy(update={"options": {"shcedule": "linear"}})
    with pytest.raises(ValueError, match="shcedule"):
        Pipeline.load(card, checkpoint, "cpu")
