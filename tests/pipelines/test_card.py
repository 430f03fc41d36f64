import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.card import ModelCard, Wish
from pipelines.errors import PipelineError, UnsupportedOption, UnsupportedShape
from pipelines.registry import load_registry
from pipelines.shapes import FrameSize, crop_share
from pipelines.types import LAST, ImageCondition, VideoShape

CARD = load_registry().cards["homereel-mini"]


def test_a_bare_prompt_takes_every_default_from_the_card() -> None:
    request = CARD.resolve(Wish("a ball")).request
    assert request.shape == VideoShape(33, 96, 160, 8)
    assert request.delivery == VideoShape(32, 96, 160, 8)
    assert request.delivery.seconds == 4
    assert request.num_inference_steps == CARD.sampling.num_inference_steps
    assert request.guidance_scale == CARD.sampling.guidance_scale
    assert request.negative_prompt == ""


def test_a_seed_is_drawn_once_and_differs_between_wishes() -> None:
    seeds = {CARD.resolve(Wish("a ball")).request.seed for _ in range(20)}
    assert len(seeds) > 15


@pytest.mark.parametrize(
    ("size", "native"),
    [
        ((1280, 720), "160x96"),
        ((1920, 1080), "160x96"),
        ((1792, 1024), "160x96"),
        ((720, 1280), "96x160"),
        ((1024, 1792), "96x160"),
        ((160, 96), "160x96"),
    ],
)
def test_every_hosted_size_is_delivered_exactly(size: tuple[int, int], native: str) -> None:
    resolved = CARD.resolve(Wish("a ball", size=size))
    assert (resolved.request.delivery.width, resolved.request.delivery.height) == size
    assert resolved.request.shape.size == native
    assert bool(resolved.warnings) == (resolved.request.delivery.size != native)


@pytest.mark.parametrize(
    ("seconds", "made", "delivered"),
    [(1, 17, 8), (2, 17, 16), (2.5, 21, 20), (3, 25, 24), (4, 33, 32), (8, 33, 32), (20, 33, 32)],
)
def test_seconds_follow_the_frame_rule_and_the_limit(seconds: float, made: int, delivered: int) -> None:
    shape = CARD.shape.model_copy(update={"overlap": 0})
    card = CARD.model_copy(update={"shape": shape, "capabilities": CARD.capabilities - {"extend"}})
    resolved = card.resolve(Wish("a ball", seconds=seconds))
    assert (resolved.request.shape.frames, resolved.request.delivery.frames) == (made, delivered)
    assert any("at most 4 seconds" in w for w in resolved.warnings) == (seconds > 4)


def test_frames_that_are_asked_for_are_all_delivered() -> None:
    request = CARD.resolve(Wish("a ball", num_frames=29)).request
    assert request.shape.frames == request.delivery.frames == 29


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": 1e9}, "seconds"),
        ({"seconds": math.nan}, "seconds"),
        ({"size": (1, 1)}, "size"),
        ({"size": (60_000, 60_000)}, "size"),
        ({"size": (161, 96)}, "size"),
        ({"size": (1024, 1024)}, "size"),
        ({"num_frames": 18}, "num_frames"),
        ({"num_frames": 161}, "num_frames"),
        ({"num_frames": -3}, "num_frames"),
        ({"fps": 24}, "fps"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 10_000}, "num_inference_steps"),
        ({"guidance_scale": -0.1}, "guidance_scale"),
        ({"guidance_scale": math.nan}, "guidance_scale"),
        ({"guidance_scale": 1e9}, "guidance_scale"),
        ({"conditions": (ImageCondition(Path("last.png"), frame=LAST),)}, "last_frame"),
    ],
)
def test_what_the_card_cannot_make_is_refused_by_name(wish: dict[str, Any], param: str) -> None:
    with pytest.raises(PipelineError) as caught:
        CARD.resolve(Wish("a ball", **wish))
    assert isinstance(caught.value, UnsupportedShape | UnsupportedOption)
    assert caught.value.param == param
    assert caught.value.message.endswith(".")


def test_a_card_without_the_capability_refuses_what_it_would_ignore() -> None:
    card = CARD.model_copy(update={"capabilities": frozenset({"text"})})
    with pytest.raises(UnsupportedOption):
        card.resolve(Wish("a ball", negative_prompt="blur"))
    with pytest.raises(UnsupportedOption):
        card.resolve(Wish("a ball", conditions=(ImageCondition(Path("first.png")),)))


