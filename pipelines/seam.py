"""Where a window goes on from frames that are there already: no frame twice, none missing, and no jump.

A model sees the given frames through its VAE and paints what follows from noise, so the first new frame is a little
off: its hills stand a pixel higher, its ground is a shade darker. Had the clip simply gone on, that frame would be the
last given one and one step of motion. The difference between the two is taken from the first new frame and, less and
less, from those after it: a shade over a dozen frames, where nobody sees it go; a detail that is plainly somewhere else
at once, since half a subject in two places would be a ghost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np
import numpy.typing as npt

from pipelines.types import Frames

Picture = npt.NDArray[np.float32]

# Frames over which a difference fades, and how large a detail is, out of 255, that does so in half the time.
FADE, PLAIN = 12, 12.0


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
    difference = _difference(before, opening)
    shade = np.stack(
        [_blurred(channel, min(channel.shape) // 5) for channel in np.moveaxis(difference, -1, 0)], axis=-1
    )
    detail = difference - shade
    lasts = FADE / (1 + _blurred(np.abs(detail).mean(2), 2) / PLAIN)
    for index, frame in enumerate(chain(opening, new)):
        added = max(0.0, 1 - index / FADE) * shade + (1 - index / lasts).clip(0, 1)[..., None] * detail
        yield (frame + added).round().clip(0, 255).astype(np.uint8)[None]


def _difference(before: Frames, opening: list[Picture]) -> Picture:
    """Return what to add to the first new frame; nothing if it follows as closely as frames of this clip do."""
    last = before[-1].astype(np.float32)
    # The model's own second frame shows what a step of motion changes; the clip may not suddenly move faster.
    step = opening[-1] - opening[0]
    pace = float(np.abs(step).mean())
    if len(before) > 1:
        pace = float(np.median(np.abs(np.diff(before.astype(np.float32), axis=0)).mean((1, 2, 3))))
        step *= min(1.0, pace / max(float(np.abs(step).mean()), 1e-6))
    jump = float(np.abs(opening[0] - last).mean())
    needed = min(1.0, max(0.0, jump - pace) / max(pace, 1.0))
    return np.float32(needed) * (last + step - opening[0])


def _blurred(picture: Picture, radius: int) -> Picture:
    """Return the mean of each pixel's square neighbourhood in ``(height, width)``, ``radius`` pixels to each side."""
    side = 2 * radius + 1
    wide = np.pad(picture, radius, mode="edge").astype(np.float64)
    sums = np.pad(wide.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return (total / side**2).astype(np.float32)
