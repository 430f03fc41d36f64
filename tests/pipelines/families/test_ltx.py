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
from pipelines.plan import MemoryPlan
from pipelines.registry import load_pipeline, load_registry
from pipelines.types import (
    NOTHING_GIVEN,
    Frames,
    GenerationRequest,
    Given,
    ImageCondition,
    Progress,
    Sketch,
    SourceClip,
    Stage,
    Step,
    VideoShape,
)

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
    loaded = Pipeline.load(CARD, checkpoint, MemoryPlan("cpu"))
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
        frame_rate=8, num_inference_steps=3, guidance_scale=guidance_scale,
        image_cond_noise_scale=0.0, generator=torch.Generator().manual_seed(1), max_sequence_length=128,
        output_type="pt",
    ).frames[0]  # fmt: skip
    expected = (frames.movedim(1, -1) * 2 - 1).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    assert np.abs(made(pipeline, request).astype(int) - expected.astype(int)).max() <= 1
    # Rounding to 8 bits happens in different places; the latents before it are equal to the bit.
    latents = plain(
        prompt=request.prompt, negative_prompt=request.negative_prompt, height=96, width=160, num_frames=17,
        frame_rate=8, num_inference_steps=3, guidance_scale=guidance_scale,
        image_cond_noise_scale=0.0, generator=torch.Generator().manual_seed(1), max_sequence_length=128,
        output_type="latent",
    ).frames  # fmt: skip
    assert torch.equal(denoised(pipeline, request, NOTHING_GIVEN), latents)


