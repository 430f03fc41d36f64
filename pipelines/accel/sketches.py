"""Looks at a clip while it forms, for a few multiplications each."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from pipelines.accel.projection import Projection
from pipelines.types import Frames


class Sketcher:
    """Paints noisy latents. The map from latents to pixels is fitted to the decoder when it is first needed."""

    def __init__(self, decode: Callable[[Tensor], Tensor], channels: int, stride: int) -> None:
        """Take what ``Projection.fitted`` takes."""
        self._decode, self._channels, self._stride = decode, channels, stride
        self._projection: Projection | None = None
        self._fitting = Lock()

    @torch.no_grad()
    def fit(self) -> None:
        """Fit the map, unless it is; call it while the decoder is at hand."""
        with self._fitting:
            if self._projection is None:
                self._projection = Projection.fitted(self._decode, self._channels, self._stride)

    @torch.no_grad()
    def paint(
        self, latents: Tensor, level: float, earlier: Tensor | None = None, earlier_level: float = 1.0
    ) -> Frames | None:
        """Return frames ``(f, height, width, 3)`` of normalised latents ``(1, channels, f, h, w)``.

        Args:
            latents: What there is.
            level: Its noise level, 0 for none.
            earlier: The state at a higher level, along whose line to here the noise is taken off; None paints nothing
                unless there is no noise.
            earlier_level: The noise level of that.
        """
        if level > 0:
            if earlier is None:
                return None
            latents = latents - level * (latents - earlier) / (level - earlier_level)
        self.fit()
        assert self._projection is not None  # noqa: S101 - narrows the type
        return self._projection.paint(latents[0])
