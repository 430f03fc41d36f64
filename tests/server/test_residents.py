"""Models are kept for as long as there is room and time, and run by the plan that fits the job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import yaml

from pipelines.card import ModelCard
from pipelines.errors import Cancelled, DoesNotFit, WeightsMissing
from pipelines.loading import loaded
from pipelines.needs import GIB
from pipelines.plan import Device, MemoryPlan, Offload, Quantisation, numbers_of
from pipelines.shapes import FrameSize
from pipelines.types import DType, GenerationRequest, VideoShape
from pipelines.weights import Component
from server.residents import Residents, Source, find
from server.settings import Settings
from tests.conftest import FakePipeline

if TYPE_CHECKING:
    from tests.conftest import Clock

MakeRequest = Callable[..., GenerationRequest]
BILLIONS = {"small": 2, "middle": 4, "large": 10, "huge": 50}


@dataclass
class Shop:
    """Models of so many billion parameters; remembers what was loaded and by which plan."""

    card: ModelCard
    device: Device
    loaded: list[tuple[str, MemoryPlan]] = field(default_factory=list[tuple[str, MemoryPlan]])
    pipelines: dict[str, FakePipeline] = field(default_factory=dict[str, FakePipeline])
    kernels: list[tuple[str, DType, str | None]] = field(default_factory=list[tuple[str, DType, "str | None"]])
    probes: int = 0
    released: int = 0

    def find(self, name: str) -> ModelCard:
        if name not in BILLIONS:
            raise WeightsMissing(f"{name} is not here")
        part = Component(params=BILLIONS[name] * 10**9, stage="denoise")
        memory = self.card.memory.model_copy(update={"token_bytes": 10.0**7})
        weights = self.card.weights.model_copy(update={"components": {"transformer": part}})
        return self.card.model_copy(update={"id": name, "weights": weights, "memory": memory})

    def load(self, card: ModelCard, plan: MemoryPlan) -> FakePipeline:
        loaded(0.5)
        self.loaded.append((card.id, plan))
        self.pipelines[card.id] = FakePipeline()
        return self.pipelines[card.id]

    def probe(self, name: str) -> Device:
        self.probes += 1
        return self.device

    def attention_for(self, device: str, dtype: DType, wanted: str | None) -> str:
        self.kernels.append((device, dtype, wanted))
        return "fast"

    @property
    def source(self) -> Source:
        return Source(self.find, self.load, self.probe, self.attention_for, self.release)

    def release(self, device: str) -> None:
        self.released += 1

    def names(self) -> list[str]:
        return [name for name, _ in self.loaded]


def gpu(memory_gib: float, ram_gib: float = 256) -> Device:
    memory, ram = int(memory_gib * GIB), int(ram_gib * GIB)
    return Device("cuda:0", "a card", memory, ram, 500 * GIB, (8, 9), numbers_of((8, 9)))


@pytest.fixture
def shop(card: ModelCard) -> Shop:
    return Shop(card, gpu(24))


@pytest.fixture
def open_with(shop: Shop, settings: Settings, clock: Clock) -> Callable[..., Residents]:
    def make(device: Device | None = None, **changes: object) -> Residents:
        if device is not None:
            shop.device = device
        return Residents("cuda:0", settings.model_copy(update=changes), shop.source, clock)

    return make


OpenWith = Callable[..., Residents]


def bring(models: Residents, request: GenerationRequest, *names: str) -> None:
    for name in names:
        models.bring(name, request, lambda share: None)
        models.rest()


def test_a_model_is_loaded_by_the_plan_that_fits(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with()
    shares: list[float] = []
    given = models.bring("large", make_request(), shares.append)
    assert given.plan.offload is Offload.NONE
    assert (given.plan.dtype, given.plan.attention) == ("bfloat16", "fast")
    assert given.pipeline is shop.pipelines["large"]
    assert shares == [0.5]
    assert models.names() == {"large"}


def test_room_for_two_keeps_two(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with()
    bring(models, make_request(), "small", "middle", "small", "middle")
    assert shop.names() == ["small", "middle"]
    assert models.latest == "middle"


def test_the_one_used_longest_ago_makes_room(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with()
    # 4, 8 and 20 GB: the third leaves room for neither, unless the smaller is enough.
    bring(models, make_request(), "middle", "small", "large")
    assert models.names() == {"large"}
    assert all(shop.pipelines[name].is_closed for name in ("small", "middle"))
    assert shop.released == 2
    models = open_with(gpu(26))
    bring(models, make_request(), "middle", "small", "large")
    assert models.names() == {"small", "large"}


def test_cards_that_were_added_are_found_too(settings: Settings, card: ModelCard) -> None:
    settings.models_dir.mkdir(parents=True)
    added = card.model_dump(mode="json", exclude_defaults=True) | {"id": "mine"}
    (settings.models_dir / "mine.yaml").write_text(yaml.safe_dump(added))
    assert find(settings, "mine").id == "mine"


def test_ram_counts_too(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    # Blocks that come and go are in RAM, where there is no room for a second model.
    models = open_with(gpu(9, ram_gib=25))
    bring(models, make_request(), "large", "middle")
    assert shop.loaded[0][1].offload is not Offload.NONE
    assert models.names() == {"middle"}


def test_another_length_by_the_same_placement_is_only_adopted(
    shop: Shop, open_with: OpenWith, make_request: MakeRequest
) -> None:
    models = open_with()
    short, long = make_request(), make_request(shape=VideoShape(33, 96, 160, 8))
    bring(models, short, "small")
    assert not models.loads("small", long)
    bring(models, long, "small")
    assert shop.names() == ["small"]
    (adopted,) = shop.pipelines["small"].adopted
    assert adopted.peak > shop.loaded[0][1].peak


def test_another_placement_is_loaded_anew(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with(gpu(20.8))
    short, long = make_request(), make_request(shape=VideoShape(33, 96, 160, 8))
    bring(models, short, "large")
    assert models.loads("large", long)
    bring(models, long, "large")
    first, second = (plan for _, plan in shop.loaded)
    assert (first.quantisation, second.quantisation) == (Quantisation.NONE, Quantisation.FP8)
    assert models.names() == {"large"}


def test_a_model_whose_second_stage_came_later_is_loaded_anew_for_who_needs_that(
    shop: Shop, open_with: OpenWith, make_request: MakeRequest
) -> None:
    models, refined = open_with(), make_request(refine_steps=3)
    with pytest.raises(WeightsMissing):
        bring(models, refined, "small")
    bring(models, make_request(), "small")
    first = shop.pipelines["small"]
    sizes = (*shop.card.shape.sizes, FrameSize(width=320, height=192, stages=2))
    shop.card = shop.card.model_copy(update={"shape": shop.card.shape.model_copy(update={"sizes": sizes})})
    assert not models.loads("small", make_request())
    assert models.loads("small", refined)
    bring(models, refined, "small")
    assert (shop.names(), first.is_closed) == (["small", "small"], True)
    assert not models.loads("small", refined)


def test_what_does_not_fit_leaves_the_others_alone(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with(gpu(8, ram_gib=16))
    bring(models, make_request(), "small")
    with pytest.raises(DoesNotFit, match="does not fit on cuda:0"):
        models.bring("huge", make_request(), lambda share: None)
    assert models.names() == {"small"}


def test_what_is_not_here_leaves_the_others_alone(open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with()
    bring(models, make_request(), "small")
    with pytest.raises(WeightsMissing):
        models.bring("gone", make_request(), lambda share: None)
    assert models.names() == {"small"}


def test_loading_can_be_stopped(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    def stop(share: float) -> None:
        raise Cancelled("enough")

    models = open_with()
    with pytest.raises(Cancelled):
        models.bring("small", make_request(), stop)
    assert models.names() == frozenset()
    # Who loads without anybody listening is heard by nobody.
    loaded(1.0)


@pytest.mark.parametrize(
    ("keep_alive", "idle_s", "left"),
    [(-1, 10**9, {"small"}), (0, 0, set[str]()), (60, 59, {"small"}), (60, 60, set[str]())],
)
def test_keep_alive(
    open_with: OpenWith, clock: Clock, make_request: MakeRequest, keep_alive: float, idle_s: float, left: set[str]
) -> None:
    models = open_with(keep_alive=keep_alive)
    bring(models, make_request(), "small")
    clock.advance(idle_s)
    models.expire()
    assert models.names() == left


def test_a_model_at_work_is_never_given_up(
    shop: Shop, open_with: OpenWith, clock: Clock, make_request: MakeRequest
) -> None:
    models = open_with(keep_alive=60)
    models.bring("small", make_request(), lambda share: None)
    clock.advance(3600)
    models.expire()
    (said,) = models.announced()
    assert (said.card, said.unload_at) == ("small", None)
    models.rest()
    (said,) = models.announced()
    assert said.unload_at == clock() + 60


def test_what_is_loaded_is_announced(shop: Shop, open_with: OpenWith, clock: Clock, make_request: MakeRequest) -> None:
    models = open_with(keep_alive=300)
    bring(models, make_request(), "small")
    clock.advance(10)
    bring(models, make_request(), "middle")
    said = models.announced()
    assert [(model.card, model.memory_bytes) for model in said] == [("middle", 8 * 10**9), ("small", 4 * 10**9)]
    assert [model.unload_at for model in said] == [clock() + 300, clock() + 290]
    assert said[0].plan == "bfloat16, all on the device"
    models.clear()
    assert models.announced() == ()
    assert all(pipeline.is_closed for pipeline in shop.pipelines.values())


def test_blocks_are_compiled_where_the_operator_says_so(
    shop: Shop, open_with: OpenWith, make_request: MakeRequest
) -> None:
    for wanted in (False, True):
        models = open_with(compile=wanted)
        bring(models, make_request(), "small")
        assert shop.loaded[-1][1].compiled is wanted
        assert ("compiled blocks" in models.announced()[0].plan) is wanted


def test_a_loaded_model_spares_steps_for_who_asks_for_it(
    shop: Shop, open_with: OpenWith, make_request: MakeRequest
) -> None:
    models = open_with()
    for share in (0.0, 0.2, 0.0):
        bring(models, make_request(step_cache=share), "small")
    assert [plan.step_cache for plan in shop.pipelines["small"].adopted] == [0.2, 0.0]
    assert shop.names() == ["small"]


def test_a_model_can_be_there_before_anybody_asks(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with()
    models.preload("small")
    assert not models.loads("small", make_request())
    assert shop.names() == ["small"]


def test_device_and_kernel_are_looked_at_once(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with(attention="flash")
    bring(models, make_request(), "small", "middle", "small")
    assert shop.probes == 1
    assert shop.kernels == [("cuda:0", "bfloat16", "flash")]


def test_workers_of_one_machine_share_its_ram(shop: Shop, open_with: OpenWith, make_request: MakeRequest) -> None:
    models = open_with(gpu(9, ram_gib=48), devices=("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
    with pytest.raises(DoesNotFit, match=r"12\.0 GiB RAM"):
        models.bring("large", make_request(), lambda share: None)


def test_a_card_is_read_again_only_to_be_loaded(
    shop: Shop, open_with: OpenWith, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = open_with()
    bring(models, make_request(), "small")
    monkeypatch.delitem(BILLIONS, "small")
    bring(models, make_request(), "small")
    assert models.latest == "small"
