"""Where a window goes on from frames that are there already: no frame twice, and no jump.

The model sees those frames through its VAE, which does not return them to the bit: a first new frame that fits the
model's own reconstruction differs from the true last frame by what the VAE lost. That difference is known, since the
window's decoded frames begin with the reconstruction, so it is added to the first new frames and fades out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipelines.types import Frames

FADE = 8


def continued(decoded: Iterator[Frames], before: Frames | None) -> Iterator[Frames]:
    """Yield the new frames of a window one by one, as chunks ``(1, height, width, 3)``.

    Args:
        decoded: All frames of the window, those of ``before`` first.
        before: The frames that the window went on from, or None for a window that begins a clip: all are new then.
    """
    if before is None:
        yield from decoded
        return
    lost: npt.NDArray[np.float32] | None = None
    for index, frame in enumerate(frame for chunk in decoded for frame in chunk):
        new = index - len(before)
        if new == -1:
            lost = before[-1].astype(np.float32) - frame.astype(np.float32)
        elif new >= 0 and lost is not None and new < FADE:
            share = 1 - (new + 1) / (FADE + 1)
            yield (frame + share * lost).round().clip(0, 255).astype(np.uint8)[None]
        elif new >= 0:
            yield frame[None]
