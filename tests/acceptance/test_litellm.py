"""LiteLLM's video calls, through both of its providers that take the address of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import sdks
from tests.acceptance.serving import serving
from tests.acceptance.story import picture_file as picture_file


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_every_video_call_works(provider: str, tmp_path: Path, picture_file: Path) -> None:
    with serving(tmp_path / "data") as base_url:
        told = sdks.litellm_session(provider, base_url, "anything", picture_file)
    check(told)


def check(told: dict[str, Any]) -> None:
    assert told["called"] == told["offered"]
    source = told["created"]["id"]
    for name in ("created", "pictured", "remixed", "edited", "extended"):
        video = told[name]
        assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None)
        assert video["seconds"] == ("4" if name == "extended" else "2")
        assert video["remixed_from_video_id"] == (source if name in {"remixed", "edited", "extended"} else None)
    assert told["thumbnail"] == "RIFF"
    assert told["character"] == told["same_character"]
    assert told["character"]["name"] == "Mossy"
    assert told["listed"] == [told[name]["id"] for name in ("extended", "edited", "remixed")]