def test_a_misspelt_key_is_an_error() -> None:
    raw = CARD.model_dump(mode="json")
    raw["shape"]["fsp"] = 24
    with pytest.raises(ValidationError, match="fsp"):
        ModelCard.model_validate(raw)


@pytest.mark.parametrize("weights", [{"revision": "1"}, {"revision": "1", "repo": "a/b", "package": "c"}])
def test_weights_are_in_exactly_one_place(weights: dict[str, str]) -> None:
    raw = CARD.model_dump(mode="json") | {"weights": weights}
    with pytest.raises(ValidationError, match="one of package, repo and folder"):
        ModelCard.model_validate(raw)


def test_a_bound_off_the_frame_grid_is_an_error() -> None:
    raw = CARD.model_dump(mode="json")
    raw["shape"]["max_frames"] = 34
    with pytest.raises(ValidationError, match="4k"):
        ModelCard.model_validate(raw)


def test_crop_share_counts_what_is_lost() -> None:
    native = FrameSize(width=160, height=96)
    assert crop_share(native, 320, 192) == 0
    assert crop_share(native, 1280, 720) == pytest.approx(0.0625)
    assert crop_share(native, 100, 100) == pytest.approx(0.4)


def sampled(**changes: Any) -> ModelCard:
    """Return the card with another sampling; ``audio=True`` lets it make sound."""
    able = CARD.capabilities | {"audio"} if changes.pop("audio", False) else CARD.capabilities
    return CARD.model_copy(update={"sampling": CARD.sampling.model_copy(update=changes), "capabilities": able})


@pytest.mark.parametrize(
    ("wish", "guidances"),
    [
        ({}, (3.0, 2.0)),
        ({"guidance_scale": 5.0}, (5.0, 5.0)),
        ({"guidance_scale_2": 4.0}, (3.0, 4.0)),
        ({"guidance_scale": 5.0, "guidance_scale_2": 4.0}, (5.0, 4.0)),
    ],
)
def test_a_model_with_two_experts_guides_each(wish: dict[str, Any], guidances: tuple[float, float]) -> None:
    request = sampled(guidance_scale=3.0, guidance_scale_2=2.0).resolve(Wish("a ball", **wish)).request
    assert (request.guidance_scale, request.guidance_scale_2) == guidances


def test_a_model_with_one_expert_has_one_guidance() -> None:
    request = CARD.resolve(Wish("a ball", guidance_scale=5.0)).request
    assert request.guidance_scale_2 == request.guidance_scale == 5.0


@pytest.mark.parametrize(
    ("card", "wish", "param"),
    [
        (CARD, {"guidance_scale_2": 3.0}, "guidance_scale_2"),
        (sampled(guidance_scale_2=2.0), {"guidance_scale_2": 21.0}, "guidance_scale_2"),
        (CARD, {"flow_shift": 3.0}, "flow_shift"),
        (CARD, {"step_cache": -0.1}, "step_cache"),
        (CARD, {"step_cache": 1.1}, "step_cache"),
        (sampled(flow_shift=3.0), {"flow_shift": 0.0}, "flow_shift"),
        (sampled(flow_shift=3.0), {"flow_shift": 20.5}, "flow_shift"),
        (CARD, {"sound": True}, "generate_sound"),
        (CARD, {"aspect_ratio": (3, 1)}, "aspect_ratio"),
    ],
)
def test_what_a_model_does_not_honour_is_refused_by_name(card: ModelCard, wish: dict[str, Any], param: str) -> None:
    with pytest.raises(PipelineError) as error:
        card.resolve(Wish("a ball", **wish))
    assert error.value.param == param


@pytest.mark.parametrize(("audio", "wanted", "made"), [(True, None, True), (True, False, False), (False, None, False)])
def test_sound_is_made_by_whoever_can_unless_it_is_not_wanted(*, audio: bool, wanted: bool | None, made: bool) -> None:
    assert sampled(audio=audio).resolve(Wish("a ball", sound=wanted)).request.sound == made


