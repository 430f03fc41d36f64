"""What a user of OpenAI's Python client does, told as JSON. Any version runs it.

Arguments: base URL, key, a picture.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import queue
import sys
import threading
import time
import traceback
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore", DeprecationWarning)

import openai  # noqa: E402

RESOURCES = ("videos", "files", "batches", "models", "webhooks")
PATIENCE_S = 300
# The smallest clip that the shipped model makes. What is made is judged elsewhere; here it is only carried about.
QUICK = {"num_inference_steps": 2, "seed": 42}


class Calls:
    """Which methods were called, and how each went: ``ok`` or the exception that nobody expected."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.expected: tuple[type[Exception], ...] = ()

    def of(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                result = method(*args, **kwargs)
            except Exception as error:
                if not isinstance(error, self.expected):
                    self.outcomes[name] = type(error).__name__
                else:
                    self.outcomes.setdefault(name, "ok")
                raise
            self.outcomes.setdefault(name, "ok")
            return result

        return call

    def failure_of(self, call: Callable[[], Any]) -> dict[str, Any]:
        """Tell how the server refuses this."""
        self.expected = (openai.APIStatusError,)
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
                "retried": error.request.headers.get("x-stainless-retry-count", "0") != "0",
            }
        finally:
            self.expected = ()
        return {"class": None}


class Resource:
    """A resource of the client whose methods are written down when they are called."""

    def __init__(self, resource: Any, name: str, calls: Calls) -> None:
        self._resource, self._name, self._calls = resource, name, calls

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._resource, attribute)
        name = f"{self._name}.{attribute}"
        if attribute.startswith("with_"):
            return value
        return self._calls.of(name, value) if callable(value) else Resource(value, name, self._calls)


def methods_of(resource: Any, name: str) -> Iterator[str]:
    """Yield the full name of every public method, those of resources inside it included."""
    for attribute in dir(type(resource)):
        if attribute.startswith(("_", "with_")):
            continue
        if callable(inspect.getattr_static(type(resource), attribute)):
            yield f"{name}.{attribute}"
        else:
            yield from methods_of(getattr(resource, attribute), f"{name}.{attribute}")


