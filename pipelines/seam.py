"""Where a window goes on from frames that are there already: no frame twice, none missing, and no jump.

A model sees the given frames through its VAE and paints what follows from noise, so the first new frame is a little
off: its hills stand a pixel higher, its ground is a shade darker. Had the clip simply gone on, that frame would be the
last given one and one step of motion. The difference between the two is taken from the first new frame at once and from
those after it less and less, and sooner where something else has come into view, so that nothing leaves a ghost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from pipelines.types import Frames

Picture = npt.NDArray[np.float32]

# Frames over which the difference fades.
FADE = 12
# Where a picture has changed by this much, out of 255, since the seam, only a third of the difference is left.
CHANGE = 16.0


def continued(decoded: Iterator[Frames], before: Frames | None) -> Iterator[Frames]:
    """Yield the new frames of a window one by one, as chunks ``(1, height, width, 3)``.

    Args:
        decoded: All frames of the window, those of ``before`` first.
        before: The frames that the window goes on from, or None for a window that begins a clip: all are new then.
    """
    if before is None:
        yield from decoded
        return
    new = islice((frame.astype(np.float32) for chunk in decoded for frame in chunk), len(before), None)
    opening = list(islice(new, 2))
    if not opening:
        return
    first = opening[0]
    difference = before[-1] + _step(before, opening) - first
    for index, frame in enumerate(chain(opening, new)):
        share = max(0.0, 1 - index / FADE) * np.exp(-_blurred(np.abs(frame - first).mean(2)) / CHANGE)
        yield (frame + share[..., None] * difference).round().clip(0, 255).astype(np.uint8)[None]


def _step(before: Frames, opening: list[Picture]) -> Picture:
    """Return what a step of motion changes: what the model's own second frame does, no faster than the clip moved."""
    step = opening[-1] - opening[0]
    if len(before) > 1:
        pace = float(np.median(np.abs(np.diff(before.astype(np.float32), axis=0)).mean((1, 2, 3))))
        step *= min(1.0, pace / max(float(np.abs(step).mean()), 1e-6))
    return step


def _blurred(picture: Picture) -> Picture:
    """Return the mean of each pixel's 5x5 neighbourhood."""
    wide = np.pad(picture, 2, mode="edge")
    rows = sum(wide[i : i + picture.shape[0]] for i in range(5))
    return sum(rows[:, i : i + picture.shape[1]] for i in range(5)) / np.float32(25)
