"""OpenAI's unmodified Python client, before and after the wire became multipart. scripts/conformance.sh runs more."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import openai
import pytest

from pipelines.media import probe
from pipelines.registry import installed, load_registry
from server.cli.local import own_server
from tests.acceptance import sdks, story
from tests.acceptance.serving import serving
from tests.acceptance.story import picture_file as picture_file

OLD_WIRE, NEW_WIRE = "2.26.0", sdks.PYTHON[-1]


@pytest.mark.parametrize("version", [OLD_WIRE, NEW_WIRE])
def test_every_method_of_the_official_client_works(version: str, tmp_path: Path, picture_file: Path) -> None:
    with serving(tmp_path / "data") as base_url:
        told = sdks.session(sdks.Sdk("python", version), base_url, "anything", picture_file)
    story.check(told)
    story.check_bytes(told, tmp_path / "data")


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_every_video_can_be_deleted_while_they_are_listed(tmp_path: Path, order: Literal["asc", "desc"]) -> None:
    with serving(tmp_path / "data") as base_url, openai.OpenAI(base_url=base_url, api_key="anything") as client:
        made = [client.videos.create_and_poll(prompt="a red ball").id for _ in range(5)]
        deleted = [client.videos.delete(video.id).id for video in client.videos.list(limit=2, order=order)]
        assert deleted == (made if order == "asc" else made[::-1])
        assert client.videos.list().data == []


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
@pytest.mark.skipif(not installed(load_registry().cards["homereel-mini"]), reason="the embedded weights are not here")
def test_a_real_server_makes_a_real_clip_for_the_official_client(tmp_path: Path) -> None:
    with own_server(tmp_path / "data") as url, openai.OpenAI(base_url=f"{url}/v1", api_key="anything") as client:
        video = client.videos.create_and_poll(prompt="a red ball moves right over a green field", seconds="4")
        assert video.status == "completed", video.error
        client.videos.download_content(video.id).write_to_file(tmp_path / "clip.mp4")
    facts = probe(tmp_path / "clip.mp4")
    assert (facts.shape.size, facts.shape.frames, facts.codec) == (video.size, 32, "h264")
