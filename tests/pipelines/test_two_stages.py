"""Sizes that are made in two stages: which wishes get them, what a request then says, and what the plan makes of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipelines.card import ModelCard, Sampling, Wish
from pipelines.fitting import rungs
from pipelines.media import asked
from pipelines.memory import Memory
from pipelines.needs import PROCESS_BYTES, Demand, held, needs, predicted
from pipelines.plan import Device, MemoryPlan, Offload, numbers_of
from pipelines.registry import load_registry
from pipelines.shapes import FrameSize, ShapeRules
from pipelines.types import SourceClip, Stage, VideoShape
from pipelines.weights import UPSAMPLER, Borrowed, Component, OwnLora, Weights

SMALL, LARGE = FrameSize(width=768, height=512), FrameSize(width=1536, height=1024, stages=2)
RULES: dict[str, Any] = {
    "fps": 24, "frame_stride": 8, "min_frames": 25, "max_frames": 161, "overlap": 17, "pixels_per_token": 32
}  # fmt: skip


@pytest.fixture
def card() -> ModelCard:
    parts = {
        "transformer": Component(params=13 * 10**9, stage="denoise"),
        UPSAMPLER: Component(params=10**9, stage="denoise"),
        "vae": Component(params=10**9, stage="decode"),
    }
    mini = load_registry().cards["homereel-mini"]
    return mini.model_copy(
        update={
            "shape": ShapeRules(sizes=(SMALL, LARGE), **RULES),
            "sampling": Sampling(num_inference_steps=30, guidance_scale=3.0, refine_steps=4),
            "weights": Weights(repo="some/model", revision="1", components=parts),
        }
    )


@pytest.mark.parametrize(("width", "height"), [(1536, 1056), (1504, 1024), (1520, 1000)])
def test_half_of_a_size_in_two_stages_has_to_be_whole_tokens(width: int, height: int) -> None:
    ShapeRules(sizes=(FrameSize(width=width, height=height),), **RULES)
    with pytest.raises(ValidationError, match=f"{width}x{height} is made in two stages.* multiples of 64"):
        ShapeRules(sizes=(SMALL, FrameSize(width=width, height=height, stages=2)), **RULES)


@pytest.mark.parametrize(("sizes", "refine_steps"), [((SMALL,), 4), ((SMALL, LARGE), None)])
def test_a_card_names_steps_of_a_second_stage_if_it_has_one(
    card: ModelCard, sizes: tuple[FrameSize, ...], refine_steps: int | None
) -> None:
    sampling = {"num_inference_steps": 30, "guidance_scale": 3.0, "refine_steps": refine_steps}
    values = card.model_dump() | {"shape": {"sizes": sizes, **RULES}, "sampling": sampling}
    with pytest.raises(ValidationError, match="two stages and refine_steps belong together"):
        ModelCard.model_validate(values)


@pytest.mark.parametrize(
    ("asked_for", "native", "refine_steps"),
    [
        ({}, "768x512", 0),
        ({"size": (768, 512)}, "768x512", 0),
        ({"size": (1536, 1024)}, "1536x1024", 4),
        ({"size": (1440, 960)}, "1536x1024", 4),
        ({"size": (1920, 1080)}, "1536x1024", 4),
        # Two thirds of the pixels are made at once: what is wanted has fewer.
        ({"size": (1200, 800)}, "768x512", 0),
        ({"aspect_ratio": (3, 2)}, "768x512", 0),
    ],
)
def test_a_size_in_two_stages_is_for_those_who_want_as_many_pixels(
    card: ModelCard, asked_for: dict[str, Any], native: str, refine_steps: int
) -> None:
    resolved = card.resolve(Wish("a ball", **asked_for))
    request = resolved.request
    assert (request.shape.size, request.refine_steps) == (native, refine_steps)
    assert request.steps == 30 + refine_steps
    assert any("scaled" in warning for warning in resolved.warnings) == (request.delivery.size != native)
    assert asked(request)["refine_steps"] == refine_steps


def test_an_edit_is_made_at_once_and_an_extension_as_a_new_clip_is(card: ModelCard) -> None:
    source = SourceClip(Path("a.mp4"), VideoShape(49, 1024, 1536, 24), "edit")
    edit = card.resolve(Wish("a ball", source=source))
    assert (edit.request.shape.size, edit.request.delivery.size) == ("768x512", "1536x1024")
    assert edit.request.refine_steps == 0
    assert "generated at 768x512 and scaled to 1536x1024" in edit.warnings
    extension = card.resolve(Wish("a ball", source=replace(source, use="extend"))).request
    assert (extension.shape.size, extension.refine_steps) == ("1536x1024", 4)


def test_the_first_stage_is_denoised_at_a_quarter_of_the_tokens(card: ModelCard) -> None:
    rules, large = card.shape, VideoShape(161, 1024, 1536, 24)
    assert rules.first_stage(large) == VideoShape(161, 512, 768, 24)
    assert rules.tokens(large) == 4 * rules.tokens(rules.first_stage(large))
    assert rules.first_stage(rules.first_stage(large)) == VideoShape(161, 512, 768, 24)


def test_most_steps_decide_whether_weights_come_and_go_before_they_are_packed(card: ModelCard) -> None:
    """At the full size the bus would hide behind 32 thousand tokens; it does not behind the first stage's 8."""
    ada = (8, 9)
    gpu = Device("cuda:0", "", 1 << 40, 1 << 40, 1 << 40, ada, numbers_of(ada))
    at_once = ShapeRules(sizes=(SMALL, LARGE.model_copy(update={"stages": 1})), **RULES)
    demand = Demand(VideoShape(161, 1024, 1536, 24))
    orders = [
        [rung.describe() for rung in rungs(card.model_copy(update={"shape": rules}), demand, gpu)]
        for rules in (card.shape, at_once)
    ]
    streamed, packed = "bfloat16, group offload", "bfloat16, fp8 weights, all on the device"
    assert orders[0].index(packed) < orders[0].index(streamed)
    assert orders[1].index(streamed) < orders[1].index(packed)


