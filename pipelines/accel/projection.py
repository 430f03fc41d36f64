"""A cheap look at latents: the linear map that comes closest to a VAE's decoder, fitted to the decoder itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.types import Frames

# Pixels of the picture per latent and side.
SIDE = 8
# Latents to fit to: a decoder with 128 channels wants more than 128 of them, and sees each beside others.
FRAMES, LATENT_SIDE = 5, 8


@dataclass(frozen=True)
class Projection:
    """From a latent to its ``stride`` frames of ``SIDE`` x ``SIDE`` pixels, RGB in [-1, 1].

    Attributes:
        weight: ``(channels + 1, stride * SIDE * SIDE * 3)``; the last row is what an empty latent shows.
        stride: Frames per latent.
    """

    weight: Tensor
    stride: int

    @classmethod
    def fitted(cls, decode: Callable[[Tensor], Tensor], channels: int, stride: int) -> Projection:
        """Fit to what a decoder makes of chance.

        Args:
            decode: From normalised latents ``(1, channels, f, h, w)`` to frames ``(1, 3, (f-1) * stride + 1, H, W)``
                in [-1, 1], on whichever device; both float32.
            channels: Of the latents.
            stride: Frames per latent.
        """
        generator = torch.Generator().manual_seed(0)
        # Half the usual spread: closer to where a decoder is linear.
        latents = 0.5 * torch.randn(1, channels, FRAMES, LATENT_SIDE, LATENT_SIDE, generator=generator)
        frames = decode(latents)[0].float().cpu()
        small = torch.nn.functional.adaptive_avg_pool2d(frames, LATENT_SIDE * SIDE)
        # The first latent makes one frame, not ``stride``; it follows the others.
        blocks = small[:, 1:].unflatten(3, (LATENT_SIDE, SIDE)).unflatten(2, (LATENT_SIDE, SIDE))
        blocks = blocks.unflatten(1, (FRAMES - 1, stride)).permute(1, 3, 5, 2, 4, 6, 0).flatten(3).flatten(0, 2)
        rows = _with_one(latents[0, :, 1:].permute(1, 2, 3, 0).flatten(0, 2))
        ridge = 2.5 * torch.eye(channels + 1)
        return cls(torch.linalg.solve(rows.T @ rows + ridge, rows.T @ blocks), stride)

    def paint(self, latents: Tensor) -> Frames:
        """Return ``((f-1) * stride + 1, SIDE * h, SIDE * w, 3)`` of normalised latents ``(channels, f, h, w)``."""
        _, count, height, width = latents.shape
        rows = _with_one(latents.float().cpu().permute(1, 2, 3, 0).flatten(0, 2))
        blocks = (rows @ self.weight).view(count, height, width, self.stride, SIDE, SIDE, 3)
        frames = blocks.permute(0, 3, 1, 4, 2, 5, 6).reshape(count * self.stride, height * SIDE, width * SIDE, 3)
        # Of the first latent's frames, the last is the one that it stands for.
        shown = frames[self.stride - 1 :].add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return np.asarray(shown.numpy())


def _with_one(rows: Tensor) -> Tensor:
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
