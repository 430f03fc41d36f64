"""What tests share: settings in a temporary folder, a store with a clock, jobs, and a model that takes no time."""

from __future__ import annotations

import gc
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from pipelines.base import VideoPipeline
from pipelines.card import ModelCard
from pipelines.plan import Device, MemoryPlan, numbers_of
from pipelines.registry import load_registry
from pipelines.types import Frames, GenerationRequest, Given, ImageCondition, OnStep, Step, VideoShape
from server import database
from server.assets import AssetStore
from server.jobs import Job, JobId, JobStatus, new_job_id
from server.residents import Residents, Source
from server.settings import Settings
from server.store import JobStore


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look for no garbage among what is imported: it stays, and there is more of it with every file."""
    gc.disable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave all that was imported out of every later search, which took a fifth of the time of all tests."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A database that is new gets its tables by a copy of one that went through all migrations: 0.07 s a test.

    Those of ``test_database.py`` are about migrating, and begin with files of their own, which are migrated as ever.
    """
    template = tmp_path_factory.mktemp("database") / "template.sqlite3"
    database.connect(f"sqlite:///{template}").dispose()
    migrate = database._migrate

    def copied(engine: Engine) -> None:
        file = engine.url.database if engine.dialect.name == "sqlite" else None
        if file and file != ":memory:" and (not Path(file).exists() or not Path(file).stat().st_size):
            with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(file)) as target:
                source.backup(target)
        migrate(engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_migrate", copied)
        yield


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


class FakePipeline(VideoPipeline[str, int]):
    """Draws moving stripes whose brightness comes from the seed; ``on_step`` sees every denoising step.

    Previews show ``sketched``.
    """

    def __init__(self) -> None:
        self.on_step: Callable[[int], None] = lambda step: None
        self.requests: list[GenerationRequest] = []
        self.is_closed = False
        self.adopted: list[MemoryPlan] = []
        self.sketched: Frames | None = None

    @classmethod
    def load(cls, card: ModelCard, weights: Path, plan: MemoryPlan) -> FakePipeline:
        return cls()

    def adopt(self, plan: MemoryPlan) -> None:
        self.adopted.append(plan)

    def encode(self, request: GenerationRequest) -> str:
        self.requests.append(request)
        return request.prompt

    def denoise(self, request: GenerationRequest, conditioning: str, given: Given, on_step: OnStep) -> int:
        for step in range(1, request.num_inference_steps + 1):
            self.on_step(step)
            on_step(Step(step, request.num_inference_steps, lambda: self.sketched))
        return request.seed

    def decode(self, request: GenerationRequest, latents: int) -> Iterator[Frames]:
        shape = request.shape
        columns = np.arange(shape.width)
        for frame in range(shape.frames):
            stripes = ((columns + frame * 4) // 16 % 2 * (55 + latents % 200)).astype(np.uint8)
            yield np.broadcast_to(stripes[None, None, :, None], (1, shape.height, shape.width, 3))

    @property
    def facts(self) -> Mapping[str, str]:
        return {"family": "fake"}

    def close(self) -> None:
        self.is_closed = True


def roomy(device: str) -> Device:
    """Describe a CPU beside more memory than anything needs."""
    return Device(device, "a CPU", 2**40, 2**40, 2**40, None, numbers_of(None))


def fake_models(settings: Settings, make: Callable[[], VideoPipeline[Any, Any]]) -> Residents:
    """Return models that are what ``make`` returns, under the name of any card, on a machine with room for all."""
    source = Source(lambda name: load_registry().cards[name], lambda *_: make(), roomy, release=lambda _: None)
    return Residents("cpu", settings, source)


MakeJob = Callable[..., Job]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", devices=("cpu",))


@pytest.fixture
def store(settings: Settings, clock: Clock) -> Iterator[JobStore]:
    store = JobStore.open(settings.database_url, clock)
    yield store
    store.close()


@pytest.fixture
def assets(settings: Settings) -> AssetStore:
    return AssetStore(settings.assets_dir)


@pytest.fixture(scope="session")
def card() -> ModelCard:
    return load_registry().cards["homereel-mini"]


@pytest.fixture(scope="session")
def hasty_card(card: ModelCard) -> ModelCard:
    """The model that ships, in eight steps of its twenty: half the time, and what is judged is as good to a hair."""
    return card.model_copy(update={"sampling": card.sampling.model_copy(update={"num_inference_steps": 8})})


@pytest.fixture
def pipeline() -> FakePipeline:
    return FakePipeline()


@pytest.fixture
def make_request() -> Callable[..., GenerationRequest]:
    def make(**changes: object) -> GenerationRequest:
        values: dict[str, object] = {
            "prompt": "a red ball bounces on a green field",
            "negative_prompt": "",
            "shape": VideoShape(17, 96, 160, 8),
            "delivery": VideoShape(16, 96, 160, 8),
            "seed": 7,
            "num_inference_steps": 4,
            "guidance_scale": 4.0,
            "conditions": (ImageCondition(Path("first.png")),),
        }
        return GenerationRequest(**(values | changes))  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture
def make_job(clock: Clock, make_request: Callable[..., GenerationRequest]) -> MakeJob:
    """Return a factory of queued jobs, made at the clock's time unless told otherwise."""

    def make(**changes: object) -> Job:
        values: dict[str, object] = {
            "id": new_job_id(clock()),
            "model": "sora-2",
            "card": "homereel-mini",
            "status": JobStatus.QUEUED,
            "request": make_request(),
            "created_at": clock(),
            "warnings": ("generated at 160x96",),
        }
        return Job(**(values | changes))  # pyright: ignore[reportArgumentType]

    return make


@pytest.fixture
def add_job(store: JobStore, make_job: MakeJob) -> Callable[..., JobId]:
    """Return a factory that puts queued jobs into the store and returns their ids."""

    def add(**changes: object) -> JobId:
        job = make_job(**changes)
        store.add(job, max_queued=100)
        return job.id

    return add


@pytest.fixture(autouse=True)
def _no_handler_outlives_its_test() -> Iterator[None]:
    """A handler that writes to a stream of a test that is over complains in the next one."""
    before = logging.getLogger().handlers[:]
    yield
    root = logging.getLogger()
    for handler in root.handlers[:]:
        # pytest's own are of other types and look after themselves.
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)
