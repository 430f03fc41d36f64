"""A cheap look at latents: the linear map that comes closest to a VAE's decoder, fitted to the decoder itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.types import Frames

# Pixels of the picture per latent and side.
SIDE = 8
# Latents to fit to: a decoder with 128 channels wants more than 128 of them, and sees each beside others.
FRAMES, LATENT_SIDE = 5, 8
DISCS = 24


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
    def fitted(cls, decode: Callable[[Tensor], Tensor], latents: Sequence[Tensor], stride: int) -> Projection:
        """Fit to what a decoder makes of some latents.

        Args:
            decode: From normalised latents ``(1, channels, f, h, w)`` to frames ``(1, 3, (f-1) * stride + 1, H, W)``
                in [-1, 1], on whichever device; both float32.
            latents: What to fit to, ``(1, channels, FRAMES, LATENT_SIDE, LATENT_SIDE)`` each.
            stride: Frames per latent.
        """
        pairs = [cls._rows(decode, one.float().cpu(), stride) for one in latents]
        rows, blocks = (torch.cat(part) for part in zip(*pairs, strict=True))
        ridge = 2.5 * torch.eye(rows.shape[1])
        return cls(torch.linalg.solve(rows.T @ rows + ridge, rows.T @ blocks), stride)

    @staticmethod
    def _rows(decode: Callable[[Tensor], Tensor], latents: Tensor, stride: int) -> tuple[Tensor, Tensor]:
        """Return the latents, each with a one, and the pixels that each stands for."""
        frames = decode(latents)[0].float().cpu()
        small = torch.nn.functional.adaptive_avg_pool2d(frames, LATENT_SIDE * SIDE)
        # The first latent makes one frame, not ``stride``; it follows the others.
        blocks = small[:, 1:].unflatten(3, (LATENT_SIDE, SIDE)).unflatten(2, (LATENT_SIDE, SIDE))
        blocks = blocks.unflatten(1, (FRAMES - 1, stride)).permute(1, 3, 5, 2, 4, 6, 0).flatten(3).flatten(0, 2)
        return _with_one(latents[0, :, 1:].permute(1, 2, 3, 0).flatten(0, 2)), blocks

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


def footage(frames: int, side: int, seed: int) -> Frames:
    """Return a clip ``(frames, side, side, 3)`` of soft colours that change, and discs of hard ones that move on it."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    soft = torch.nn.functional.interpolate(some(1, 3, 2, 4, 4), (frames, side, side), mode="trilinear")[0]
    time = torch.arange(frames).view(-1, 1, 1) / frames
    y, x = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    for _ in range(DISCS):
        colour, radius = some(3, 1, 1, 1), 0.04 + 0.08 * some(1)
        (from_y, from_x), (by_y, by_x) = some(2), some(2) - 0.5
        inside = (y - from_y - by_y * time) ** 2 + (x - from_x - by_x * time) ** 2 < radius**2
        soft = torch.where(inside, colour, soft)
    return np.asarray((255 * soft).round().to(torch.uint8).permute(1, 2, 3, 0).numpy())
