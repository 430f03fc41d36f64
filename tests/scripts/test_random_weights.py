"""The models that benchmarks build are those that the cards speak of."""

import json
import math

import pytest
from safetensors import safe_open

from pipelines.plan import MemoryPlan
from pipelines.registry import load_registry, weights_folder
from pipelines.shapes import FrameSize
from scripts import measuring, random_weights
from scripts.makers import Task
from scripts.measuring import measure

CARDS = load_registry().cards
SHIPPED = [card.id for card in CARDS.values() if card.weights.package is not None]
BUILT = [card for card in CARDS if card not in SHIPPED]
# One of each family that makes clips in two stages.
TWO_STAGES = {CARDS[card].family: card for card in BUILT if CARDS[card].shape.has_two_stages}


def _unlike() -> list[str]:
    """Return one card of each architecture, whatever it is told while it makes a clip."""
    found: dict[str, str] = {}
    for card in BUILT:
        made = random_weights.architecture(card, tiny=True)
        parts = {name: part for name, part in made["parts"].items() if name not in ("guider", "scheduler")}
        found.setdefault(json.dumps([made["pipeline"], parts], sort_keys=True), card)
    return list(found.values())


@pytest.mark.parametrize("card", BUILT)
def test_parameters_are_those_on_the_card(card: str) -> None:
    counted, named = random_weights.parameters(card), CARDS[card].weights.components
    assert counted.keys() == named.keys()
    for part, count in counted.items():
        assert named[part].params == pytest.approx(count, rel=0.01), part
    for part, wide in random_weights.parameters(card, wide=True).items():
        # What is less than a hundredth is none.
        if named[part].dtype != "float32":
            assert abs(named[part].float32 - wide) < named[part].params / 100, part


@pytest.mark.parametrize(
    "card", [card for card in BUILT if any(not lora.refines for lora in CARDS[card].weights.loras)]
)
def test_loras_are_as_large_as_the_card_says(card: str) -> None:
    said = {lora.borrowed: lora.params for lora in CARDS[card].weights.loras}
    assert said == pytest.approx(random_weights.lora_parameters(card), rel=0.01)


@pytest.mark.parametrize("card", [card for card in BUILT if CARDS[card].weights.is_packed])
def test_parts_from_files_are_as_large_as_the_files(card: str) -> None:
    packed = {name: part for name, part in CARDS[card].weights.components.items() if part.stored is not None}
    files = random_weights.stored_parts(card)
    assert packed.keys() == files.keys()
    for name, (size, layer) in files.items():
        stored = packed[name].stored
        assert stored is not None
        assert stored.layer == layer
        assert packed[name].params * stored.bits / 8 == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("card", SHIPPED)
def test_parameters_that_come_with_the_project_are_those_on_the_card(card: str) -> None:
    folder = weights_folder(CARDS[card])
    for part, component in CARDS[card].weights.components.items():
        (file,) = (folder / part).glob("*.safetensors")
        with safe_open(file, "pt") as stored:
            shapes = [stored.get_slice(name).get_shape() for name in stored.keys()]  # noqa: SIM118 - it is no dict
        assert component.params == sum(math.prod(shape) for shape in shapes), part


@pytest.mark.parametrize("card", _unlike())
def test_a_tiny_one_makes_a_clip(card: str) -> None:
    done = measure(Task(card, MemoryPlan("cpu"), tiny=True, runs=0))
    assert done.error == ""
    assert done.frames == CARDS[card].shape.min_frames


@pytest.mark.parametrize("card", TWO_STAGES.values())
def test_a_tiny_one_makes_a_clip_in_two_stages(card: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = FrameSize(width=128, height=64, stages=2)
    shape = CARDS[card].shape.model_copy(update={"sizes": (size,)})
    monkeypatch.setattr(measuring, "card_of", lambda _: CARDS[card].model_copy(update={"shape": shape}))
    done = measure(Task(card, MemoryPlan("cpu"), tiny=True, runs=0))
    assert done.error == ""
    least = CARDS[card].sampling
    assert done.steps == max(2, least.min_inference_steps) + (least.refine_steps or 0)
    # One step of two stages stands for no other.
    assert done.flops_per_step == 0


def test_what_nobody_wrote_down_is_said_to_be_so() -> None:
    with pytest.raises(KeyError, match="no configuration"):
        random_weights.architecture("homereel-mini")