class Session:
    """One user with one client. Every chapter returns what it was told."""

    def __init__(self, base_url: str, key: str, picture: Path) -> None:
        self.client = openai.OpenAI(base_url=base_url, api_key=key)
        self.calls = Calls()
        self.picture = picture
        # Any: users send what the type hints forbid, older versions lack what newer ones have, and so it is here.
        wrapped: list[Any] = [Resource(getattr(self.client, name), name, self.calls) for name in RESOURCES]
        self.videos, self.files, self.batches, self.models, self.webhooks = wrapped
        self.clip = b""
        self.source = ""

    def offered(self) -> list[str]:
        return [name for kind in RESOURCES for name in methods_of(getattr(self.client, kind), kind)]

    def has(self, name: str) -> bool:
        return name in self.offered()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call what this version has no method for."""
        return self.client.post(path, body=body, cast_to=object)  # pyright: ignore[reportReturnType]

    def finished(self, video: Any) -> dict[str, Any]:
        video_id = video["id"] if isinstance(video, dict) else video.id
        return self.videos.poll(video_id).to_dict()

    def chapter_videos(self) -> dict[str, Any]:
        videos, told = self.videos, {}
        extra = {**QUICK, "metadata": {"shot": "one"}}
        created = videos.create(prompt="a red ball", seconds="4", size="1280x720", extra_body=extra)
        told["created"] = created.to_dict()
        told["early"] = self.calls.failure_of(lambda: videos.download_content("video_" + "0" * 48))
        done = videos.poll(created.id)
        told["done"] = done.to_dict()
        told["retrieved"] = videos.retrieve(created.id).to_dict()
        content = videos.download_content(done.id)
        told["video"] = [content.response.headers["content-type"], hashlib.sha256(content.read()).hexdigest()]
        told["thumbnail"] = videos.download_content(done.id, variant="thumbnail").read()[:4].decode("latin-1")
        told["spritesheet"] = videos.download_content(done.id, variant="spritesheet").read()[:3].hex()
        with videos.with_streaming_response.download_content(done.id) as response:
            told["streamed"] = hashlib.sha256(b"".join(response.iter_bytes(1000))).hexdigest()
        told["poll_after_ms"] = videos.with_raw_response.retrieve(created.id).headers.get("openai-poll-after-ms")

        with self.picture.open("rb") as file:
            pictured = videos.create_and_poll(
                prompt="a blue square", model="sora-2-pro", input_reference=file, seconds="2", extra_body=QUICK
            )
        told["pictured"] = pictured.to_dict()
        third = videos.create_and_poll(prompt="two\nlines", seconds="2", extra_body=QUICK)
        told["third"] = third.to_dict()
        told["made"] = [created.id, pictured.id, third.id]
        told["listed"] = [video.id for video in videos.list(limit=2)]
        told["ascending"] = [video.id for video in videos.list(limit=1, order="asc")]
        told["deleted"] = videos.delete(created.id).to_dict()
        told["gone"] = self.calls.failure_of(lambda: videos.retrieve(created.id))
        told["left"] = [video.id for video in videos.list()]
        self.source, self.clip = third.id, videos.download_content(third.id).read()
        told["kept"] = [third.id, hashlib.sha256(self.clip).hexdigest()]
        return told

    def chapter_references(self) -> dict[str, Any]:
        """Pictures that the type hints promise and the client cannot send: only ``extra_body`` carries them."""
        told = {}
        url = f"data:image/png;base64,{b64encode(self.picture.read_bytes()).decode()}"
        quick = {**QUICK, "seconds": "2"}
        linked = {"input_reference": {"image_url": url}, **quick}
        told["linked"] = self.videos.create_and_poll(prompt="a ball", extra_body=linked).to_dict()
        json_body = {"Content-Type": "application/json"}
        as_json = self.videos.create(prompt="a ball", extra_body=linked, extra_headers=json_body)
        told["as_json"] = self.finished(as_json)
        with self.picture.open("rb") as file:
            uploaded = self.files.create(file=file, purpose="vision")
        stored = {"input_reference": {"file_id": uploaded.id}, **quick}
        told["stored"] = self.videos.create_and_poll(prompt="a ball", extra_body=stored).to_dict()
        # Raw bytes travel as application/octet-stream under the name "upload".
        raw = self.picture.read_bytes()
        told["raw"] = self.videos.create_and_poll(prompt="a ball", input_reference=raw, extra_body=quick).to_dict()
        return told

    def chapter_remakes(self) -> dict[str, Any]:
        told: dict[str, Any] = {"source": self.source}
        source = {"video": {"id": self.source}}
        told["remixed"] = self.finished(self.videos.remix(self.source, prompt="a green ball", extra_body=QUICK))
        prompt, more = "a blue ball", "the ball rolls on"
        if self.has("videos.edit"):
            edited = self.videos.edit(prompt=prompt, video=openai.omit, extra_body={**source, **QUICK})
            edited_file = self.videos.edit(
                prompt=prompt, video=("clip.mp4", self.clip), extra_body={"model": "sora-2", **QUICK}
            )
            told["edited_file"] = self.finished(edited_file)
        else:
            edited = self.post("/videos/edits", {"prompt": prompt, **source, **QUICK})
        told["edited"] = self.finished(edited)
        if self.has("videos.extend"):
            extended = self.videos.extend(prompt=more, seconds="2", video=openai.omit, extra_body={**source, **QUICK})
            extended_file = self.videos.extend(
                prompt=more, seconds="2", video=("clip.mp4", self.clip), extra_body={"model": "sora-2", **QUICK}
            )
            told["extended_file"] = self.finished(extended_file)
        else:
            extended = self.post("/videos/extensions", {"prompt": more, "seconds": "2", **source, **QUICK})
        told["extended"] = self.finished(extended)
        return told

    def chapter_characters(self) -> dict[str, Any]:
        if not self.has("videos.create_character"):
            return {}
        told = {}
        mossy = self.videos.create_character(name="Mossy", video=("mossy.mp4", self.clip))
        told["created"] = mossy.to_dict()
        told["retrieved"] = self.videos.get_character(mossy.id).to_dict()
        cast = {"characters": [{"id": mossy.id}], **QUICK}
        met = self.videos.create(prompt="Mossy on a green field", seconds="2", extra_body=cast)
        told["met"] = self.finished(met)
        cast["characters"] *= 3
        told["crowd"] = self.calls.failure_of(lambda: self.videos.create(prompt="Mossy, thrice", extra_body=cast))
        told["gone"] = self.calls.failure_of(lambda: self.videos.get_character("char_" + "0" * 32))
        return told

    def chapter_files(self) -> dict[str, Any]:
        files, told = self.files, {}
        lines = b'{"a": 1}\n{"a": 2}\n'
        created = files.create(file=("notes.jsonl", lines), purpose="user_data")
        told["created"] = created.to_dict()
        told["processed"] = files.wait_for_processing(created.id).to_dict()
        told["retrieved"] = files.retrieve(created.id).to_dict()
        told["content"] = files.content(created.id).read().decode()
        told["text"] = files.retrieve_content(created.id)
        second = files.create(file=("more.jsonl", lines), purpose="user_data")
        told["made"] = [created.id, second.id]
        told["listed"] = [file.id for file in files.list(purpose="user_data", limit=1)]
        told["ascending"] = [file.id for file in files.list(purpose="user_data", limit=1, order="asc")]
        told["deleted"] = files.delete(created.id).to_dict()
        told["gone"] = self.calls.failure_of(lambda: files.retrieve(created.id))
        return told

    def _batch_of(self, *bodies: dict[str, Any], metadata: dict[str, str]) -> Any:
        lines = (
            {"custom_id": f"shot-{number}", "method": "POST", "url": "/v1/videos", "body": body}
            for number, body in enumerate(bodies, start=1)
        )
        text = "\n".join(json.dumps(line) for line in lines)
        file = self.files.create(file=("batch.jsonl", text.encode()), purpose="batch")
        return self.batches.create(
            input_file_id=file.id, endpoint="/v1/videos", completion_window="24h", metadata=metadata
        )

    def _settled(self, batch: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while batch.status in {"validating", "in_progress", "finalizing", "cancelling"}:
            assert time.monotonic() < deadline, batch
            time.sleep(0.2)
            batch = self.batches.retrieve(batch.id)
        return batch

    def chapter_batches(self) -> dict[str, Any]:
        told = {}
        good = {"prompt": "a red ball", "seconds": "2", **QUICK}
        created = self._batch_of(good, {**good, "size": "1x1"}, metadata={"film": "one"})
        told["created"] = created.to_dict()
        done = self._settled(created)
        told["done"] = done.to_dict()
        told["output"] = self._lines_of(done.output_file_id)
        told["errors"] = self._lines_of(done.error_file_id)
        cancelled = self._batch_of(*[good] * 3, metadata={})
        told["cancelling"] = self.batches.cancel(cancelled.id).status
        told["cancelled"] = self._settled(cancelled).to_dict()
        told["made"] = [created.id, cancelled.id]
        told["listed"] = [batch.id for batch in self.batches.list(limit=1)]
        told["gone"] = self.calls.failure_of(lambda: self.batches.retrieve("batch_" + "0" * 32))
        return told

    def _lines_of(self, file_id: str) -> list[Any]:
        return [json.loads(line) for line in self.files.content(file_id).read().decode().splitlines()]

    def chapter_models(self) -> dict[str, Any]:
        told: dict[str, Any] = {"listed": [model.id for model in self.models.list()]}
        told["retrieved"] = self.models.retrieve("sora-2").to_dict()
        told["gone"] = self.calls.failure_of(lambda: self.models.retrieve("no-such-model"))
        # A method of the client that has no meaning here: it deletes fine-tuned models.
        told["undeletable"] = self.calls.failure_of(lambda: self.models.delete("sora-2"))
        return told

    def chapter_webhooks(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        wanted = {"name": "mine", "event_types": ["video.completed"]}
        with receiver() as (url, arrived):
            if self.has("webhooks.create"):
                endpoint = self.webhooks.create(url=url, **wanted).to_dict()
            else:
                endpoint = self.post("/webhook_endpoints", {"url": url, **wanted})
            told["created"] = endpoint
            video = self.videos.create(prompt="a red ball", seconds="2", extra_body=QUICK)
            body, headers = arrived.get(timeout=PATIENCE_S)
            secret = endpoint["signing_secret"]
            self.webhooks.verify_signature(body, headers, secret=secret)
            event = self.webhooks.unwrap(body, headers, secret=secret)
            told["event"] = {"type": event.type, "about": event.data.id, "video": video.id, "id": event.id}
            try:
                self.client.webhooks.verify_signature(body + b" ", headers, secret=secret)
            except openai.InvalidWebhookSignatureError:
                told["forged"] = "refused"
            if self.has("webhooks.create"):
                told |= self._manage(endpoint["id"], arrived)
            else:
                self.client.delete(f"/webhook_endpoints/{endpoint['id']}", cast_to=object)
        return told

    def _manage(self, endpoint_id: str, arrived: queue.Queue[tuple[bytes, dict[str, str]]]) -> dict[str, Any]:
        hooks, told = self.webhooks, {}
        told["retrieved"] = hooks.retrieve(endpoint_id).to_dict()
        told["updated"] = hooks.update(endpoint_id, name="renamed").to_dict()
        told["listed"] = [endpoint.id for endpoint in hooks.list()]
        rotated = hooks.rotate_secret(endpoint_id).to_dict()
        told["rotated"] = rotated
        told["tested"] = hooks.test(endpoint_id, event_type="video.completed").to_dict()
        body, headers = arrived.get(timeout=PATIENCE_S)
        told["test_event"] = hooks.unwrap(body, headers, secret=rotated["signing_secret"]).type
        told["event_types"] = list(hooks.event_types.list().data)
        told["deleted"] = hooks.delete(endpoint_id).to_dict()
        told["gone"] = self.calls.failure_of(lambda: hooks.retrieve(endpoint_id))
        return told

    def chapter_refusals(self) -> dict[str, Any]:
        create, failure_of = self.videos.create, self.calls.failure_of
        return {
            "bad_size": failure_of(lambda: create(prompt="a", size="1x1")),
            "bad_model": failure_of(lambda: create(prompt="a", model="no-such-model")),
            "bad_name": failure_of(lambda: create(prompt="a", extra_body={"colour": "red"})),
        }


@contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[tuple[bytes, dict[str, str]]]]]:
    """Listen for webhooks; yield the address and what arrives there."""
    arrived: queue.Queue[tuple[bytes, dict[str, str]]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.put((self.rfile.read(int(self.headers["content-length"])), dict(self.headers)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is its
            """Standard output is for what was told."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", arrived
        finally:
            server.shutdown()


def main(base_url: str, key: str, picture: str) -> None:
    session = Session(base_url, key, Path(picture))
    told: dict[str, Any] = {"version": openai.__version__, "crashed": {}, "chapters": {}}
    for name in ("videos", "references", "remakes", "characters", "files", "batches", "models", "webhooks", "refusals"):
        try:
            told["chapters"][name] = getattr(session, f"chapter_{name}")()
        except Exception:  # noqa: BLE001 - the other chapters are to be told as well
            told["crashed"][name] = traceback.format_exc()
    told["offered"] = session.offered()
    told["called"] = session.calls.outcomes
    # Whatever is printed on the way must not be taken for what was told.
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