def test_an_image_fixes_the_first_frame(pipeline: Pipeline, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((320, 180)).convert("RGB").save(tmp_path / "a.png")
    condition = ImageCondition(tmp_path / "a.png")
    request = wish(conditions=(condition,))
    latents = denoised(pipeline, request, NOTHING_GIVEN)
    other = denoised(pipeline, wish(seed=2, conditions=(condition,)), NOTHING_GIVEN)
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
    broken = Pipeline.load(CARD, checkpoint, MemoryPlan("cpu"))
    parameter = next(getattr(broken._pipe, component).parameters())
    with torch.no_grad():
        target = parameter if component == "transformer" else broken._pipe.vae.decoder.conv_out.conv.weight
        target.fill_(float("nan"))
    with pytest.raises(BadOutput, match="not finite"):
        made(broken, wish())


def test_a_checkpoint_that_is_not_there_or_not_whole_is_said_to_be_so(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(WeightsMissing):
        Pipeline.load(CARD, tmp_path, MemoryPlan("cpu"))
    for part in checkpoint.rglob("*"):
        copy = tmp_path / part.relative_to(checkpoint)
        copy.mkdir(parents=True, exist_ok=True) if part.is_dir() else copy.write_bytes(part.read_bytes())
    weights = tmp_path / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(WeightsMissing):
        Pipeline.load(CARD, tmp_path, MemoryPlan("cpu"))


def test_options_that_the_family_does_not_know_are_an_error(checkpoint: Path) -> None:
    card: ModelCard = CARD.model_copy(update={"options": {"shcedule": "linear"}})
    with pytest.raises(ValueError, match="shcedule"):
        Pipeline.load(card, checkpoint, MemoryPlan("cpu"))


def footage_of(frames: int, *, start: int = 0) -> Frames:
    """A bar that moves over a gradient."""
    clip = np.zeros((frames, 96, 160, 3), dtype=np.uint8)
    clip[..., 1] = np.linspace(40, 200, 160).astype(np.uint8)
    for index in range(frames):
        clip[index, :, 3 * (start + index) : 3 * (start + index) + 20] = (220, 60, 30)
    return clip


def denoised(pipeline: Pipeline, request: GenerationRequest, given: Given) -> torch.Tensor:
    return pipeline.denoise(request, pipeline.encode(request), given, lambda _: None).latents


@pytest.mark.parametrize("overlap", [1, 5, 9])
def test_a_window_begins_with_the_frames_that_are_there(pipeline: Pipeline, overlap: int) -> None:
    before = footage_of(overlap)
    latents = [denoised(pipeline, wish(seed=seed), Given(before=before)) for seed in (1, 2)]
    there = (overlap - 1) // 4 + 1
    encoded = pipeline._encoded(before)
    for made in latents:
        assert torch.allclose(made[:, :, :there], encoded, atol=1e-4)
    assert not torch.allclose(latents[0][:, :, there:], latents[1][:, :, there:], atol=1e-1)
    other = denoised(pipeline, wish(seed=1), Given(before=footage_of(overlap, start=9)))
    assert not torch.allclose(latents[0][:, :, there:], other[:, :, there:], atol=1e-4)


@pytest.mark.parametrize("seconds", [5, 9])
def test_a_long_clip_is_made_in_windows_and_its_seed_decides(pipeline: Pipeline, seconds: int) -> None:
    values: dict[str, object] = {"num_frames": None, "seconds": seconds}
    first, other, again = (made(pipeline, wish(seed=seed, **values)) for seed in (1, 2, 1))
    assert len(first) >= 8 * seconds
    assert (first == again).all()
    assert (first[33:] != other[33:]).any()


def edit_of(strength: float = 0.9, **changes: object) -> GenerationRequest:
    source = SourceClip(Path("unread.mp4"), VideoShape(17, 96, 160, 8), "edit", "red ball")
    return wish(**({"prompt": "blue ball", "num_frames": None, "source": source, "strength": strength} | changes))


def test_an_edit_without_a_change_is_its_source(pipeline: Pipeline) -> None:
    clip = footage_of(17)
    made = denoised(pipeline, edit_of(prompt="red ball"), Given(edited=clip))
    assert torch.allclose(made, pipeline._encoded(clip), atol=1e-4)


def test_an_edit_goes_as_far_as_it_may(pipeline: Pipeline) -> None:
    clip = footage_of(17)
    source = pipeline._encoded(clip)
    near, far = (denoised(pipeline, edit_of(strength), Given(edited=clip)) for strength in (0.1, 0.9))
    assert 0 < (near - source).abs().mean() < (far - source).abs().mean()


def test_the_seed_decides_an_edit(pipeline: Pipeline) -> None:
    given = Given(edited=footage_of(17))
    first, other, again = (denoised(pipeline, edit_of(seed=seed), given) for seed in (1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("changes", [{"negative_prompt": "night"}, {"guidance_scale": 7.0}, {"num_inference_steps": 2}])
def test_every_parameter_reaches_an_edit(pipeline: Pipeline, changes: dict[str, object]) -> None:
    given = Given(edited=footage_of(17))
    assert not torch.equal(denoised(pipeline, edit_of(), given), denoised(pipeline, edit_of(**changes), given))


def test_a_later_window_of_an_edit_begins_with_what_the_one_before_made(pipeline: Pipeline) -> None:
    before = footage_of(9, start=5)
    made = denoised(pipeline, edit_of(), Given(before=before, edited=footage_of(17)))
    assert torch.allclose(made[:, :, :3], pipeline._encoded(before), atol=1e-5)
    assert not torch.allclose(made, denoised(pipeline, edit_of(), Given(edited=footage_of(17))), atol=1e-4)


@pytest.mark.parametrize("edits", [False, True])
def test_cancelling_stops_after_any_step(pipeline: Pipeline, edits: bool) -> None:
    seen: list[int] = []

    def on_step(step: Step) -> None:
        seen.append(step.number)
        assert step.total == 3
        if step.number == 2:
            raise Cancelled("enough")

    request, given = (edit_of(), Given(edited=footage_of(17))) if edits else (wish(), NOTHING_GIVEN)
    with pytest.raises(Cancelled):
        pipeline.denoise(request, pipeline.encode(request), given, on_step)
    assert seen == [1, 2]


def test_a_reference_is_seen_and_is_no_part_of_the_clip(pipeline: Pipeline, tmp_path: Path) -> None:
    paths = [tmp_path / f"{colour}.png" for colour in ("red", "blue")]
    for path in paths:
        Image.new("RGB", (64, 64), path.stem).save(path)
    plain = denoised(pipeline, wish(), NOTHING_GIVEN)
    shown = [denoised(pipeline, wish(references=(path,)), NOTHING_GIVEN) for path in paths]
    assert shown[0].shape == plain.shape
    assert not torch.allclose(shown[0], plain, atol=1e-4)
    assert not torch.allclose(shown[0], shown[1], atol=1e-4)
    again = denoised(pipeline, wish(references=(paths[0],)), Given(before=footage_of(9)))
    assert torch.allclose(again[:, :, :3], pipeline._encoded(footage_of(9)), atol=1e-4)


def test_sketches_show_the_clip_from_the_second_step_on(pipeline: Pipeline, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    for request in (wish(), wish(size=(96, 160), references=(tmp_path / "a.png",))):
        sketches: list[Sketch] = []
        list(generate(pipeline, request, lambda _: None, sketches.append).chunks)
        painted = [sketch() for sketch in sketches]
        assert painted[0] is None
        for frames in painted[1:]:
            assert frames is not None
            assert frames.shape == (17, request.shape.height // 4, request.shape.width // 4, 3)


def test_the_last_sketch_of_the_shipped_model_is_its_clip() -> None:
    shipped = load_pipeline(CARD, MemoryPlan("cpu"))
    sketches: list[Sketch] = []
    request = wish("a red ball on green grass", num_inference_steps=4)
    clip = np.concatenate(list(generate(shipped, request, lambda _: None, sketches.append).chunks)).astype(float)
    painted = sketches[-1]()
    assert painted is not None
    small = clip.reshape(17, 24, 4, 40, 4, 3).mean((2, 4))
    assert -10 * np.log10((((painted - small) / 255) ** 2).mean()) > 28
    shipped.close()
