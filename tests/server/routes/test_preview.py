"""The preview of a video that is being made."""

from __future__ import annotations

from collections.abc import Callable

from fastapi.testclient import TestClient

from server.deps import Services
from server.jobs import JobId
from tests.server.routes.conftest import Hand, refused


def test_the_latest_preview_is_sent(client: TestClient, services: Services, create: Callable[..., str]) -> None:
    video_id = create()
    path = f"/v1/videos/{video_id}/preview"
    error = refused(client.get(path), 404)
    assert error["code"] == "preview_not_found"

    services.assets.put_preview(JobId(video_id), b"RIFFfirst")
    first = client.get(path)
    assert (first.status_code, first.content, first.headers["content-type"]) == (200, b"RIFFfirst", "image/webp")
    same = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")

    # Of the same length, as two previews may well be.
    services.assets.put_preview(JobId(video_id), b"RIFFother")
    other = client.get(path, headers={"if-none-match": first.headers["etag"]})
    assert (other.status_code, other.content) == (200, b"RIFFother")
    assert other.headers["etag"] != first.headers["etag"]


def test_a_finished_video_keeps_its_last_preview(
    client: TestClient, services: Services, create: Callable[..., str], hand: Hand
) -> None:
    video_id = create()
    services.assets.put_preview(JobId(video_id), b"RIFFlast")
    hand.finish(video_id)
    assert client.get(f"/v1/videos/{video_id}/preview").content == b"RIFFlast"
    client.delete(f"/v1/videos/{video_id}")
    assert refused(client.get(f"/v1/videos/{video_id}/preview"), 404)["code"] == "video_not_found"


def test_no_video_no_preview(client: TestClient) -> None:
    assert refused(client.get("/v1/videos/video_0/preview"), 404)["code"] == "video_not_found"
