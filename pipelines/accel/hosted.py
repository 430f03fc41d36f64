"""What families on a host have in common: all that is answered by where the parts are, not by what they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from pipelines.accel.host import Host
from pipelines.accel.pixels import encoded, frames_of
from pipelines.accel.states import Frozen, freeze, thaw
from pipelines.base import VideoPipeline
from pipelines.plan import MemoryPlan
from pipelines.types import Frames, GenerationRequest

Conditioning = TypeVar("Conditioning")
Latents = TypeVar("Latents")


class HostedPipeline(VideoPipeline[Conditioning, Latents]):
    """A pipeline whose parts a host moves. Its latents are a tensor, unless it says how others become bytes."""

    _host: Host[Any]

    @property
    @override
    def facts(self) -> Mapping[str, str]:
        return self._host.facts

    @override
    def adopt(self, plan: MemoryPlan) -> None:
        self._host.adopt(plan)

    @override
    def heed(self, ask: Callable[[], None] | None) -> None:
        self._host.interruption.heed(ask)

    @override
    def freeze(self, latents: Latents) -> Frozen:
        return freeze(latents)

    @override
    def thaw(self, content: bytes) -> Latents:
        return thaw(content, self._host.plan.device)

    @property
    @override
    def peak_memory_bytes(self) -> int | None:
        return self._host.peak_memory_bytes

    @override
    def close(self) -> None:
        self._host.close()


class PlainlyScaled(HostedPipeline[Conditioning, Latents]):
    """Has a VAE whose latents one factor normalises."""

    def _encoded(self, frames: Frames) -> Tensor:
        """Return normalised latents ``(1, channels, f, h, w)``, float32, of ``(frames, height, width, 3)``."""
        vae = self._host.pipe.vae
        return encoded(vae, frames, self._host.plan.device) * vae.config.scaling_factor

    def _painted(self, latents: Tensor) -> Tensor:
        """Return frames ``(1, 3, frames, height, width)`` in about [-1, 1] of latents ``(1, channels, f, h, w)``."""
        vae = self._host.pipe.vae
        raw = latents.to(self._host.plan.device, vae.dtype) / vae.config.scaling_factor
        return vae.decode(raw, return_dict=False)[0]


class DecodedAtOnce(PlainlyScaled[Conditioning, Tensor]):
    """Has its VAE decode a window in one call."""

    @override
    @torch.no_grad()
    def decode(self, request: GenerationRequest, latents: Tensor) -> Iterator[Frames]:
        with self._host.stage(f"Decoding {request.shape.size}", "vae"):
            video = self._painted(self._clip(request, latents))
        yield from frames_of(video)

    def _clip(self, request: GenerationRequest, latents: Tensor) -> Tensor:
        """Return what ``denoise`` returned as ``(1, channels, f, h, w)``."""
        del request
        return latents
