"""What families that make pictures and sound in one loop have in common."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor
from typing_extensions import override

from pipelines.accel.hosted import HostedPipeline
from pipelines.accel.pixels import finite
from pipelines.accel.states import Frozen, freeze, thaw
from pipelines.types import Audio

Conditioning = TypeVar("Conditioning")


class Made(NamedTuple):
    """Latents of pictures and sound, each as its decoder takes them.

    Attributes:
        video: ``(1, channels, latent frames, latent height, latent width)``.
        audio: As the family says.
    """

    video: Tensor
    audio: Tensor


class SoundingPipeline(HostedPipeline[Conditioning, Made]):
    """A pipeline whose latents are those of pictures and sound."""

    @override
    def freeze(self, latents: Made) -> Frozen:
        return freeze(list(latents))

    @override
    def thaw(self, content: bytes) -> Made:
        return Made(*thaw(content, self._host.plan.device))


def sound_of(wave: Tensor, rate: int, seconds: float) -> Audio:
    """Return a wave ``(channels, samples)``, cut or padded with silence to exactly so many seconds.

    Raises:
        BadOutput: Not all values are finite.
    """
    samples = finite(wave).float().clamp(-1, 1).cpu().numpy()
    # Latents of sound stand for whole fractions of a second, which a clip's length need not be.
    wanted = round(seconds * rate)
    fitted = np.pad(samples[:, :wanted], ((0, 0), (0, max(0, wanted - samples.shape[1]))))
    return Audio(np.asarray(fitted, dtype=np.float32), rate)
