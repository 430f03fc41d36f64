"""Between tensors of a model and frames of a clip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import BadOutput
from pipelines.types import Frames


def frames_of(video: Tensor) -> Iterator[Frames]:
    """Yield frames ``(1, height, width, 3)`` of a video ``(1, 3, frames, height, width)`` in [-1, 1].

    One at a time: as numbers that compute, a clip takes four to eight times the room of its frames.

    Raises:
        BadOutput: Not all values are finite.
    """
    if not torch.isfinite(video).all():
        raise BadOutput("The frames are not finite: the VAE overflowed. Try a wider dtype.")
    for frame in video[0].movedim(1, 0):
        picture = frame.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        yield np.asarray(picture.movedim(0, -1).cpu().numpy())[None]


def video_of(frames: Frames, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Return ``(1, 3, frames, height, width)`` in [-1, 1] of frames ``(frames, height, width, 3)``."""
    return torch.from_numpy(frames).to(device, dtype).permute(3, 0, 1, 2)[None] / 127.5 - 1


def encoded(vae: Any, frames: Frames, device: torch.device | str) -> Tensor:
    """Return the likeliest latents of frames ``(frames, height, width, 3)``, float32, not normalised.

    Args:
        vae: One that takes colours in [-1, 1].
        frames: What they are of.
        device: Where the VAE is.
    """
    return vae.encode(video_of(frames, device, vae.dtype)).latent_dist.mode().float()


def finite(latents: Tensor) -> Tensor:
    """Return latents as they are.

    Raises:
        BadOutput: Not all values are finite.
    """
    if not torch.isfinite(latents).all():
        raise BadOutput("The latents are not finite: the model overflowed. Try a wider dtype.")
    return latents
