from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipelines.card import ModelCard
from pipelines.errors import MissingCapability, UnknownModel, UnsupportedShape, WeightsMissing
from pipelines.holdings import installed, weights_folder
from pipelines.needs import GIB
from pipelines.plan import Device
from pipelines.registry import Registry, family_of, load_registry
from pipelines.shapes import FrameSize
from pipelines.types import ImageCondition, SourceClip, VideoShape
from pipelines.weights import Component
from pipelines.wish import Wish

CARD = """
id: {id}
name: Test
description: A card.
family: ltx
licence: {{id: Apache-2.0, url: https://www.apache.org/licenses/LICENSE-2.0}}
weights: {weights}
shape: {{sizes: [{{width: 64, height: 64}}], fps: 8, frame_stride: 4, min_frames: 5, max_frames: 9,
  pixels_per_token: 32}}
sampling: {{num_inference_steps: 2, guidance_scale: 1.0}}
capabilities: [text]
created: 1
"""
HERE, ELSEWHERE = "{package: pipelines.embedded, revision: '1'}", "{repo: owner/name, revision: abc}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    for name, weights in (("here", HERE), ("elsewhere", ELSEWHERE)):
        (tmp_path / "models" / f"{name}.yaml").write_text(CARD.format(id=name, weights=weights))
    (tmp_path / "aliases.yaml").write_text("sora-2: [elsewhere, here]\nempty: [elsewhere]\n")
    return tmp_path


def test_an_alias_is_the_first_installed_card_of_its_list(folder: Path) -> None:
    registry = load_registry(folder)
    assert registry.find("sora-2").id == "here"
    assert registry.names() == ["sora-2", "empty", "elsewhere", "here"]


@pytest.mark.parametrize("name", ["nonsense", "", "../here"])
def test_a_name_that_nobody_has_is_unknown_and_says_which_would_work(folder: Path, name: str) -> None:
    with pytest.raises(UnknownModel, match=r"Models here: sora-2, here\.$") as caught:
        load_registry(folder).find(name)
    assert caught.value.param == "model"


@pytest.mark.parametrize("name", ["elsewhere", "empty"])
def test_a_known_model_without_weights_says_that_and_where_they_are(folder: Path, name: str) -> None:
    with pytest.raises(WeightsMissing) as caught:
        load_registry(folder).find(name)
    assert caught.value.message.startswith("The weights of elsewhere are not on this machine.")
    assert "owner/name at revision abc" in caught.value.message
    assert caught.value.param == "model"


def test_weights_of_a_repository_that_was_never_fetched_are_missing(folder: Path) -> None:
    card = load_registry(folder).cards["elsewhere"]
    assert not installed(card)
    with pytest.raises(WeightsMissing):
        weights_folder(card)


def test_a_broken_card_is_an_error_at_start_and_not_at_use(folder: Path) -> None:
    (folder / "models" / "here.yaml").write_text("id: here\n")
    with pytest.raises(ValidationError):
        load_registry(folder)


def test_every_shipped_card_names_a_family_that_exists() -> None:
    for card in load_registry().cards.values():
        assert family_of(card).__name__ == "Pipeline"


def test_the_hosted_names_work_out_of_the_box() -> None:
    registry = load_registry()
    assert registry.find("sora-2").id == registry.find("sora-2-pro").id == "homereel-mini"


def licensed(card: ModelCard, name: str, **licence: object) -> ModelCard:
    return card.model_copy(update={"id": name, "licence": card.licence.model_copy(update={"id": name} | licence)})


@pytest.mark.parametrize(
    ("limits", "accepted", "found"),
    [
        ({}, (), "first"),
        ({"excludes": ("EU",)}, (), "second"),
        ({"limit": "large companies pay"}, (), "second"),
        ({"gated": True}, (), "second"),
        ({"attribution": "Somebody"}, (), "first"),
        ({"excludes": ("EU",)}, ("first",), "first"),
        ({"excludes": ("EU",)}, ("other",), "second"),
    ],
)
def test_an_alias_never_leads_to_duties_that_nobody_accepted(
    limits: dict[str, object], accepted: tuple[str, ...], found: str
) -> None:
    mini = load_registry().cards["homereel-mini"]
    cards = {"first": licensed(mini, "first", **limits), "second": licensed(mini, "second")}
    registry = Registry(cards, {"sora-2": ("first", "second")}, frozenset(accepted))
    assert registry.find("sora-2").id == found
    # Whoever names a model has chosen it.
    assert registry.find("first").id == "first"


