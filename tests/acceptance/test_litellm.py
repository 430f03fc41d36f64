"""LiteLLM's video calls, through both of its providers that take the address of a server."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance import sdks
from tests.acceptance.serving import serving
from tests.acceptance.story import draw_picture

PROVIDERS = ("openai", "hosted_vllm")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What both were told, in one process: the client takes seconds to start."""
    folder = tmp_path_factory.mktemp("litellm")
    with serving(folder / "data") as base_url:
        return sdks.litellm_sessions(PROVIDERS, base_url, "anything", draw_picture(folder / "first.png"))


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_video_call_works(provider: str, told: dict[str, Any]) -> None:
    check(told[provider])


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
