"""Files go after their time, or oldest first; records stay, and what is starred, waits or runs stays whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from server.app import create_app
from server.assets import AssetMissing, AssetStore, Variant
from server.jobs import JobError, JobId, JobResult, JobStatus, WorkerId
from server.retention import Pruner
from server.selection import Change
from server.settings import Settings
from server.store import JobStore
from server.supervisor import PRUNE_S, Crew

if TYPE_CHECKING:
    from tests.conftest import Clock

ANN = WorkerId("ann")
RESULT = JobResult({"denoise": 1.0}, 1)
DAY_S = 86_400.0
AddJob = Callable[..., JobId]
Make = Callable[..., JobId]


@pytest.fixture
def pruner(store: JobStore, assets: AssetStore, clock: Clock) -> Pruner:
    return Pruner(store.engine, assets, retention_s=10 * DAY_S, now=clock)


@pytest.fixture
def make(store: JobStore, assets: AssetStore, clock: Clock, add_job: AddJob, tmp_path: Path) -> Make:
    """Return a factory of finished videos of a given size, each an hour after the one before."""

    def finished(
        size: int = 1000, *, starred: bool = False, retention_s: float | None = None, error: JobError | None = None
    ) -> JobId:
        clock.advance(3600)
        job_id = add_job()
        assert store.claim(job_id, ANN, 30)
        source = tmp_path / "clip"
        source.write_bytes(bytes(size))
        if error is None:
            assets.put(job_id, Variant.VIDEO, source)
            assert store.finish(job_id, ANN, RESULT, retention_s=retention_s)
        else:
            assets.save_input(job_id, "first.png", [bytes(size)])
            assert store.fail(job_id, ANN, error)
        if starred:
            store.change(job_id, Change(starred=True))
        return job_id

    return finished


def has_files(assets: AssetStore, job_id: JobId) -> bool:
    return job_id in assets.sizes()


def test_a_video_expires_so_long_after_its_completion(store: JobStore, make: Make, clock: Clock) -> None:
    kept, passing = make(), make(retention_s=60)
    assert store.get(kept).expiry is None
    job = store.get(passing)
    assert job.expiry == clock() + 60
    assert not job.is_expired(clock() + 59)
    assert job.is_expired(clock() + 60)


def test_expired_files_go_and_the_record_stays(
    store: JobStore, assets: AssetStore, pruner: Pruner, make: Make, clock: Clock
) -> None:
    passing, kept = make(retention_s=60), make()
    expiry = store.get(passing).expiry
    clock.advance(61)
    assert pruner.remove_expired() == 1
    assert (has_files(assets, passing), has_files(assets, kept)) == (False, True)
    job = store.get(passing)
    assert (job.status, job.expiry, job.purged_at) == (JobStatus.COMPLETED, expiry, clock())
    assert pruner.remove_expired() == 0


def test_a_star_keeps_a_video_and_taking_it_away_does_not_bring_time_back(
    store: JobStore, assets: AssetStore, pruner: Pruner, make: Make, clock: Clock
) -> None:
    job_id = make(starred=True, retention_s=60)
    clock.advance(1000)
    assert store.get(job_id).expiry is None
    assert pruner.remove_expired() == 0
    store.change(job_id, Change(starred=False))
    assert store.get(job_id).is_expired(clock())
    assert pruner.remove_expired() == 1
    store.change(job_id, Change(starred=True))
    assert store.get(job_id).is_expired(clock())
    assert not has_files(assets, job_id)


def test_uploads_of_failed_videos_go_after_the_same_time(
    store: JobStore, assets: AssetStore, pruner: Pruner, make: Make, clock: Clock
) -> None:
    failed = make(error=JobError("bad_output", "black"))
    clock.advance(10 * DAY_S - 1)
    assert pruner.remove_expired() == 0
    clock.advance(1)
    assert pruner.remove_expired() == 1
    assert not has_files(assets, failed)
    assert store.get(failed).expiry is None


def test_without_retention_nothing_expires(store: JobStore, assets: AssetStore, make: Make, clock: Clock) -> None:
    make()
    make(error=JobError("bad_output", "black"))
    clock.advance(1000 * DAY_S)
    assert Pruner(store.engine, assets, now=clock).remove_expired() == 0


def test_the_oldest_go_until_the_rest_fits(
    store: JobStore, assets: AssetStore, pruner: Pruner, make: Make, add_job: AddJob
) -> None:
    starred, first, second, third = make(500, starred=True), make(400), make(300), make(200)
    waiting, running = add_job(), add_job()
    store.claim(running, ANN, 30)
    for job_id in (waiting, running):
        assets.save_input(job_id, "first.png", [bytes(100)])
    chosen = pruner.over_budget(1150)
    assert [(video.id, video.size) for video in chosen] == [(first, 400), (second, 300)]
    assert [video.id for video in pruner.oldest()] == [first, second, third]
    assert pruner.over_budget(1600) == ()
    assert [video.id for video in pruner.over_budget(0)] == [first, second, third]
    assert pruner.remove(video.id for video in chosen) == (first, second)
    assert set(assets.sizes()) == {starred, third, waiting, running}
    assert sum(assets.sizes().values()) <= 1150
    assert pruner.over_budget(1150) == ()


def test_a_file_of_two_videos_counts_once(assets: AssetStore, make: Make, add_job: AddJob) -> None:
    source, follower = make(1000), add_job()
    assets.link_input(follower, "source.mp4", assets.path(source, Variant.VIDEO))
    assert assets.sizes() == {source: 500, follower: 500}


def test_the_source_of_a_waiting_extension_may_go(
    assets: AssetStore, pruner: Pruner, make: Make, add_job: AddJob
) -> None:
    source, follower = make(1000), add_job()
    linked = assets.link_input(follower, "source.mp4", assets.path(source, Variant.VIDEO))
    pruner.remove([source])
    assert linked.read_bytes() == bytes(1000)


def test_what_was_starred_deleted_or_taken_up_meanwhile_is_left_alone(
    store: JobStore, assets: AssetStore, pruner: Pruner, make: Make, add_job: AddJob
) -> None:
    starred, deleted, gone = make(), make(), make()
    waiting = add_job()
    store.change(starred, Change(starred=True))
    store.delete(deleted)
    assert pruner.remove([starred, deleted, waiting, JobId("video_0"), gone]) == (gone,)
    assert has_files(assets, starred)
    assert store.get(waiting).status is JobStatus.QUEUED


def test_a_removal_cut_short_is_finished_by_the_next(
    store: JobStore, assets: AssetStore, pruner: Pruner, make: Make, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make()

    def die(job_id: JobId) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assets, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            pruner.remove([job_id])
    job = store.get(job_id)
    # Nobody is given half of the files.
    assert (job.is_expired(clock()), job.purged_at) == (True, None)
    assert pruner.remove_expired() == 1
    assert store.get(job_id).purged_at is not None
    assert not has_files(assets, job_id)


def test_the_supervisor_keeps_the_budget(
    settings: Settings, store: JobStore, assets: AssetStore, make: Make, clock: Clock
) -> None:
    crew = Crew(settings.model_copy(update={"disk_budget_gb": 1500e-9}), (), store, now=clock)
    first, second = make(), make()
    crew.tick()
    assert set(assets.sizes()) == {second}
    assert store.get(first).purged_at
    third = make()
    clock.advance(PRUNE_S)
    crew.tick()
    assert set(assets.sizes()) == {third}


def test_the_supervisor_removes_nothing_unless_told_to(
    settings: Settings, store: JobStore, assets: AssetStore, make: Make, clock: Clock
) -> None:
    made = {make(10**6) for _ in range(3)}
    crew = Crew(settings, (), store, now=clock)
    for _ in range(3):
        clock.advance(1000 * DAY_S)
        crew.tick()
    assert set(assets.sizes()) == made


@pytest.fixture
def client(settings: Settings, clock: Clock) -> Iterator[TestClient]:
    app = create_app(settings, supervise=False)
    with TestClient(app) as client:
        object.__setattr__(app.state.services, "now", clock)
        yield client


def code_of(answer: Any) -> tuple[int, str, str | None]:
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]


def test_clients_see_when_a_video_expires_and_that_it_has(
    client: TestClient, store: JobStore, pruner: Pruner, make: Make, clock: Clock
) -> None:
    kept, passing = make(), make(retention_s=60)
    expires_at = int(clock() + 60)
    assert client.get(f"/v1/videos/{kept}").json()["expires_at"] is None
    assert client.get(f"/v1/videos/{passing}").json()["expires_at"] == expires_at
    assert client.get(f"/v1/videos/{passing}/content").status_code == 200
    clock.advance(60)
    # From that second on, whether somebody has swept up already or not.
    for _ in range(2):
        for variant in Variant:
            answer = client.get(f"/v1/videos/{passing}/content", params={"variant": variant})
            assert code_of(answer) == (404, "content_expired", None)
        source = {"prompt": "again", "video": {"id": passing}}
        assert code_of(client.post("/v1/videos/edits", json=source)) == (404, "content_expired", "video")
        assert code_of(client.post(f"/v1/videos/{passing}/remix", json={"prompt": "x"}))[:2] == (404, "content_expired")
        pruner.remove_expired()
    listed = {video["id"]: video for video in client.get("/v1/videos").json()["data"]}
    assert (listed[passing]["status"], listed[passing]["progress"]) == ("completed", 100)
    assert listed[passing]["expires_at"] == expires_at
    assert client.delete(f"/v1/videos/{passing}").json()["deleted"]


def test_a_star_is_set_over_the_wire(
    client: TestClient, store: JobStore, pruner: Pruner, make: Make, clock: Clock
) -> None:
    passing = make(retention_s=60)
    answer = client.post(f"/v1/videos/{passing}", json={"starred": True})
    assert (answer.status_code, answer.json()["expires_at"]) == (200, None)
    clock.advance(61)
    pruner.remove_expired()
    assert client.get(f"/v1/videos/{passing}/content").status_code == 200


def test_a_video_without_a_file_is_not_called_expired(client: TestClient, assets: AssetStore, make: Make) -> None:
    job_id = make()
    assets.delete(job_id)
    with pytest.raises(AssetMissing):
        assets.path(job_id, Variant.VIDEO)
    assert code_of(client.get(f"/v1/videos/{job_id}/content"))[:2] == (404, "content_not_found")
