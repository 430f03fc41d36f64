"""What every official client must have seen, whichever language it speaks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from server.assets import Variant


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    path = tmp_path / "first.png"
    Image.effect_noise((160, 96), 60).convert("RGB").save(path)
    return path


def check(told: dict[str, Any], data_dir: Path) -> None:
    """Compare what a client was told with what the contract and the server's folder say."""
    _check_videos(told)
    _check_content(told, data_dir)
    _check_lists(told)
    _check_refusals(told)
    assert {"sora-2", "sora-2-pro", "homereel-mini"} <= set(told["models"])
    assert told["model"]["object"] == "model"


def _check_videos(told: dict[str, Any]) -> None:
    created, done = told["created"], told["done"]
    assert (created["status"], created["progress"], created["object"]) == ("queued", 0, "video")
    same = ("id", "model", "prompt", "size", "seconds", "seed", "created_at")
    assert {key: created[key] for key in same} == {key: done[key] for key in same}
    assert (done["model"], done["size"], done["seconds"], done["seed"]) == ("sora-2", "1280x720", "4", 42)
    assert (done["status"], done["progress"], done["error"]) == ("completed", 100, None)
    assert done["native_size"] == "160x96"
    assert told["pictured"]["status"] == "completed"
    assert (told["third"]["status"], told["third"]["prompt"]) == ("completed", "two\nlines")
    assert told["third"]["seconds"] == "2"


def _check_content(told: dict[str, Any], data_dir: Path) -> None:
    stored = data_dir / "assets" / told["done"]["id"] / Variant.VIDEO.filename
    assert told["video"] == ["video/mp4", hashlib.sha256(stored.read_bytes()).hexdigest()]
    assert told["thumbnail"] == "RIFF"
    assert told["spritesheet"] == "ffd8ff"


def _check_lists(told: dict[str, Any]) -> None:
    made = told["made"]
    assert told["ascending"] == made
    assert told["listed"] == made[::-1]
    assert told["deleted"] == {"id": made[2], "object": "video.deleted", "deleted": True}
    assert told["left"] == made[1::-1]


def _check_refusals(told: dict[str, Any]) -> None:
    expected = {
        "gone": ("NotFoundError", 404, "video_not_found", "video_id"),
        "bad_size": ("BadRequestError", 400, "unsupported_shape", "size"),
        "bad_model": ("BadRequestError", 400, "model_not_found", "model"),
        "bad_name": ("BadRequestError", 400, "unknown_parameter", "colour"),
    }
    for name, (kind, status, code, param) in expected.items():
        failure = told[name]
        assert (failure["class"], failure["status"], failure["code"], failure["param"]) == (kind, status, code, param)
        assert failure["type"] == "invalid_request_error"
