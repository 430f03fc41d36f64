"""Clips longer than the model makes in one go, and clips made from others: what is planned, in frames."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipelines.card import ModelCard, Wish
from pipelines.engine import piece
from pipelines.errors import MissingCapability, UnsupportedOption, UnsupportedShape
from pipelines.registry import Registry, load_registry
from pipelines.types import LAST, GenerationRequest, ImageCondition, SourceClip, VideoShape, Window

CARD = load_registry().cards["homereel-mini"]
RULES = CARD.shape


def source(frames: int = 32, size: tuple[int, int] = (160, 96), fps: int = 8, **changes: Any) -> SourceClip:
    values = {"path": Path("a.mp4"), "shape": VideoShape(frames, size[1], size[0], fps), "use": "extend"} | changes
    return SourceClip(**values)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("before", [0, 1, 3, 5, 8, 9, 16, 960])
def test_windows_add_up_and_are_all_valid(before: int) -> None:
    for wanted in range(1, 161):
        windows = RULES.windows_for(wanted, before=before)
        there = before
        for window in windows:
            assert RULES.frames_for(window.frames) == window.frames
            assert window.overlap <= there
            assert window.overlap == 0 or (window.overlap - 1) % RULES.frame_stride == 0
            assert window.new > 0
            there += window.new
        made = there - before
        assert wanted <= made
        # Nothing is made for nothing, but what a shortest window makes too much.
        assert made - wanted < max(RULES.frame_stride, RULES.min_frames - windows[-1].overlap)


@pytest.mark.parametrize("before", [0, 1, 9, 960])
def test_windows_that_are_alike_are_as_many_and_leave_no_short_one_at_the_end(before: int) -> None:
    for wanted in range(1, 161):
        windows = RULES.windows_for(wanted, before=before, alike=True)
        assert len(windows) == len(RULES.windows_for(wanted, before=before))
        made = sum(window.new for window in windows)
        assert wanted <= made
        assert all(RULES.frames_for(window.frames) == window.frames for window in windows)
        # As far as counts of frames allow: a step of the grid, and what a shortest window makes too much.
        assert made - wanted < max(RULES.frame_stride, RULES.min_frames - windows[-1].overlap)
        assert max(w.frames for w in windows) - windows[-1].frames <= 2 * RULES.frame_stride


def test_a_clip_that_fits_is_made_in_one_go() -> None:
    assert CARD.resolve(Wish("a ball", seconds=4)).request.windows == ()
    assert CARD.resolve(Wish("a ball", seconds=4)).request.pieces == (Window(33),)


@pytest.mark.parametrize(("seconds", "count"), [(5, 2), (8, 3), (12, 4), (16, 5), (20, 7)])
def test_longer_clips_are_made_in_windows_and_say_so(seconds: float, count: int) -> None:
    resolved = CARD.resolve(Wish("a ball", seconds=seconds))
    request = resolved.request
    assert request.delivery.frames == 8 * seconds
    assert request.shape.frames == sum(window.new for window in request.windows) >= request.delivery.frames
    assert len(request.windows) == count
    assert any(f"made in {count} windows" in warning for warning in resolved.warnings)


@pytest.mark.parametrize("seconds", [5, 8, 10, 12, 20])
def test_a_clip_of_several_windows_ends_with_its_picture_and_is_as_long_as_asked_for(seconds: float) -> None:
    card = CARD.model_copy(update={"capabilities": CARD.capabilities | {"last_frame"}})
    ends = (ImageCondition(Path("first.png")), ImageCondition(Path("last.png"), LAST))
    resolved = card.resolve(Wish("a ball", seconds=seconds, conditions=ends))
    request = resolved.request
    assert 0 < request.delivery.frames - 8 * seconds <= RULES.frame_stride
    assert request.delivery.frames == request.shape.frames == sum(window.new for window in request.windows)
    assert any(f"{request.delivery.frames} frames instead of {8 * seconds}" in said for said in resolved.warnings)
    pieces = [piece(request, index) for index in range(len(request.windows))]
    where = [[(c.path.stem, c.frame) for c in one.conditions] for one in pieces]
    assert where == [[("first", 0)], *[[]] * (len(pieces) - 2), [("last", pieces[-1].shape.frames - 1)]]
    # As much time as any other window has: the picture is come to, not jumped to.
    assert request.windows[-1].frames >= max(window.frames for window in request.windows) - RULES.frame_stride


def test_a_picture_ends_an_extension_too() -> None:
    card = CARD.model_copy(update={"capabilities": CARD.capabilities | {"last_frame"}})
    wish = Wish("a ball", seconds=5, source=source(16), conditions=(ImageCondition(Path("last.png"), LAST),))
    request = card.resolve(wish).request
    assert request.delivery.frames == 16 + request.shape.frames
    assert request.conditions[0].frame == request.shape.frames - 1
    assert piece(request, len(request.windows) - 1).conditions[0].frame == request.windows[-1].frames - 1


def test_an_extension_counts_the_source_and_makes_only_what_is_new() -> None:
    request = CARD.resolve(Wish("a ball", seconds=2, source=source(16))).request
    assert (request.kept_frames, request.shape.frames, request.delivery.frames) == (16, 16, 32)
    assert request.windows == (Window(25, 9),)


@pytest.mark.parametrize(
    ("clip", "kept"),
    [
        (source(60, fps=30), 16),
        (source(59, fps=30), 16),
        (source(47, fps=24), 16),
        (source(1, fps=60), 1),
        (source(7, fps=8), 7),
    ],
)
def test_a_source_of_any_rate_keeps_its_length(clip: SourceClip, kept: int) -> None:
    resolved = CARD.resolve(Wish("a ball", seconds=2, source=clip))
    assert resolved.request.kept_frames == kept
    assert resolved.request.delivery.frames == kept + 16
    assert any("frames per second" in warning for warning in resolved.warnings) == (clip.shape.fps != 8)


@pytest.mark.parametrize(
    ("size", "delivered", "native"),
    [
        ((160, 96), "160x96", "160x96"),
        ((1280, 720), "1280x720", "160x96"),
        ((720, 1280), "720x1280", "96x160"),
        ((500, 500), "160x96", "160x96"),
        ((641, 361), "160x96", "160x96"),
        ((32, 48), "96x160", "96x160"),
        ((3840, 2160), "160x96", "160x96"),
    ],
)
@pytest.mark.parametrize("use", ["edit", "extend"])
def test_the_size_follows_the_source_as_far_as_the_model_makes_it(
    use: str, size: tuple[int, int], delivered: str, native: str
) -> None:
    resolved = CARD.resolve(Wish("a ball", source=source(size=size, use=use)))
    assert (resolved.request.delivery.size, resolved.request.shape.size) == (delivered, native)
    width, height = size
    assert any(f"{width}x{height}" in warning for warning in resolved.warnings) == (f"{width}x{height}" != native)


def test_an_edit_is_as_long_as_its_source_in_windows_if_need_be() -> None:
    request = CARD.resolve(Wish("a ball", source=source(100, use="edit"))).request
    assert request.kept_frames == 0
    assert request.delivery.frames == 100 <= request.shape.frames
    assert len(request.windows) == 4
    short = CARD.resolve(Wish("a ball", source=source(5, use="edit"))).request
    assert (short.delivery.frames, short.shape.frames) == (5, 17)


def test_of_a_very_long_source_the_beginning_is_edited() -> None:
    resolved = CARD.resolve(Wish("a ball", source=source(10_000, use="edit")))
    assert resolved.request.delivery.frames == 960
    assert any("first 120 seconds" in warning for warning in resolved.warnings)


def test_how_far_an_edit_goes_is_the_cards_unless_somebody_says() -> None:
    assert CARD.resolve(Wish("a", source=source(use="edit"))).request.source == source(
        use="edit", strength=CARD.sampling.edit_strength
    )
    given = CARD.resolve(Wish("a", source=source(use="edit"), strength=0.25)).request.source
    assert given is not None
    assert given.strength == 0.25


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"source": source(900), "seconds": 8}, "seconds"),
        ({"source": source(16), "seconds": 21}, "seconds"),
        ({"source": source(16), "seconds": 0.5}, "seconds"),
        ({"source": source(use="edit"), "strength": 0}, "strength"),
        ({"source": source(use="edit"), "strength": 1.01}, "strength"),
        ({"source": source(use="edit"), "references": (Path("a.png"),)}, "characters"),
        ({"source": source(use="edit"), "conditions": (ImageCondition(Path("a.png")),)}, "input_reference"),
        ({"references": (Path("a.png"), Path("b.png"))}, "characters"),
    ],
)
def test_what_cannot_be_made_of_a_source_is_refused_by_name(wish: dict[str, Any], param: str) -> None:
    with pytest.raises((UnsupportedShape, UnsupportedOption)) as caught:
        CARD.resolve(Wish("a ball", **wish))
    assert caught.value.param == param
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize(
    ("capability", "wish", "param"),
    [
        ("extend", {"source": source()}, "video"),
        ("edit", {"source": source(use="edit")}, "video"),
        ("references", {"references": (Path("a.png"),)}, "characters"),
        ("first_frame", {"conditions": (ImageCondition(Path("a.png")),)}, "input_reference"),
    ],
)
def test_who_cannot_names_those_who_can(capability: str, wish: dict[str, Any], param: str) -> None:
    without = CARD.model_copy(
        update={"id": "plain", "capabilities": CARD.capabilities - {capability}, "max_references": 0}
    )
    registry = Registry({CARD.id: CARD, "plain": without}, {})
    with pytest.raises(MissingCapability) as caught:
        registry.resolve(without, Wish("a ball", **wish))
    assert (caught.value.param, caught.value.code) == (param, "unsupported_option")
    assert caught.value.message.endswith("Models here that can: homereel-mini.")
    with pytest.raises(MissingCapability, match="No model on this machine can"):
        Registry({"plain": without}, {}).resolve(without, Wish("a ball", **wish))
    assert registry.resolve(CARD, Wish("a ball", **wish)).request


@pytest.mark.parametrize(
    "change", [{"max_references": 0}, {"max_references": 2, "capabilities": ["text"]}, {"shape": {"overlap": 0}}]
)
def test_capabilities_without_what_they_need_are_an_error(change: dict[str, Any]) -> None:
    raw = CARD.model_dump(mode="json")
    if "shape" in change:
        change = {"shape": raw["shape"] | change["shape"]}
    with pytest.raises(ValidationError):
        ModelCard.model_validate(raw | change)


@pytest.mark.parametrize("overlap", [7, 17, 21])
def test_an_overlap_off_the_frame_grid_or_without_room_is_an_error(overlap: int) -> None:
    raw = CARD.model_dump(mode="json")
    raw["shape"]["overlap"] = overlap
    with pytest.raises(ValidationError):
        ModelCard.model_validate(raw)


def test_every_window_has_noise_of_its_own_and_its_share_of_the_pictures() -> None:
    pictures = tuple(ImageCondition(Path(f"{frame}.png"), frame) for frame in (0, 32, 33, 64))
    request = CARD.resolve(Wish("a ball", seconds=8, seed=5)).request
    request = replace(request, conditions=pictures)
    pieces = [piece(request, index) for index in range(len(request.windows))]
    assert [p.shape.frames for p in pieces] == [33, 33, 17]
    assert len({p.seed for p in pieces}) == 3
    assert pieces[0].seed == 5
    assert [[(c.path.stem, c.frame) for c in p.conditions] for p in pieces] == [
        [("0", 0), ("32", 32)],
        [("33", 9)],
        [("64", 16)],
    ]
    assert piece(request, 1) == pieces[1]
    assert piece(replace(request, seed=6), 1).seed != pieces[1].seed


def test_a_request_survives_json() -> None:
    adapter = TypeAdapter(GenerationRequest)
    wish = Wish("a ball", seconds=20, source=source(prompt="a cube"), references=(Path("/in/mossy.png"),))
    request = CARD.resolve(wish).request
    assert adapter.validate_json(adapter.dump_json(request)) == request
    # Rows from before there were windows.
    old = adapter.dump_python(CARD.resolve(Wish("a ball")).request, mode="json")
    del old["windows"]
    assert adapter.validate_python(old).pieces == (Window(33),)


def test_tokens_are_counted_in_the_models_patches() -> None:
    assert RULES.tokens(VideoShape(33, 96, 160, 8)) == 9 * 3 * 5
    assert RULES.tokens(VideoShape(1, 32, 32, 8)) == 1
