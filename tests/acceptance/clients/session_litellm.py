"""What a user of LiteLLM's video calls does, told as JSON. Arguments: base URL, key, a picture, providers."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import litellm  # pyright: ignore[reportMissingImports] - it lives in an environment of its own

PATIENCE_S = 300
QUICK = {"num_inference_steps": 2, "seed": 42}


class Session:
    """One user with one provider. Ids are LiteLLM's: they say which provider made the video."""

    def __init__(self, provider: str, base_url: str, key: str, picture: str) -> None:
        self.model = f"{provider}/sora-2"
        self.server = {"api_base": base_url, "api_key": key}
        self.at = {"custom_llm_provider": provider, **self.server}
        self.picture = Path(picture)
        self.called: set[str] = set()

    def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        self.called.add(name)
        # Any: the functions are typed as what they return or its coroutine.
        function: Any = getattr(litellm, name)
        return function(*args, **kwargs)

    def finished(self, video: Any) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while video.status in {"queued", "in_progress"}:
            assert time.monotonic() < deadline, video
            time.sleep(0.2)
            video = self.call("video_status", video.id, **self.server)
        return {**video.model_dump(), "id": self.own_id(video.id)}

    def own_id(self, litellm_id: str) -> str:
        return litellm.decode_video_id_with_provider(litellm_id)["video_id"]

    def tell(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        created = self.call(
            "video_generation", "a red ball", self.model, seconds="2", size="160x96", extra_body=QUICK, **self.server
        )
        told["created"] = self.finished(created)
        content = self.call("video_content", created.id, **self.server)
        told["video"] = hashlib.sha256(content).hexdigest()
        told["thumbnail"] = self.call("video_content", created.id, variant="thumbnail", **self.server)[:4].decode()
        with self.picture.open("rb") as file:
            pictured = self.call(
                "video_generation",
                "a blue square",
                self.model,
                seconds="2",
                input_reference=file,
                extra_body={**QUICK, "negative_prompt": "red"},
                **self.server,
            )
            told["pictured"] = self.finished(pictured)
        remixed = self.call("video_remix", created.id, "a green ball", **self.server)
        told["remixed"] = self.finished(remixed)
        edited = self.call("video_edit", created.id, "a blue ball", **self.server)
        told["edited"] = self.finished(edited)
        extended = self.call("video_extension", created.id, "it rolls on", "2", **self.server)
        told["extended"] = self.finished(extended)
        mossy = self.call("video_create_character", "Mossy", content, **self.at)
        told["character"] = mossy.model_dump()
        told["same_character"] = self.call("video_get_character", mossy.id, **self.at).model_dump()
        told["listed"] = [self.own_id(video["id"]) for video in self.call("video_list", limit=3, **self.at)["data"]]
        return told


def offered() -> list[str]:
    """Return the names of its calls; each is there again for ``await``, as ``a…``."""
    names = (name for name in dir(litellm) if name.startswith("video_") and callable(getattr(litellm, name)))
    return sorted(names)


def main(base_url: str, key: str, picture: str, *providers: str) -> None:
    told: dict[str, Any] = {}
    for provider in providers:
        session = Session(provider, base_url, key, picture)
        told[provider] = session.tell()
        told[provider] |= {"version": version("litellm"), "offered": offered(), "called": sorted(session.called)}
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
