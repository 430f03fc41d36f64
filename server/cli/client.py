"""A Homereel server as the commands see it: plain HTTP, errors as sentences."""

from __future__ import annotations

import mimetypes
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from server.cli.outcome import Failure, Outcome
from server.jobs import JobStatus
from server.schemas import Health, Ready, Video, VideoList, Worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydantic import JsonValue

_OPEN = frozenset({JobStatus.QUEUED, JobStatus.IN_PROGRESS})
# Without the server's hint, OpenAI's own client asks once a second.
DEFAULT_POLL_S, MIN_POLL_S, MAX_POLL_S = 1.0, 0.1, 2.0


class Busy(Failure):
    """The server takes no more at the moment; worth another try in ``retry_s`` seconds."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class Client:
    """One server. Every method raises ``Failure`` with a sentence for the person at the terminal."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # A server that is busy with its disk may take seconds; one that is not there refuses at once.
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=httpx2.Timeout(30, connect=5))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def alive(self) -> bool:
        """Tell whether a Homereel server answers there."""
        try:
            Health.model_validate_json(self._http.get("/health").content)
        except (httpx2.HTTPError, ValidationError):
            return False
        return True

    def create(self, fields: Mapping[str, JsonValue], pictures: Mapping[str, Path] | None = None) -> Video:
        """Ask for a video, with pictures by the names of their fields."""
        if not pictures:
            return _video(self._send("POST", "/v1/videos", json=dict(fields)))
        with ExitStack() as opened:
            files = {name: _picture(path, opened) for name, path in pictures.items()}
            return _video(self._send("POST", "/v1/videos", data=_form(fields), files=files))

    def make(self, path: str, fields: Mapping[str, JsonValue], video: Path | None = None) -> Video:
        """Ask for a video that is made from others, as JSON; or from the file ``video``, as a form."""
        if video is None:
            return _video(self._send("POST", path, json=dict(fields)))
        return _video(self.upload(path, fields, video))

    def upload(self, path: str, fields: Mapping[str, JsonValue], video: Path) -> httpx2.Response:
        """Send a form with an MP4."""
        try:
            with video.open("rb") as content:
                return self._send("POST", path, data=_form(fields), files={"video": (video.name, content, "video/mp4")})
        except OSError as error:
            raise Failure(f"cannot read {video}: {error.strerror}", Outcome.MISUSED) from error

    def ask(self, method: str, path: str, body: JsonValue = None, **query: str | int | bool | None) -> Any:
        """Return the JSON of any call's answer. What is None in the query is left out."""
        asked = {name: str(value) for name, value in query.items() if value is not None}
        return self._send(method, path, params=asked, **({} if body is None else {"json": body})).json()

    def picture(self, video_id: str, *, finished: bool) -> bytes | None:
        """Return a WebP of a video, moving while it is made; None if there is none."""
        place = "content?variant=thumbnail" if finished else "preview"
        try:
            response = self._http.get(f"/v1/videos/{quote(video_id, safe='')}/{place}")
        except httpx2.HTTPError:
            return None
        return response.content if response.status_code == 200 else None

    def retrieve(self, video_id: str) -> tuple[Video, float]:
        """Return a video, and in how many seconds to ask again."""
        response = self._send("GET", f"/v1/videos/{quote(video_id, safe='')}")
        hint = response.headers.get("openai-poll-after-ms", "")
        wait_s = int(hint) / 1000 if hint.isdecimal() else DEFAULT_POLL_S
        return _video(response), min(max(wait_s, MIN_POLL_S), MAX_POLL_S)

    def cancel(self, video_id: str) -> Video:
        """Stop a video that waits or runs; one that has ended stays as it is."""
        return _video(self._send("POST", f"/v1/videos/{quote(video_id, safe='')}/cancel"))

    def download(self, video_id: str, target: Path) -> None:
        """Write the MP4. ``target`` appears whole or not at all."""
        partial = target.with_name(f".{target.name}.{video_id}.part")
        try:
            with (
                self._http.stream("GET", f"/v1/videos/{quote(video_id, safe='')}/content") as response,
                partial.open("wb") as file,
            ):
                if response.is_error:
                    response.read()
                    raise _refusal(response)
                for chunk in response.iter_bytes():
                    file.write(chunk)
            partial.replace(target)
        except httpx2.HTTPError as error:
            raise self._lost(error) from error
        except OSError as error:
            raise Failure(f"cannot write {target}: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)

    def workers(self) -> list[Worker]:
        """Return the workers that are up."""
        try:
            response = self._http.get("/ready")
        except httpx2.HTTPError as error:
            raise self._lost(error) from error
        return Ready.model_validate_json(response.content).workers if response.is_success else []

    def open_videos(self) -> Iterator[Video]:
        """Yield the videos that wait or run, newest first."""
        query = {"limit": "100"}
        while True:
            page = VideoList.model_validate_json(self._send("GET", "/v1/videos", params=query).content)
            still_open = [video for video in page.data if video.status in _OPEN]
            yield from still_open
            # Videos are made in the order they were asked for: behind a page of ended ones there are only more.
            if not page.has_more or not still_open:
                return
            query["after"] = page.data[-1].id

    def _send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx2.HTTPError as error:
            raise self._lost(error) from error
        if response.is_error:
            raise _refusal(response)
        return response

    def _lost(self, error: httpx2.HTTPError) -> Failure:
        if isinstance(error, httpx2.ConnectError):
            message = f"no server answers at {self.url}; start one with: homereel serve"
            return Failure(message, is_connection=True)
        return Failure(f"the connection to {self.url} failed: {error or type(error).__name__}", is_connection=True)


def _form(fields: Mapping[str, JsonValue]) -> dict[str, str | list[str]]:
    """Return fields as those of a form, with lists of objects as OpenAI's clients send them: ``name[][key]``."""
    told: dict[str, str | list[str]] = {}
    for name, value in fields.items():
        if isinstance(value, list):
            objects = [item for item in value if isinstance(item, dict)]
            told |= {f"{name}[][{key}]": [str(item[key]) for item in objects] for key in objects[0]}
        else:
            told[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return told


def _picture(path: Path, opened: ExitStack) -> tuple[str, IO[bytes], str]:
    """Open a picture for sending, until ``opened`` is closed."""
    try:
        content = opened.enter_context(path.open("rb"))
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}", Outcome.MISUSED) from error
    return path.name, content, mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _video(response: httpx2.Response) -> Video:
    try:
        return Video.model_validate_json(response.content)
    except ValidationError as error:
        raise Failure(f"{response.url} does not answer like a video server") from error


def _refusal(response: httpx2.Response) -> Failure:
    """Turn OpenAI's error envelope, or whatever else came back, into one sentence."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = f"{response.url} answered {response.status_code} {response.reason_phrase}"
    if response.status_code == 401:
        message = f"{message} (this command sends what HOMEREEL_API_KEY says)"
    if response.status_code == 429:
        wait = response.headers.get("retry-after", "")
        return Busy(str(message), float(wait) if wait.isdecimal() else DEFAULT_POLL_S)
    return Failure(str(message), Outcome.MISUSED if response.status_code in {400, 422} else Outcome.FAILED)
