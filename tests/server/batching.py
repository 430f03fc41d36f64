"""What tests of batches share: the runner is called by hand, and what a worker does to a job is done by hand too."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from pipelines.registry import load_registry
from server.assets import AssetStore
from server.batch_runner import BatchRunner
from server.batch_types import Batch, BatchStatus, new_batch
from server.batches import BatchStore
from server.characters import CharacterStore
from server.delivery import Poster
from server.deps import Services
from server.events import Broker
from server.files import FileId, FileStore, new_file
from server.jobs import Job, JobError, JobResult, JobStatus, Owner, WorkerId
from server.library import Library
from server.outbox import Outbox
from server.pulls import Pulls, spawn_pull
from server.settings import Settings
from server.store import JobStore
from server.timings import TimingStore
from server.webhooks import EndpointStore
from tests.conftest import Clock

ANN, BOB = Owner("ann"), Owner("bob")
WORKER = WorkerId("w")
RESULT = JobResult({"encode": 0.5, "denoise": 4.0}, 1_500_000)


@pytest.fixture(autouse=True)
def every_card_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.holdings.installed", lambda card: True)


def services_with(settings: Settings, store: JobStore, clock: Clock) -> Services:
    def passing() -> float:
        # Ids sort by the microsecond at which they were made.
        clock.advance(1e-5)
        return clock()

    outbox = Outbox(store.engine, clock)
    return Services(
        settings=settings,
        registry=load_registry(),
        store=store,
        assets=AssetStore(settings.assets_dir),
        characters=CharacterStore(store.engine, settings.characters_dir),
        timings=TimingStore(store.engine),
        files=FileStore(store.engine, settings.files_dir, clock),
        batches=BatchStore(store.engine, clock),
        outbox=outbox,
        events=Broker(outbox, store),
        endpoints=EndpointStore(store.engine, clock),
        post=Poster(settings),
        library=Library(store.engine, clock),
        pulls=Pulls(partial(spawn_pull, settings.models_dir)),
        now=passing,
    )


@pytest.fixture
def services(settings: Settings, store: JobStore, clock: Clock) -> Services:
    return services_with(settings, store, clock)


@pytest.fixture
def runner(services: Services) -> BatchRunner:
    return BatchRunner(services)


def request(custom_id: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/videos", "body": {"prompt": "a red ball", **body}}


def requests(count: int) -> list[dict[str, Any]]:
    return [request(f"shot-{number}", seed=number) for number in range(count)]


@pytest.fixture
def submit(services: Services, clock: Clock) -> Callable[..., Batch]:
    """Return a factory of batches from lines, which are objects or raw text."""

    def submit(*lines: dict[str, Any] | str, owner: Owner = ANN, **changes: Any) -> Batch:
        clock.advance(1)
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        content = "\n".join(texts).encode("utf-8", "surrogatepass")
        file = services.files.add(new_file(owner, "batch", "in.jsonl", clock()), [content], max_total_bytes=10**9)
        batch = new_batch(owner, file.id, clock(), **changes)
        services.batches.add(batch)
        return batch

    return submit


def settle(runner: BatchRunner) -> None:
    """Take steps until there is none to take."""
    for _ in range(1000):
        if not runner.tick():
            return
    raise AssertionError("the runner never rests")


def videos_of(batch: Batch, services: Services) -> list[Job]:
    page = services.store.list(after=None, limit=1000, newest_first=False, owner=batch.owner)
    return [job for job in page.jobs if job.group == batch.id]


def make(job: Job, services: Services, error: JobError | None = None) -> None:
    """Do what a worker does."""
    assert services.store.claim(job.id, WORKER, lease_s=60)
    if error is None:
        assert services.store.finish(job.id, WORKER, RESULT)
    else:
        assert services.store.fail(job.id, WORKER, error)


def make_all(batch: Batch, services: Services, runner: BatchRunner) -> Batch:
    """Make videos until the batch has ended."""
    settle(runner)
    while services.batches.get(batch.id).status in {BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING}:
        waiting = [job for job in videos_of(batch, services) if job.status is JobStatus.QUEUED]
        assert waiting
        for job in waiting:
            make(job, services)
        settle(runner)
    return services.batches.get(batch.id)


def lines_of(file_id: str | None, services: Services) -> dict[str, dict[str, Any]]:
    """Return the lines of a result file by their custom_id."""
    if file_id is None:
        return {}
    text = services.files.content(FileId(file_id), ANN).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    by_name = {line["custom_id"]: line for line in lines}
    assert len(by_name) == len(lines)
    return by_name
