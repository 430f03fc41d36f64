"""Where new frames follow old ones: exact counts, no jump, and nothing left of the mending after a while."""

from collections.abc import Iterator

import numpy as np
import pytest

from pipelines.seam import FADE, continued
from pipelines.types import Frames


def scene(frames: int, *, start: int = 0, shift: float = 0.0, brightness: float = 0.0) -> Frames:
    """A square that moves 2 pixels a frame over a striped ground; ``shift`` moves the stripes, in pixels."""
    columns = np.arange(64)
    stripes = 110 + 50 * np.sin(2 * np.pi * (columns + shift) / 32) + brightness
    clip = np.repeat(np.broadcast_to(stripes, (48, 64))[None, ..., None], frames, 0).repeat(3, -1)
    for index in range(frames):
        left = 6 + 2 * (start + index)
        clip[index, 20:32, left : left + 10] = (230, 30, 30)
    return clip.clip(0, 255).round().astype(np.uint8)


def in_chunks(frames: Frames, size: int) -> Iterator[Frames]:
    for start in range(0, len(frames), size):
        yield frames[start : start + size]


def joined(before: Frames, decoded: Frames, size: int = 1) -> Frames:
    return np.concatenate([before, *continued(in_chunks(decoded, size), before)])


def steps(frames: Frames) -> np.ndarray:
    return np.abs(np.diff(frames.astype(float), axis=0)).mean((1, 2, 3))


@pytest.mark.parametrize("size", [1, 4, 100])
@pytest.mark.parametrize("new", [1, 2, 3, 8, 24])
@pytest.mark.parametrize("overlap", [1, 5, 9])
def test_no_frame_is_repeated_and_none_is_missing(overlap: int, new: int, size: int) -> None:
    """If the model goes on without a fault, the clip is the one that it goes on with."""
    whole = scene(overlap + new)
    found = joined(whole[:overlap], whole, size)
    assert found.shape == whole.shape
    # From a single frame to a single frame, nobody can tell motion from a fault.
    assert np.abs(found.astype(int) - whole).mean() < 0.5 or overlap == new == 1


def test_a_window_that_begins_a_clip_is_left_as_it_is() -> None:
    whole = scene(9)
    assert (np.concatenate(list(continued(in_chunks(whole, 4), None))) == whole).all()


@pytest.mark.parametrize("fault", [{"shift": 5.0}, {"brightness": 12.0}, {"shift": -3.0, "brightness": -9.0}])
def test_a_ground_that_the_model_has_painted_anew_does_not_jump(fault: dict[str, float]) -> None:
    before = scene(16)
    decoded = np.concatenate([before[-9:], scene(24, start=16, **fault)])
    raw, mended = np.concatenate([before, decoded[9:]]), joined(before[-9:], decoded)
    mended = np.concatenate([before[:-9], mended])
    inside = np.median(np.delete(steps(mended), 15))
    assert steps(raw)[15] > 2 * inside
    assert steps(mended)[15] <= 1.2 * inside
    # The jump is spread, not moved: no later step is nearly as large.
    assert steps(mended)[16:].max() < steps(raw)[15] / 2
    assert (mended[16 + FADE :] == raw[16 + FADE :]).all()


def test_what_moves_leaves_no_ghost() -> None:
    """A subject that the model has put 4 pixels further is not seen twice once it has moved on."""
    before = scene(16)
    decoded = np.concatenate([before[-9:], scene(24, start=18)])
    mended = np.concatenate(list(continued(in_chunks(decoded, 1), before[-9:])))
    where = mended[FADE // 2, 26, :, 0].astype(int) - mended[FADE // 2, 26, :, 1]
    found = np.flatnonzero(where > 60)
    assert len(found) <= 14
    assert (np.diff(found) == 1).all()


def test_a_still_clip_stays_still() -> None:
    before = np.repeat(scene(1), 9, 0)
    decoded = np.concatenate([before, np.repeat(scene(1, brightness=20), 16, 0)])
    assert steps(joined(before, decoded)).max() <= 20 / FADE + 1
