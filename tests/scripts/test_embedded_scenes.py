"""The training data of the embedded model: what is drawn, what it is called, and the judge that reads it back."""

import random

import pytest
import torch

from scripts.embedded.captions import caption, drop
from scripts.embedded.judge import SLOT_ORDER, judge, score
from scripts.embedded.scenes import (
    LANDSCAPE,
    MOTIONS,
    PORTRAIT,
    SLOTS,
    Scenes,
    draw,
    held_out,
    sample_scenes,
    subject_path,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_training_never_sees_a_held_out_combination() -> None:
    assert not held_out(sample_scenes(500, generator()).stacked()).any()
    assert held_out(sample_scenes(500, generator(), test=True).stacked()).all()


def test_every_value_of_every_slot_is_held_out_somewhere_and_drawn_somewhere() -> None:
    for test in (False, True):
        values = sample_scenes(2000, generator(), test=test).stacked()
        for column, names in enumerate(SLOTS.values()):
            assert len(values[:, column].unique()) == len(names)


@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT])
def test_clips_are_pictures_and_the_generator_decides_them(size: tuple[int, int]) -> None:
    scenes = sample_scenes(3, generator())
    first, again, other = (draw(scenes, 9, size, generator(seed)) for seed in (1, 1, 2))
    assert first.shape == (3, 3, 9, *size)
    assert 0 <= first.min() < first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_later_start_shows_the_same_clip_later() -> None:
    scenes = sample_scenes(2, generator())
    whole = draw(scenes, 17, LANDSCAPE, generator(3))
    tail = draw(scenes, 9, LANDSCAPE, generator(3), start=8)
    assert torch.allclose(whole[:, :, 8:], tail, atol=1e-5)


def test_the_start_does_not_give_the_direction_away() -> None:
    time = torch.zeros(1)
    starts = []
    for motion in ("left", "right", "up", "down", "still"):
        index = torch.full((400,), MOTIONS.index(motion))
        starts.append(subject_path(index, time, LANDSCAPE, generator(1))[:, 0].mean(0))
    spread = torch.stack(starts)
    assert (spread.amax(0) - spread.amin(0)).max() < 0.5


@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT])
def test_the_judge_reads_drawn_clips_right(size: tuple[int, int]) -> None:
    scenes = sample_scenes(16, generator(9), test=True)
    scores = score(judge(draw(scenes, 33, size, generator(9))), scenes.stacked())
    assert {slot: value for slot, value in scores.items() if value < 0.97 and slot != "motion"} == {}


def test_the_judge_does_not_read_what_is_not_there() -> None:
    noise = torch.rand(4, 3, 17, *LANDSCAPE, generator=generator())
    empty = torch.full((2, 3, 17, *LANDSCAPE), 0.6)
    assert (judge(empty)[:, :3] == -1).all()
    wanted = sample_scenes(4, generator(2)).stacked()
    assert score(judge(noise), wanted)["shape"] < 1


def test_the_score_counts_each_slot_alone() -> None:
    wanted = sample_scenes(50, generator()).stacked()
    found = wanted.clone()
    found[:, SLOT_ORDER.index("colour")] = (found[:, 1] + 1) % 8
    scores = score(found, wanted)
    assert scores.pop("colour") == 0
    assert set(scores.values()) == {1.0}


def test_captions_name_the_slots_and_leave_open_what_is_open() -> None:
    rng = random.Random(0)
    values = {"shape": "star", "colour": None, "motion": "up", "environment": None, "camera": None, "lighting": "night"}
    texts = {caption(values, rng) for _ in range(200)}
    assert len(texts) > 150
    assert all("star" in text for text in texts)
    assert not any(word in text for text in texts for word in ("red", "blue", "snow", "pan"))


def test_an_empty_scene_has_an_empty_or_neutral_caption() -> None:
    rng = random.Random(1)
    texts = [caption(dict.fromkeys(SLOTS), rng) for _ in range(100)]
    assert "" in texts


def test_slots_are_left_open_at_the_same_rate() -> None:
    rng = random.Random(2)
    counts = dict.fromkeys(SLOTS, 0)
    for _ in range(2000):
        for slot, value in drop([0] * len(SLOTS), rng, open_rate=0.2, empty_rate=0.1).items():
            counts[slot] += value is None
    assert all(count == pytest.approx(2000 * 0.28, rel=0.12) for count in counts.values())


def test_scenes_survive_stacking() -> None:
    scenes = sample_scenes(5, generator())
    assert torch.equal(Scenes.of(scenes.stacked()).colour, scenes.colour)
    assert len(scenes) == 5
