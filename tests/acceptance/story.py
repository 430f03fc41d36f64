"""What every official client must have seen, whichever language it speaks and however old it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from server.assets import AssetStore, Variant
from server.settings import Settings

Told = dict[str, Any]

VIDEO_KEYS = {
    "id",
    "object",
    "model",
    "status",
    "progress",
    "created_at",
    "completed_at",
    "expires_at",
    "prompt",
    "size",
    "seconds",
    "remixed_from_video_id",
    "error",
}


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    return draw_picture(tmp_path / "first.png")


def draw_picture(path: Path) -> Path:
    Image.effect_noise((160, 96), 60).convert("RGB").save(path)
    return path


def check(told: Told) -> None:
    """Compare what a client was told with what the contract says."""
    assert told["crashed"] == {}, "\n".join(told["crashed"].values())
    chapters = told["chapters"]
    for name, chapter in CHAPTERS.items():
        if chapters[name]:
            chapter(chapters[name])
    unexercised = set(told["offered"]) - set(told["called"])
    assert not unexercised, f"the client has methods that the session does not call: {sorted(unexercised)}"
    failed = {name: outcome for name, outcome in told["called"].items() if outcome != "ok"}
    assert not failed


def check_bytes(told: Told, data_dir: Path) -> None:
    """Compare what was downloaded with the file that the server has."""
    video_id, sha256 = told["chapters"]["videos"]["kept"]
    stored = AssetStore(Settings(data_dir=data_dir).assets_dir).path(video_id, Variant.VIDEO)
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == sha256


def refused(failure: Told, kind: str, status: int, code: str, param: str | None) -> None:
    told = (failure["class"], failure["status"], failure["code"], failure["param"])
    assert told == (kind, status, code, param)
    assert failure["type"] == "invalid_request_error"
    assert failure["request_id"]
    assert not failure.get("retried")


def completed(video: Told) -> Told:
    assert set(video) >= VIDEO_KEYS
    assert (video["status"], video["progress"], video["error"]) == ("completed", 100, None), video["error"]
    assert video["id"].startswith("video_")
    assert video["completed_at"] >= video["created_at"]
    return video


def _videos(told: Told) -> None:
    created, done = told["created"], completed(told["done"])
    assert (created["status"], created["progress"], created["object"]) == ("queued", 0, "video")
    same = ("id", "model", "prompt", "size", "seconds", "seed", "created_at", "metadata")
    assert {key: created[key] for key in same} == {key: done[key] for key in same}
    assert told["retrieved"] == done
    assert (done["model"], done["size"], done["seconds"], done["seed"]) == ("sora-2", "1280x720", "4", 42)
    assert done["native_size"] == "160x96"
    assert done["metadata"] == {"shot": "one"}
    assert completed(told["pictured"])["model"] == "sora-2-pro"
    third = completed(told["third"])
    assert (third["prompt"], third["seconds"]) == ("two\nlines", "2")
    assert told["video"][0] == "video/mp4"
    assert told.get("streamed", told["video"][1]) == told["video"][1]
    assert told["thumbnail"] == "RIFF"
    assert told["spritesheet"] == "ffd8ff"
    # A finished video is not polled for.
    assert told.get("poll_after_ms") is None

    made = told["made"]
    assert told["ascending"] == made
    assert told["listed"] == made[::-1]
    assert told["deleted"] == {"id": made[0], "object": "video.deleted", "deleted": True}
    assert told["left"] == made[:0:-1]
    refused(told["gone"], "NotFoundError", 404, "video_not_found", "video_id")
    refused(told["early"], "NotFoundError", 404, "video_not_found", "video_id")


def _references(told: Told) -> None:
    for video in told.values():
        completed(video)
        assert video["seconds"] == "2"


def _remakes(told: Told) -> None:
    source = told.pop("source")
    for name, video in told.items():
        completed(video)
        made_from = None if name.endswith("_file") else source
        assert video["remixed_from_video_id"] == made_from, name
        # Remixes and edits follow their source; an extension is the source and what comes after, in one clip.
        assert video["seconds"] == ("4" if name.startswith("extended") else "2"), name
    assert told["remixed"]["prompt"] == "a green ball"
    assert told["edited"]["size"] == told["remixed"]["size"] == told["extended"]["size"]


def _characters(told: Told) -> None:
    mossy = told["created"]
    assert mossy["id"].startswith("char_")
    assert mossy["name"] == "Mossy"
    assert isinstance(mossy["created_at"], int)
    assert told["retrieved"] == mossy
    completed(told["met"])
    assert (told["crowd"]["status"], told["crowd"]["param"]) == (400, "characters")
    refused(told["gone"], "NotFoundError", 404, "character_not_found", "character_id")


def _files(told: Told) -> None:
    created = told["created"]
    assert created["id"].startswith("file-")
    assert (created["object"], created["bytes"], created["filename"]) == ("file", 18, "notes.jsonl")
    assert (created["purpose"], created["status"]) == ("user_data", "processed")
    assert told["retrieved"] == told["processed"] == created
    assert told["content"] == told.get("text", told["content"]) == '{"a": 1}\n{"a": 2}\n'
    assert told["ascending"] == told["made"]
    assert told["listed"] == told["made"][::-1]
    assert told["deleted"] == {"id": created["id"], "object": "file", "deleted": True}
    refused(told["gone"], "NotFoundError", 404, "file_not_found", "file_id")


def _batches(told: Told) -> None:
    created, done = told["created"], told["done"]
    assert created["id"].startswith("batch_")
    assert (created["object"], created["endpoint"], created["completion_window"]) == ("batch", "/v1/videos", "24h")
    assert created["metadata"] == done["metadata"] == {"film": "one"}
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (made,), (wrong,) = told["output"], told["errors"]
    assert (made["custom_id"], made["response"]["status_code"]) == ("shot-1", 200)
    completed(made["response"]["body"])
    assert (wrong["custom_id"], wrong["response"]["status_code"]) == ("shot-2", 400)
    assert wrong["response"]["body"]["error"]["param"] == "size"
    assert told["cancelling"] in {"cancelling", "cancelled"}
    assert told["cancelled"]["status"] == "cancelled"
    assert told["listed"] == told["made"][::-1]
    refused(told["gone"], "NotFoundError", 404, "batch_not_found", "batch_id")


def _models(told: Told) -> None:
    assert {"sora-2", "sora-2-pro", "homereel-mini"} <= set(told["listed"])
    assert (told["retrieved"]["id"], told["retrieved"]["object"]) == ("sora-2", "model")
    refused(told["gone"], "NotFoundError", 404, "model_not_found", "model")
    assert told["undeletable"]["status"] in {403, 405}
    assert told["undeletable"]["type"] == "invalid_request_error"


def _webhooks(told: Told) -> None:
    created = told["created"]
    assert created["signing_secret"].startswith("whsec_")
    event = told["event"]
    assert (event["type"], event["about"]) == ("video.completed", event["video"])
    assert event["id"].startswith("evt_")
    assert told["forged"] == "refused"
    if "retrieved" not in told:
        return
    assert (created["object"], created["name"]) == ("webhook_endpoint", "mine")
    assert created["event_types"] == ["video.completed"]
    assert "signing_secret" not in told["retrieved"]
    assert told["updated"]["name"] == "renamed"
    assert told["listed"] == [created["id"]]
    assert told["rotated"]["signing_secret"] != created["signing_secret"]
    tested = told["tested"]
    assert (tested["object"], tested["webhook_endpoint_id"]) == ("webhook_endpoint.test", created["id"])
    assert (tested["success"], tested["status_code"], told["test_event"]) == (True, 204, "video.completed")
    assert {"video.completed", "video.failed"} <= set(told["event_types"])
    assert told["deleted"] == {"id": created["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    refused(told["gone"], "NotFoundError", 404, "webhook_endpoint_not_found", "webhook_endpoint_id")


def _refusals(told: Told) -> None:
    refused(told["bad_size"], "BadRequestError", 400, "unsupported_shape", "size")
    refused(told["bad_model"], "BadRequestError", 400, "model_not_found", "model")
    refused(told["bad_name"], "BadRequestError", 400, "unknown_parameter", "colour")
    if "empty_id" in told:
        # Asked for as /videos/: it must not lead in circles.
        assert told["empty_id"]["status"] == 404


CHAPTERS = {
    "videos": _videos,
    "references": _references,
    "remakes": _remakes,
    "characters": _characters,
    "files": _files,
    "batches": _batches,
    "models": _models,
    "webhooks": _webhooks,
    "refusals": _refusals,
}
