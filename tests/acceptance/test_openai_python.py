"""OpenAI's unmodified Python client, before and after the wire became multipart. scripts/conformance.sh runs more."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import openai
import pytest

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
