"""``homereel prune``: what would go is what goes, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.assets import AssetStore, Variant
from server.jobs import Job, JobId, JobResult, WorkerId
from server.selection import Change
from server.settings import Settings
from server.store import JobStore
from tests.conftest import Clock

Run = Callable[..., tuple[int, str, str]]
DAY_S = 86_400.0
ANN = WorkerId("ann")


class Shelf:
    """Finished videos, one a day, of 1 MB each; the newest was finished just now."""

    def __init__(self, store: JobStore, assets: AssetStore, made: list[JobId]) -> None:
        self.store, self.assets, self.made = store, assets, made

    def kept(self) -> list[int]:
        """Return the places of those whose files are there."""
        sizes = self.assets.sizes()
        return [place for place, job_id in enumerate(self.made) if job_id in sizes]


@pytest.fixture
def shelf(
    settings: Settings, clock: Clock, make_job: Callable[..., Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shelf]:
    monkeypatch.setattr("time.time", clock)
    store, assets = JobStore.open(settings.database_url, clock), AssetStore(settings.assets_dir)
    clip = tmp_path / "clip"
    clip.write_bytes(bytes(1_000_000))
    made: list[JobId] = []
    for _ in range(4):
        clock.advance(DAY_S)
        (job,) = store.add(make_job(), max_queued=9)
        store.claim(job.id, ANN, 30)
        assets.put(job.id, Variant.VIDEO, clip)
        store.finish(job.id, ANN, JobResult({}, 0))
        made.append(job.id)
    yield Shelf(store, assets, made)
    store.close()


@pytest.fixture
def prune(homereel: Run, settings: Settings) -> Run:
    return lambda *words: homereel("prune", *words, "--data-dir", settings.data_dir)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--older-than", "2d"], [1, 2, 3]),
        (["--older-than", "1.5d"], [2, 3]),
        (["--older-than", "47h"], [2, 3]),
        (["--older-than", "52w"], [0, 1, 2, 3]),
        (["--to-gb", "0.0025"], [2, 3]),
        (["--to-gb", "0"], []),
        (["--to-gb", "1"], [0, 1, 2, 3]),
        (["--disk-budget-gb", "0.003"], [1, 2, 3]),
        (["--older-than", "2d", "--to-gb", "0.001"], [3]),
        (["--older-than", "36h", "--to-gb", "0.003"], [2, 3]),
    ],
)
def test_what_would_go_is_what_goes(shelf: Shelf, prune: Run, words: list[str], kept: list[int]) -> None:
    status, foretold, _ = prune(*words, "--dry-run")
    assert status == 0
    assert shelf.kept() == [0, 1, 2, 3]
    status, told, _ = prune(*words)
    assert status == 0
    assert shelf.kept() == kept
    gone = [job_id for place, job_id in enumerate(shelf.made) if place not in kept]
    assert [line.split()[0] for line in told.splitlines()[:-1]] == gone
    assert foretold.splitlines()[:-1] == told.splitlines()[:-1]
    assert told.splitlines()[-1] == f"{len(gone)} videos, {len(gone)} MB removed".replace(" 0 MB", " 0 B")
    assert foretold.splitlines()[-1].endswith("would go")
    assert prune(*words)[1].startswith("0 videos")


def test_records_stay_and_starred_videos_too(shelf: Shelf, prune: Run) -> None:
    shelf.store.change(shelf.made[1], Change(starred=True))
    assert prune("--to-gb", "0")[0] == 0
    assert shelf.kept() == [1]
    assert all(shelf.store.get(job_id).is_expired(shelf.store._now()) for job_id in (shelf.made[0], shelf.made[3]))


def test_every_video_is_an_object_for_scripts(shelf: Shelf, prune: Run) -> None:
    lines = [json.loads(line) for line in prune("--to-gb", "0.003", "--json")[1].splitlines()]
    assert [(line["id"], line["size"], line["removed"]) for line in lines] == [(shelf.made[0], 1_000_000, True)]


def test_the_budget_of_the_environment_counts(shelf: Shelf, prune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEREEL_DISK_BUDGET_GB", "0.002")
    assert prune()[0] == 0
    assert shelf.kept() == [2, 3]


@pytest.mark.parametrize(
    "words", [[], ["--dry-run"], ["--older-than", "30"], ["--older-than", "-1d"], ["--to-gb", "-1"], ["--to-gb", "all"]]
)
def test_nothing_goes_by_mistake(shelf: Shelf, prune: Run, words: list[str]) -> None:
    status, printed, complaint = prune(*words)
    assert (status, printed) == (2, "")
    assert complaint
    assert shelf.kept() == [0, 1, 2, 3]
