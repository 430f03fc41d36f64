"""The plan that fits: each rung at some size of device, never slower for more memory, and sentences that help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.card import ModelCard
from pipelines.errors import OutOfMemory
from pipelines.fitting import fit, lacks, lower, rungs
from pipelines.memory import Cost, Memory
from pipelines.needs import GIB, Demand, model_bytes, needs, predicted
from pipelines.plan import Device, MemoryPlan, Offload, Quantisation, numbers_of
from pipelines.shapes import FrameSize, ShapeRules
from pipelines.types import GenerationRequest, Stage, VideoShape, Window
from pipelines.weights import Component, OwnLora, Stored, Weights

SHAPE = VideoShape(81, 480, 832, 16)
SHORT = SHAPE._replace(frames=17)
ADA = (8, 9)


@pytest.fixture
def large(card: ModelCard) -> ModelCard:
    """A model with 6 GB of words, 20 GB that denoise and 1 GB that decode."""
    parts = {
        "text_encoder": Component(params=3 * 10**9, stage="encode"),
        "transformer": Component(params=10 * 10**9, stage="denoise"),
        "vae": Component(params=250 * 10**6, stage="decode", dtype="float32"),
    }
    rules = ShapeRules(
        sizes=(FrameSize(width=832, height=480), FrameSize(width=416, height=240)),
        fps=16, frame_stride=4, min_frames=17, max_frames=81, pixels_per_token=16,
    )  # fmt: skip
    memory = Memory(
        token_bytes=100_000, blocks=40, text_bytes=10**8, decode=Cost(pixel=20_000), tiled=Cost(pixel_frame=50)
    )
    weights = Weights(repo="some/model", revision="1", components=parts)
    return card.model_copy(update={"id": "large", "weights": weights, "shape": rules, "memory": memory})


def gpu(memory_gib: float, ram_gib: float = 256, *, int8: bool = False, capability: tuple[int, int] = ADA) -> Device:
    return Device(
        "cuda:0", "some card", int(memory_gib * GIB), int(ram_gib * GIB), 500 * GIB, capability,
        numbers_of(capability, int8=int8),
    )  # fmt: skip


def cpu(ram_gib: float) -> Device:
    return Device("cpu", "some CPU", int(ram_gib * GIB), int(ram_gib * GIB), 500 * GIB, None, numbers_of(None))


@pytest.mark.parametrize(
    ("memory_gib", "shape", "chosen"),
    [
        (40, SHAPE, "bfloat16, all on the device"),
        (32, SHAPE, "bfloat16, all on the device, tiled decode"),
        (26, SHAPE, "bfloat16, model offload"),
        (16, SHAPE, "bfloat16, group offload"),
        (9, SHAPE, "bfloat16, group offload, tiled decode"),
        # Few tokens do not hide the bus: weights in a byte each come before weights that come and go.
        (16, SHORT, "bfloat16, fp8 weights, model offload"),
        (6.6, SHAPE, "bfloat16, group offload, text encoder on the CPU, tiled decode"),
        (5.6, SHAPE, "bfloat16, sequential offload, text encoder on the CPU, tiled decode"),
    ],
)
def test_the_fastest_that_fits(large: ModelCard, memory_gib: float, shape: VideoShape, chosen: str) -> None:
    assert fit(large, shape, gpu(memory_gib)).describe() == chosen


def test_int8_comes_before_fp8_where_it_is_installed(large: ModelCard) -> None:
    assert fit(large, SHORT, gpu(16, int8=True)).quantisation is Quantisation.INT8


def test_a_machine_with_little_ram_uses_its_disk(large: ModelCard) -> None:
    plan = fit(large, SHAPE, gpu(9, ram_gib=24))
    assert plan.offload is Offload.DISK
    assert plan.disk_bytes == 20 * 10**9


@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, SHORT])
def test_more_memory_is_never_slower(large: ModelCard, shape: VideoShape, *, pictures: bool) -> None:
    order = [choices(plan) for plan in rungs(large, Demand(shape, pictures=pictures), gpu(8))]
    reached: list[int] = []
    for memory_gib in range(1, 48):
        try:
            reached.append(order.index(choices(fit(large, shape, gpu(memory_gib), pictures=pictures))))
        except OutOfMemory:
            assert not reached
    assert reached == sorted(reached, reverse=True)
    assert reached[-1] == 0


def choices(plan: MemoryPlan) -> MemoryPlan:
    return replace(plan, peak_bytes={}, ram_bytes=0, disk_bytes=0)


def test_every_plan_fits_what_it_was_made_for(large: ModelCard) -> None:
    for memory_gib in (6, 8, 12, 16, 24, 48, 80):
        device = gpu(memory_gib, ram_gib=64)
        plan = fit(large, SHAPE, device)
        assert lacks(plan, device) is None
        assert plan.peak <= device.memory_bytes


@pytest.mark.parametrize(
    ("memory_gib", "ram_gib", "sentence"),
    [
        (5, 64, r"denoise needs 5\.\d GiB of 5\.0 GiB on cuda:0\. 832x480 with \d\d frames \(\d\.\d s\) would fit"),
        (2.2, 64, r"needs .* of 2\.2 GiB on cuda:0\. 416x240 with \d+ frames"),
        (1.2, 64, r"Nor does its smallest clip, 416x240 with 17 frames: with .* needs 2\.1 GiB of 1\.2 GiB"),
        (24, 12, r"needs [\d.]+ GiB of 12\.0 GiB RAM"),
    ],
)
def test_what_does_not_fit_is_told_what_would(
    large: ModelCard, memory_gib: float, ram_gib: float, sentence: str
) -> None:
    with pytest.raises(OutOfMemory, match=sentence):
        fit(large, SHAPE, gpu(memory_gib, ram_gib))


def test_what_would_fit_does(large: ModelCard) -> None:
    with pytest.raises(OutOfMemory) as refused:
        fit(large, SHAPE, gpu(5))
    frames = int(str(refused.value).split(" with ")[-1].split()[0])
    assert lacks(fit(large, SHAPE._replace(frames=frames), gpu(5)), gpu(5)) is None
    with pytest.raises(OutOfMemory):
        fit(large, SHAPE._replace(frames=frames + 4), gpu(5))


@pytest.mark.parametrize(
    ("capability", "survives", "dtype"),
    [((9, 0), False, "bfloat16"), ((8, 0), True, "bfloat16"), ((7, 5), True, "float16"), ((7, 5), False, "float32")],
)
def test_numbers_that_the_card_computes_in(
    large: ModelCard, capability: tuple[int, int], *, survives: bool, dtype: str
) -> None:
    card = large.model_copy(update={"memory": large.memory.model_copy(update={"float16": survives})})
    plan = fit(card, SHAPE, gpu(80, capability=capability))
    assert plan.dtype == dtype
    vae_bytes = 10**9
    assert model_bytes(card, plan) == 13 * 10**9 * (4 if dtype == "float32" else 2) + vae_bytes


@pytest.mark.parametrize(("ram_gib", "chosen"), [(96, "float32"), (40, "bfloat16")])
def test_a_cpu_computes_in_float32_while_there_is_room(large: ModelCard, ram_gib: float, chosen: str) -> None:
    plan = fit(large, SHAPE, cpu(ram_gib))
    assert (plan.dtype, plan.offload, plan.quantisation) == (chosen, Offload.NONE, Quantisation.NONE)
    assert plan.ram_bytes == plan.peak


def test_a_cpu_that_is_too_small_is_refused(large: ModelCard) -> None:
    with pytest.raises(OutOfMemory, match=r"Nor does its smallest clip.* GiB of 16\.0 GiB on cpu"):
        fit(large, SHAPE, cpu(16))


def test_the_model_that_ships_fits_anything(card: ModelCard) -> None:
    shape = VideoShape(33, 96, 160, 8)
    plan = fit(card, shape, cpu(2))
    assert (plan.dtype, plan.tiled) == ("float32", False)


# -- what a stage needs -----------------------------------------------------------------------------------------------


def test_weights_are_counted_where_they_are(large: ModelCard) -> None:
    demand = Demand(SHAPE)
    whole = needs(large, demand, MemoryPlan("cuda:0", "bfloat16"))
    assert [need.weights for need in whole.values()] == [27 * 10**9] * 3
    moved = needs(large, demand, MemoryPlan("cuda:0", "bfloat16", offload=Offload.MODEL))
    assert [need.weights for need in moved.values()] == [6 * 10**9, 20 * 10**9, 10**9]
    streamed = needs(large, demand, MemoryPlan("cuda:0", "bfloat16", offload=Offload.GROUP, text_encoder_on_cpu=True))
    assert [need.weights for need in streamed.values()] == [0, 20 * 10**9 * 3 // 40, 10**9]


def test_experts_take_turns_unless_all_are_on_the_device(large: ModelCard) -> None:
    parts = {**large.weights.components, "transformer_2": large.weights.components["transformer"]}
    card = large.model_copy(update={"weights": large.weights.model_copy(update={"components": parts})})
    at_once = needs(card, Demand(SHAPE), MemoryPlan("cuda:0", "bfloat16"))[Stage.DENOISE]
    in_turn = needs(card, Demand(SHAPE), MemoryPlan("cuda:0", "bfloat16", offload=Offload.MODEL))[Stage.DENOISE]
    assert (at_once.weights, in_turn.weights) == (47 * 10**9, 20 * 10**9)


def test_given_frames_are_encoded_while_the_denoiser_is_there(large: ModelCard) -> None:
    plan = MemoryPlan("cuda:0", "bfloat16", offload=Offload.MODEL)
    without, given = (needs(large, Demand(SHAPE, pictures=some), plan)[Stage.DENOISE] for some in (False, True))
    assert given.weights - without.weights == 10**9
    assert given.activations == 832 * 480 * 15_000


def test_guidance_doubles_the_tokens_of_models_that_run_both_at_once(large: ModelCard) -> None:
    batched = large.model_copy(update={"memory": large.memory.model_copy(update={"batched_guidance": True})})
    plan = MemoryPlan("cuda:0", "bfloat16")

    def sampling(card: ModelCard, *, guided: bool) -> int:
        return needs(card, Demand(SHAPE, guided=guided), plan)[Stage.DENOISE].activations

    assert sampling(large, guided=True) == sampling(large, guided=False) == 32_760 * 100_000
    assert sampling(batched, guided=True) == 2 * sampling(batched, guided=False)


def test_tiles_bound_the_decoder(large: ModelCard) -> None:
    whole, tiled = (
        needs(large, Demand(SHAPE), MemoryPlan("cuda:0", "bfloat16", tiled=tiles))[Stage.DECODE].activations
        for tiles in (False, True)
    )
    assert (whole, tiled) == (832 * 480 * 20_000, 832 * 480 * 50 * 81)


def test_a_card_without_measurements_is_predicted_from_its_size() -> None:
    # Between the measured 114 and 131 kB of two models with 13 and 14 billion parameters, within a fifth.
    assert 100_000 < Memory().token_cost(13_600_000_000) < 150_000


def test_a_request_demands_its_largest_window(make_request: object) -> None:
    request: GenerationRequest = make_request(  # pyright: ignore[reportCallIssue]
        shape=VideoShape(60, 96, 160, 8), windows=(Window(33), Window(29, 9)), guidance_scale=1.0, conditions=()
    )
    assert Demand.of(request) == Demand(VideoShape(33, 96, 160, 8), guided=False, pictures=True)


def test_clips_of_subjects_are_denoised_beside_the_clip_at_the_largest_size(large: ModelCard) -> None:
    card = large.model_copy(update={"memory": large.memory.model_copy(update={"clip_bytes": 10**9})})
    plan = MemoryPlan("cuda:0", "bfloat16")
    none, one, two = (needs(card, Demand(SHAPE, clips=clips), plan) for clips in range(3))
    sampled = [need[Stage.DENOISE].activations for need in (none, one, two)]
    assert sampled[2] - sampled[1] == pytest.approx(sampled[1] - sampled[0], abs=2)
    assert sampled[1] >= 2 * sampled[0] / (2 if card.memory.batched_guidance else 1)
    assert two[Stage.ENCODE].activations - none[Stage.ENCODE].activations == 2 * 10**9


def test_a_request_demands_room_for_the_clips_among_its_references(make_request: object) -> None:
    files = (Path("a.mp4"), Path("b.png"), Path("c.mp4"))
    request: GenerationRequest = make_request(references=files)  # pyright: ignore[reportCallIssue]
    assert Demand.of(request).clips == 2


# -- out of memory all the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "next_best"),
    [
        (Stage.ENCODE, "bfloat16, model offload"),
        (Stage.DENOISE, "bfloat16, model offload"),
        (Stage.DECODE, "bfloat16, all on the device, tiled decode"),
    ],
)
def test_a_stage_that_ran_out_gets_a_plan_that_needs_less_of_it(large: ModelCard, stage: Stage, next_best: str) -> None:
    device = gpu(40)
    ladder = rungs(large, Demand(SHAPE), device)
    below = lower(ladder, fit(large, SHAPE, device), stage, device)
    assert below is not None
    assert below.describe() == next_best


def test_the_ladder_ends(large: ModelCard) -> None:
    device = gpu(80)
    ladder = rungs(large, Demand(SHAPE), device)
    plan, taken = ladder[0], [ladder[0]]
    while (following := lower(ladder, plan, Stage.DENOISE, device)) is not None:
        plan = following
        taken.append(plan)
    peaks = [rung.peak_bytes[Stage.DENOISE] for rung in taken]
    assert peaks == sorted(peaks, reverse=True)
    assert plan.offload is Offload.SEQUENTIAL
    assert lower(ladder, replace(plan, dtype="float32"), Stage.DENOISE, device) is None


def packed(card: ModelCard, *, lora: int = 0) -> ModelCard:
    """Return the card with its denoiser in a file of five bits a weight, and perhaps a LoRA of its own."""
    denoiser = card.weights.components["transformer"]
    stored = Stored(bits=5, layer=10**8)
    changes: dict[str, object] = {
        "components": {**card.weights.components, "transformer": denoiser.model_copy(update={"stored": stored})}
    }
    return with_lora(card.model_copy(update={"weights": card.weights.model_copy(update=changes)}), lora)


def with_lora(card: ModelCard, params: int) -> ModelCard:
    loras = (OwnLora(borrowed="lora", params=params),) if params else ()
    return card.model_copy(update={"weights": card.weights.model_copy(update={"loras": loras})})


def test_weights_of_a_file_stay_as_it_has_them(large: ModelCard) -> None:
    card = packed(large)
    ladder = rungs(card, Demand(SHAPE), gpu(80, int8=True))
    assert {plan.quantisation for plan in ladder} == {Quantisation.GGUF}
    # What comes back from the disk would be something else.
    assert Offload.DISK not in {plan.offload for plan in ladder}
    assert ladder[0].describe() == "bfloat16, GGUF weights, all on the device"
    plain = MemoryPlan("cuda:0", "bfloat16")
    assert model_bytes(large, plain) - model_bytes(card, ladder[0]) == 10**10 * (16 - 5) // 8
    offloaded = MemoryPlan("cuda:0", "bfloat16", Quantisation.GGUF, Offload.MODEL)
    before, after = (needs(each, Demand(SHAPE), offloaded)[Stage.DENOISE] for each in (large, card))
    assert before.weights - after.weights == 10**10 * (16 - 5) // 8
    # The largest layer is widened while it computes.
    assert after.activations - before.activations == 720_000_000


@pytest.mark.parametrize("kind", ["cpu", "cuda:0"])
def test_a_cpu_has_them_so_as_well(large: ModelCard, kind: str) -> None:
    device = cpu(256) if kind == "cpu" else gpu(80)
    assert fit(packed(large), SHAPE, device).quantisation is Quantisation.GGUF
    assert fit(large, SHAPE, device).quantisation is Quantisation.NONE


def test_a_lora_of_its_own_needs_ram_once_and_the_device_only_beside_packed_weights(large: ModelCard) -> None:
    on_device = MemoryPlan("cuda:0", "bfloat16")

    def need(card: ModelCard) -> tuple[int, int]:
        plan = predicted(card, Demand(SHAPE), on_device)
        return needs(card, Demand(SHAPE), on_device)[Stage.DENOISE].weights, plan.ram_bytes

    (before, ram), (after, more_ram) = need(large), need(with_lora(large, 10**8))
    assert (after - before, more_ram - ram) == (0, 8 * 10**8)
    (before, _), (after, _) = need(packed(large)), need(packed(large, lora=10**8))
    assert after - before == 2 * 10**8
