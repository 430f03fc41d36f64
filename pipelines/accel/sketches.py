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
        channels: int,
        stride: int,
        encode: tuple[Callable[[Frames], Tensor], int] | None = None,
    ) -> None:
        """Take what is needed to fit the map.

        Args:
            decode: See ``Projection.fitted``.
            channels: Of the latents.
            stride: Frames per latent.
            encode: From frames ``(f, h, w, 3)`` to normalised latents ``(1, channels, f, h, w)``, and pixels per
                latent and side. With it the map is fitted to pictures: a decoder may make grey of chance.
        """
        self._decode, self._channels, self._stride, self._encode = decode, channels, stride, encode
        self._projection: Projection | None = None
        self._fitting = Lock()

    @torch.no_grad()
    def fit(self) -> None:
        """Fit the map, unless it is; call it while the decoder is at hand."""
        with self._fitting:
            if self._projection is None:
                self._projection = Projection.fitted(self._decode, self._examples(), self._stride)

    def _examples(self) -> list[Tensor]:
        if self._encode is None:
            return projection.by_chance(self._channels)
        encode, pixels = self._encode
        frames, side = (projection.FRAMES - 1) * self._stride + 1, projection.LATENT_SIDE * pixels
        return [encode(projection.footage(frames, side, seed)) for seed in range(_CLIPS)]

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
