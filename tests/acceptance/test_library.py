"""The library over a socket: clips are made, joined, trimmed and restored; prompts are found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from pipelines.media import probe
from tests.acceptance.serving import serving

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    with (
        serving(tmp_path_factory.mktemp("library") / "data") as base_url,
        httpx2.Client(base_url=base_url, timeout=60) as client,
    ):
        yield client


def made(api: httpx2.Client, path: str = "/videos", **body: Any) -> Any:
    answer = api.post(path, json=body)
    assert answer.status_code == 200, answer.text
    with openai.OpenAI(base_url=str(api.base_url), api_key="anything") as client:
        video = client.videos.poll(answer.json()["id"], poll_interval_ms=50)
    assert video.error is None
    return video


def restored(api: httpx2.Client, video_id: str) -> Any:
    content = api.get(f"/videos/{video_id}/content").content
    answer = api.post("/videos/restore", files={"video": ("clip.mp4", content, "video/mp4")})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_clips_are_joined_trimmed_and_restored(api: httpx2.Client, tmp_path: Path) -> None:
    one, two = (made(api, prompt=f"a {word} ball", seconds="1", seed=7) for word in ("red", "blue"))
    joined = made(api, "/videos/join", videos=[{"id": one.id}, {"id": two.id, "end_frame": 4}])
    trimmed = made(api, "/videos/join", videos=[{"id": joined.id, "start_frame": 6, "end_frame": 10}])
    file = tmp_path / "trimmed.mp4"
    file.write_bytes(api.get(f"/videos/{trimmed.id}/content").content)
    assert probe(file).shape.frames == 4

    pieces = restored(api, trimmed.id)["parts"]
    assert [(part["video"], part["start_frame"], part["end_frame"]) for part in pieces] == [
        (one.id, 6, 8),
        (two.id, 0, 2),
    ]
    assert [part["parameters"]["prompt"] for part in pieces] == ["a red ball", "a blue ball"]

    again = made(api, **restored(api, one.id)["parameters"])
    contents = [api.get(f"/videos/{video}/content").content for video in (one.id, again.id)]
    assert contents[0] == contents[1]
