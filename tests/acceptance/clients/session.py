"""What a user of OpenAI's Python client does, told as JSON. Arguments: base URL, a picture. Runs with any version."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore", DeprecationWarning)

import openai  # noqa: E402


def failure_of(call: Any) -> dict[str, Any]:
    began = time.monotonic()
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "request_id": error.request_id,
            "retried": "x-stainless-retry-count" in error.request.headers
            and error.request.headers["x-stainless-retry-count"] != "0",
            "seconds": time.monotonic() - began,
        }
    return {"class": None}


def main(base_url: str, picture: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="anything")
    # Any: users send what the type hints forbid, and so does this.
    videos: Any = client.videos
    told: dict[str, Any] = {"version": openai.__version__}

    created = videos.create(prompt="a red ball", seconds="4", size="1280x720", extra_body={"seed": 42})
    told["created"] = created.to_dict()
    told["early"] = failure_of(lambda: videos.download_content("video_" + "0" * 48))
    done = videos.poll(created.id)
    told["done"] = done.to_dict()
    content = videos.download_content(done.id)
    told["video"] = [content.response.headers["content-type"], hashlib.sha256(content.read()).hexdigest()]
    told["thumbnail"] = videos.download_content(done.id, variant="thumbnail").read()[:4].decode("latin-1")
    told["spritesheet"] = videos.download_content(done.id, variant="spritesheet").read()[:3].hex()

    with Path(picture).open("rb") as file:
        pictured = videos.create_and_poll(prompt="a blue square", model="sora-2-pro", input_reference=file)
    told["pictured"] = pictured.to_dict()
    third = videos.create_and_poll(prompt="two\nlines", seconds="2")
    told["third"] = third.to_dict()

    told["listed"] = [video.id for video in videos.list(limit=2)]
    told["ascending"] = [video.id for video in videos.list(limit=1, order="asc")]
    told["made"] = [created.id, pictured.id, third.id]
    told["deleted"] = videos.delete(third.id).to_dict()
    told["gone"] = failure_of(lambda: videos.retrieve(third.id))
    told["left"] = [video.id for video in videos.list()]

    told["bad_size"] = failure_of(lambda: videos.create(prompt="a", size="1x1"))
    told["bad_model"] = failure_of(lambda: videos.create(prompt="a", model="no-such-model"))
    told["bad_name"] = failure_of(lambda: videos.create(prompt="a", extra_body={"colour": "red"}))
    told["models"] = [model.id for model in client.models.list()]
    told["model"] = client.models.retrieve("sora-2").to_dict()
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
