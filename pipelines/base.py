"""What every model family implements: the stages of making a clip, on one device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from pipelines.card import ModelCard
from pipelines.plan import MemoryPlan
from pipelines.types import Audio, Frames, GenerationRequest, Given, OnStep

Conditioning = TypeVar("Conditioning")
Latents = TypeVar("Latents")


class VideoPipeline(ABC, Generic[Conditioning, Latents]):
    """A loaded model on one device. Not thread-safe: one clip at a time.

    The stages are separate so that the text encoder can leave the device before the denoiser needs it, and so
    that finished latents survive a decode that fails. What passes between them is the family's own business.
    """

    @classmethod
    @abstractmethod
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> VideoPipeline[Conditioning, Latents]:
        """Load the model from a folder in the published diffusers layout.

        Args:
            card: The model's card.
            weights: Folder with ``model_index.json``.
            plan: How it is to run.

        Raises:
            WeightsMissing: A part of the checkpoint is not there or cannot be read.
            OutOfMemory: The device cannot hold it.
        """

    def adopt(self, plan: MemoryPlan) -> None:
        """Run the next clip by another plan of the same placement."""
        del plan

    def heed(self, ask: Callable[[], None] | None) -> None:
        """Have ``ask`` called again and again inside the stages; what it raises ends the clip. None ends that."""
        del ask

    @abstractmethod
    def encode(self, request: GenerationRequest) -> Conditioning:
        """Turn words and pictures into what the denoiser attends to, once for all windows.

        Raises:
            InvalidImage: A condition's picture cannot be read.
        """

    @abstractmethod
    def denoise(self, request: GenerationRequest, conditioning: Conditioning, given: Given, on_step: OnStep) -> Latents:
        """Sample the latents of one window, ``request.shape`` being the window's.

        Args:
            request: What to make; ``conditions`` and ``seed`` are the window's.
            conditioning: What ``encode`` made of the whole request, whose pictures the first window passes through.
            given: Frames that the window begins with or makes anew.
            on_step: Called after every step; may raise ``Cancelled``.

        Raises:
            BadOutput: The latents are not finite.
        """

    @abstractmethod
    def decode(self, request: GenerationRequest, latents: Latents) -> Iterator[Frames]:
        """Yield RGB uint8 chunks ``(f, height, width, 3)`` in order, ``request.shape.frames`` with the given ones."""

    def freeze(self, latents: Latents) -> Callable[[], bytes] | None:
        """Copy latents; what is returned makes bytes of the copy, in whichever thread. None keeps nothing."""
        del latents
        return None

    def thaw(self, content: bytes) -> Latents:
        """Return the latents that ``freeze`` made bytes of."""
        raise NotImplementedError

    def audio(self, request: GenerationRequest, latents: Latents) -> Audio | None:
        """Return the clip's sound, or None if the model makes none."""
        del request, latents
        return None

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, str]:
        """What has to be the same for the same seed to give the same frames: versions, dtype, device."""

    @property
    def peak_memory_bytes(self) -> int | None:
        """Highest memory of the device while the last clip was made; None where that is the process's own memory."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Free the device. The pipeline cannot be used afterwards."""
