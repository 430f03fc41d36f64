"""OpenAI's unmodified Node client, on the Node that comes with the type checker. scripts/conformance.sh runs more."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance import sdks, story
from tests.acceptance.serving import serving
from tests.acceptance.story import picture_file as picture_file


def test_every_method_of_the_official_client_works(tmp_path: Path, picture_file: Path) -> None:
    with serving(tmp_path / "data") as base_url:
        told = sdks.session(sdks.Sdk("node", sdks.NODE[-1]), base_url, "anything", picture_file)
    story.check(told)
    story.check_bytes(told, tmp_path / "data")
