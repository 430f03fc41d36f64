"""What families on a host have in common: all that is answered by where the parts are, not by what they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from typing_extensions import override

from pipelines.accel.host import Host
from pipelines.accel.states import Frozen, freeze, thaw
from pipelines.base import VideoPipeline
from pipelines.plan import MemoryPlan

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
