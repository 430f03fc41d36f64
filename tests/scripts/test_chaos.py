"""A short storm over real processes and the real model; the long one is ``python -m scripts.chaos``."""

from __future__ import annotations

from pathlib import Path

from scripts import chaos


def test_a_short_storm_loses_nothing(tmp_path: Path) -> None:
    passed, customer, found = chaos.run(tmp_path, kills=20, seed=7, kinds=2, calm=0.2)
    assert passed.total == 20
    assert found.are_good, chaos.table(passed, customer, found)


def test_whatever_goes_wrong_is_told() -> None:
    good = chaos.Findings(accepted=2, completed=2)
    assert good.are_good
    for wrong in (
        {"lost": ["video_1"]},
        {"duplicates": ["video_1"]},
        {"half_served": ["video_1"]},
        {"unequal": ["video_1"]},
        {"left_over": [".x.partial"]},
        {"database": "malformed"},
        {"completed": 1},
        {"accepted": 0, "completed": 0},
    ):
        assert not chaos.Findings(**{"accepted": 2, "completed": 2, **wrong}).are_good  # pyright: ignore[reportArgumentType]