@pytest.mark.parametrize(("ratio", "size"), [((16, 9), "160x96"), ((9, 16), "96x160"), ((3, 2), "160x96")])
def test_an_aspect_ratio_picks_the_nearest_size_and_scales_nothing(ratio: tuple[int, int], size: str) -> None:
    resolved = CARD.resolve(Wish("a ball", aspect_ratio=ratio))
    assert resolved.request.shape.size == resolved.request.delivery.size == size
    assert not any("scaled" in warning for warning in resolved.warnings)


@pytest.mark.parametrize(
    ("stride", "offset", "seconds", "made"),
    [(4, 1, 5, 121), (8, 1, 5, 121), (17, 5, 5, 124), (17, 5, 10, 243), (6, 1, 3, 73)],
)
def test_frames_follow_whichever_rule_the_card_names(stride: int, offset: int, seconds: int, made: int) -> None:
    rules = {"fps": 24, "frame_stride": stride, "frame_offset": offset, "overlap": 0, "min_frames": stride + offset}
    shape = CARD.shape.model_copy(update={**rules, "max_frames": 60 * stride + offset})
    card = CARD.model_copy(update={"shape": shape, "capabilities": CARD.capabilities - {"extend"}})
    assert card.resolve(Wish("a ball", seconds=seconds)).request.shape.frames == made
    with pytest.raises(UnsupportedShape, match=rf"{stride}k\+{offset}.* closest to {made + 1} is {made}"):
        card.resolve(Wish("a ball", num_frames=made + 1))


@pytest.mark.parametrize(
    ("length", "frames", "warned"),
    [({"num_frames": 33}, 33, False), ({"seconds": 4}, 33, True), ({"seconds": 2}, 17, True)],
)
def test_a_last_picture_is_the_last_frame_of_the_file(length: dict[str, Any], frames: int, *, warned: bool) -> None:
    shape = CARD.shape.model_copy(update={"overlap": 0})
    capabilities = CARD.capabilities - {"extend"} | {"last_frame"}
    card = CARD.model_copy(update={"shape": shape, "capabilities": capabilities})
    pictures = (ImageCondition(Path("first.png")), ImageCondition(Path("last.png"), LAST))
    resolved = card.resolve(Wish("a ball", conditions=pictures, **length))
    assert resolved.request.delivery.frames == resolved.request.shape.frames == frames
    assert [condition.frame for condition in resolved.request.conditions] == [0, frames - 1]
    assert any("last one is the picture" in warning for warning in resolved.warnings) == warned


@pytest.mark.parametrize(
    ("given", "missing"),
    [((), "input_reference"), ((0,), "last_frame"), ((LAST,), "input_reference"), ((0, LAST), None)],
)
def test_a_model_that_needs_pictures_names_the_one_that_is_missing(given: tuple[int, ...], missing: str | None) -> None:
    capabilities = CARD.capabilities - {"text"} | {"last_frame"}
    requires = frozenset({"first_frame", "last_frame"})
    card = CARD.model_copy(update={"capabilities": capabilities, "requires": requires})
    wish = Wish("a ball", conditions=tuple(ImageCondition(Path("a.png"), frame) for frame in given))
    if missing is None:
        card.resolve(wish)
        return
    with pytest.raises(UnsupportedOption, match="needs a picture") as error:
        card.resolve(wish)
    assert error.value.param == missing


def test_a_clip_of_several_windows_or_of_another_clip_is_silent_and_says_so() -> None:
    resolved = sampled(audio=True).resolve(Wish("a ball", seconds=8))
    assert not resolved.request.sound
    assert any("no sound" in warning for warning in resolved.warnings)
    quiet = sampled(audio=True).resolve(Wish("a ball", seconds=8, sound=False))
    assert not any("no sound" in warning for warning in quiet.warnings)


@pytest.mark.parametrize(
    ("asked", "native"), [((768, 512), "768x512"), ((1536, 1024), "1536x1024"), ((1200, 800), "1536x1024")]
)
def test_of_sizes_with_the_same_proportions_the_nearest_is_made(asked: tuple[int, int], native: str) -> None:
    sizes = tuple(FrameSize(width=width, height=height) for width, height in ((768, 512), (1536, 1024)))
    card = CARD.model_copy(update={"shape": CARD.shape.model_copy(update={"sizes": sizes})})
    assert card.resolve(Wish("a ball", size=asked)).request.shape.size == native