@pytest.mark.parametrize(("offload", "counted"), [(Offload.NONE, (True, True)), (Offload.MODEL, (False, True))])
def test_what_doubles_latents_is_on_the_device_for_those_who_need_it(
    card: ModelCard, offload: Offload, counted: tuple[bool, bool]
) -> None:
    plan = MemoryPlan("cuda:0", "bfloat16", offload=offload)
    without = card.model_copy(
        update={
            "weights": Weights(
                repo="some/model",
                revision="1",
                components={name: part for name, part in card.weights.components.items() if name != UPSAMPLER},
            )
        }
    )
    for size, is_there in zip((SMALL, LARGE), counted, strict=True):
        demand = Demand(VideoShape(97, size.height, size.width, 24))
        weights = [needs(each, demand, plan)[Stage.DENOISE].weights for each in (card, without)]
        assert weights[0] - weights[1] == (2 * 10**9 if is_there else 0)


@pytest.mark.parametrize(
    ("guided", "refining_is_guided", "most"), [(True, True, 2 * 16), (True, False, 16), (False, True, 16)]
)
def test_a_second_stage_without_guidance_needs_no_room_for_it(
    card: ModelCard, *, guided: bool, refining_is_guided: bool, most: int
) -> None:
    memory = Memory(token_bytes=1000, batched_guidance=True, refining_is_guided=refining_is_guided)
    guiding = card.model_copy(update={"memory": memory})
    demand = Demand(VideoShape(81, 1024, 1536, 24), guided)
    tokens = 11 * 48 * most * 2
    assert needs(guiding, demand, MemoryPlan("cuda:0", "bfloat16"))[Stage.DENOISE].activations == 1000 * tokens
    # Of a size that is made at once, all steps are alike.
    small = replace(demand, shape=VideoShape(81, 512, 768, 24))
    alike = needs(guiding, small, MemoryPlan("cuda:0", "bfloat16"))[Stage.DENOISE].activations
    assert alike == 1000 * 11 * 24 * 16 * (2 if guided else 1)


@pytest.mark.parametrize("offload", [Offload.NONE, Offload.MODEL, Offload.GROUP])
def test_a_lora_of_the_second_stage_counts_where_there_is_one(card: ModelCard, offload: Offload) -> None:
    lora = OwnLora(borrowed="lora", params=4 * 10**9, refines=True)
    weights = card.weights.model_copy(update={"loras": (lora,), "borrowed": {"lora": Borrowed(path=Path("a"))}})
    refined = card.model_copy(update={"weights": weights})
    plan = MemoryPlan("cuda:0", "bfloat16", offload=offload)
    for size, more in ((SMALL, 0), (LARGE, 8 * 10**9)):
        demand = Demand(VideoShape(97, size.height, size.width, 24))
        with_it, without = (needs(each, demand, plan) for each in (refined, card))
        assert with_it[Stage.DENOISE].weights - without[Stage.DENOISE].weights == more
        assert with_it[Stage.DECODE] == without[Stage.DECODE]
    ram = [predicted(each, demand, plan).ram_bytes for each in (refined, card)]
    # Its file is read while all the rest that is not on the device is there.
    assert ram[0] >= ram[1]
    assert ram[0] >= PROCESS_BYTES + held(card, plan).ram + 8 * 10**9


def test_a_card_in_one_stage_has_nothing_of_the_second(card: ModelCard) -> None:
    own = (OwnLora(borrowed="fewer_steps", params=1), OwnLora(borrowed="refining", params=1, refines=True))
    names = {UPSAMPLER, "fewer_steps", "refining"}
    changes = {"loras": own, "borrowed": {name: Borrowed(path=Path(name)) for name in names}}
    two = card.model_copy(update={"weights": card.weights.model_copy(update=changes)})
    one = two.in_one_stage()
    assert (one.shape.sizes, one.sampling.refine_steps) == ((SMALL,), None)
    assert (set(one.weights.components), set(one.weights.borrowed)) == ({"transformer", "vae"}, {"fewer_steps"})
    assert one.weights.loras == own[:1]
    assert ModelCard.model_validate(one.model_dump()) == one
    assert one.in_one_stage() is one
    only = two.model_copy(update={"shape": ShapeRules(sizes=(LARGE,), **RULES)})
    assert only.in_one_stage() is only
