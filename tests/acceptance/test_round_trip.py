"""A file that leaves the server and comes back is known for what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from pipelines.media import probe
from tests.acceptance.serving import serving
from tests.server.routes.conftest import movie


def extended(client: httpx2.Client, content: bytes) -> httpx2.Response:
    parts = {"video": ("clip.mp4", content, "video/mp4")}
    return client.post("/videos/extensions", data={"prompt": "it rolls on", "seconds": "2"}, files=parts)


def finished(base_url: str, video_id: str) -> Any:
    with openai.OpenAI(base_url=base_url, api_key="anything") as client:
        return client.videos.poll(video_id)


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
def test_a_clip_says_how_often_it_has_been_extended(tmp_path: Path) -> None:
    known = json.dumps({"homereel": {"prompt": "a ball", "extensions": 5}})
    with serving(tmp_path / "data") as base_url, httpx2.Client(base_url=base_url, timeout=60) as client:
        sixth = extended(client, movie(comment=known))
        assert sixth.status_code == 200, sixth.text
        video = finished(base_url, sixth.json()["id"])
        assert (video.status, video.seconds, video.error) == ("completed", "4", None)
        content = client.get(f"/videos/{video.id}/content").content
        refused = extended(client, content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_many_extensions")
    file = tmp_path / "clip.mp4"
    file.write_bytes(content)
    facts = probe(file)
    assert (facts.shape.frames, facts.shape.fps) == (32, 8)
    assert facts.provenance is not None
    assert (facts.provenance["extensions"], facts.provenance["prompt"]) == (6, "it rolls on")