def test_an_alias_is_the_first_card_that_can_do_what_is_asked_for() -> None:
    mini = load_registry().cards["homereel-mini"]
    words = mini.model_copy(update={"id": "words", "capabilities": mini.capabilities - {"first_frame"}})
    registry = Registry({"words": words, "mini": mini}, {"sora-2": ("words", "mini")})
    picture = (ImageCondition(Path("first.png")),)
    assert registry.choose("sora-2", Wish("a ball"))[0].id == "words"
    assert registry.choose("sora-2", Wish("a ball", conditions=picture))[0].id == mini.id
    with pytest.raises(MissingCapability, match="Models here that can"):
        registry.choose("words", Wish("a ball", conditions=picture))
    with pytest.raises(MissingCapability, match="No model on this machine can"):
        registry.choose("sora-2", Wish("a ball", sound=True))


def in_two_stages(card: ModelCard, name: str) -> ModelCard:
    """Return a card that makes 128x64, and 256x128 in two stages."""
    sizes = (FrameSize(width=128, height=64), FrameSize(width=256, height=128, stages=2))
    changes: dict[str, object] = {
        "id": name,
        "shape": card.shape.model_copy(update={"sizes": sizes}),
        "sampling": card.sampling.model_copy(update={"refine_steps": 3}),
    }
    return card.model_copy(update=changes)


def test_a_card_that_is_here_in_one_stage_makes_what_it_can_and_refuses_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = in_two_stages(load_registry().cards["homereel-mini"], "two")
    registry = Registry({"two": two}, {"sora-2": ("two",)})
    large, wider = Wish("a ball", size=(256, 128)), Wish("a ball", size=(258, 128))
    assert registry.choose("sora-2", large)[1].request.refine_steps == 3
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: not card.shape.has_two_stages)
    for name in ("two", "sora-2"):
        assert registry.find(name) == two.in_one_stage()
        with pytest.raises(UnsupportedShape, match=r"it makes 128x64\. For 256x128, .* homereel pull two") as caught:
            registry.choose(name, large)
        assert caught.value.param == "size"
        # As other models, it brings its largest size to one that it makes neither way.
        made = registry.choose(name, wider)[1]
        assert (made.request.shape.size, made.request.refine_steps) == ("128x64", 0)
    assert "two" in registry.able("text")
    source = SourceClip(Path("a.mp4"), VideoShape(17, 128, 256, two.shape.fps), "extend")
    with pytest.raises(UnsupportedShape) as caught:
        registry.choose("two", Wish("a ball", source=source))
    assert caught.value.param == "video"
    # Edits are made at once wherever the rest is.
    assert registry.choose("two", Wish("a ball", source=replace(source, use="edit")))[1].request.shape.size == "128x64"


def test_an_alias_is_the_first_card_that_fits_the_device() -> None:
    mini = load_registry().cards["homereel-mini"]
    huge = {"transformer": Component(params=10**12, stage="denoise")}
    large = mini.model_copy(update={"id": "large", "weights": mini.weights.model_copy(update={"components": huge})})
    registry = Registry({"large": large, "mini": mini}, {"sora-2": ("large", "mini"), "all": ("large",)})
    device = Device("cpu", "CPU", 8 * GIB, 8 * GIB, 8 * GIB, None, frozenset({"float32"}))
    wish = Wish("a ball")
    assert registry.choose("sora-2", wish, device)[0].id == "homereel-mini"
    assert registry.choose("sora-2", wish)[0].id == "large"
    # What somebody names is what it is, and if nothing fits, making the plan says why.
    assert registry.choose("large", wish, device)[0].id == "large"
    assert registry.choose("all", wish, device)[0].id == "large"


def test_every_card_of_an_alias_exists_and_the_shipped_model_is_last() -> None:
    registry = load_registry()
    for alias, cards in registry.aliases.items():
        assert set(cards) <= set(registry.cards), alias
        assert cards[-1] == "homereel-mini"
