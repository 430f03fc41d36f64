"""A worker in this process, whose models take no time and have room for one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipelines.card import ModelCard
from pipelines.loading import loaded
from pipelines.needs import GIB
from pipelines.plan import Device, MemoryPlan, numbers_of
from pipelines.weights import Component
from server.jobs import WorkerId
from server.residents import Residents, Source
from server.settings import Settings
from server.store import JobStore
from server.worker import Drain, Place, Worker

if TYPE_CHECKING:
    from tests.conftest import Clock, FakePipeline

ANN = WorkerId("cpu-ann")


class Loader:
    """Hands out the fake model under any name, and remembers the names. There is room for one of them at a time."""

    def __init__(self, card: ModelCard, pipeline: FakePipeline) -> None:
        self._card, self._pipeline = card, pipeline
        self.names: list[str] = []
        self.error: Exception | None = None
        self.shares: tuple[float, ...] = ()
        self.params = 100_000_000
        self.source = Source(self.find, self.load, lambda name: cpu(1), release=lambda name: None)

    def find(self, card_id: str) -> ModelCard:
        part = Component(params=self.params, stage="denoise")
        weights = self._card.weights.model_copy(update={"components": {"transformer": part}})
        return self._card.model_copy(update={"id": card_id, "weights": weights})

    def load(self, card: ModelCard, plan: MemoryPlan) -> FakePipeline:
        self.names.append(card.id)
        for share in self.shares:
            loaded(share)
        if self.error is not None:
            raise self.error
        return self._pipeline


def cpu(gib: float) -> Device:
    size = int(gib * GIB)
    return Device("cpu", "a CPU", size, size, size, None, numbers_of(None))


@pytest.fixture
def loader(card: ModelCard, pipeline: FakePipeline) -> Loader:
    return Loader(card, pipeline)


@pytest.fixture
def drain(clock: Clock) -> Drain:
    return Drain(clock)


@pytest.fixture
def models(settings: Settings, loader: Loader, clock: Clock) -> Residents:
    return Residents("cpu", settings, loader.source, clock)


@pytest.fixture
def worker(settings: Settings, store: JobStore, models: Residents, drain: Drain) -> Worker:
    return Worker(Place(ANN, "cpu", 1), settings, store, drain=drain, models=models)
