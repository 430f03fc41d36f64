"""Looks at a clip while it forms, for a few multiplications each."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from pipelines.accel import projection
from pipelines.accel.projection import Projection
from pipelines.types import Frames

# Of pictures that move: with 128 channels, one clip leaves too much unseen.
_CLIPS = 3


class Sketcher:
    """Paints noisy latents. The map from latents to pixels is fitted to the decoder when it is first needed."""

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        encode: Callable[[Frames], Tensor],
        stride: int,
        side: int,
    ) -> None:
        """Take what is needed to fit the map: to pictures, since of chance a decoder makes grey.

        Args:
            decode: See ``Projection.fitted``.
            encode: From frames ``(f, h, w, 3)`` to normalised latents ``(1, channels, f, h, w)``.
            stride: Frames per latent.
            side: Pixels per latent and side.
        """
        self._decode, self._encode, self._stride, self._side = decode, encode, stride, side
        self._projection: Projection | None = None
        self._fitting = Lock()

    @torch.no_grad()
    def fit(self) -> None:
        """Fit the map, unless it is; call it while the decoder is at hand."""
        with self._fitting:
            if self._projection is None:
                self._projection = Projection.fitted(self._decode, self._examples(), self._stride)

    def _examples(self) -> list[Tensor]:
        frames, side = (projection.FRAMES - 1) * self._stride + 1, projection.LATENT_SIDE * self._side
        return [self._encode(projection.footage(frames, side, seed)) for seed in range(_CLIPS)]

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
