from __future__ import annotations

import functools
import io
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from pipelines.registry import Registry, load_registry
from server.app import create_app
from server.assets import Variant
from server.deps import Services
from server.jobs import JobError, JobId, JobResult, WorkerId
from server.settings import Settings
from server.store import JobStore

ANN = WorkerId("ann")
CONTENT = {
    Variant.VIDEO: bytes(range(256)) * 40,
    Variant.THUMBNAIL: b"RIFF....WEBP",
    Variant.SPRITESHEET: b"\xff\xd8\xff and more",
}


@pytest.fixture(scope="module", autouse=True)
def every_card_counts_as_installed() -> Iterator[None]:
    """These tests make no pictures, whether the weights are here or not; sora-2 is what it is on a new machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.holdings.installed", lambda card: True)
        patch.setattr("server.app.load_registry", _registry_of_a_new_machine)
        yield


def _registry_of_a_new_machine(**how: Any) -> Registry:
    registry = load_registry(**how)
    return replace(registry, aliases=dict.fromkeys(registry.aliases, ("homereel-mini",)))


def app_in(folder: Path) -> FastAPI:
    settings = Settings(data_dir=folder, max_queued=20, max_upload_mb=2, max_image_pixels=1_000_000)
    return create_app(settings, supervise=False)


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return app_in(tmp_path)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def services(app: FastAPI, client: TestClient) -> Services:
    return app.state.services


@pytest.fixture
def store(services: Services) -> JobStore:
    return services.store


@pytest.fixture
def create(client: TestClient) -> Callable[..., str]:
    """Post a video and return its id."""

    def post(**parameters: Any) -> str:
        answer = client.post("/v1/videos", json={"prompt": "a red ball", **parameters})
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    return post


@dataclass(frozen=True)
class Hand:
    """Does by hand what a worker does."""

    services: Services
    folder: Path

    def start(self, video_id: str) -> JobId:
        job_id = JobId(video_id)
        assert self.services.store.claim(job_id, ANN, lease_s=60)
        return job_id

    def finish(self, video_id: str) -> None:
        job_id = self.start(video_id)
        for variant, content in CONTENT.items():
            source = self.folder / variant.filename
            source.write_bytes(content)
            self.services.assets.put(job_id, variant, source)
        assert self.services.store.finish(job_id, ANN, JobResult({"encode": 0.5, "denoise": 4.0}, 1_500_000))

    def fail(self, video_id: str) -> None:
        error = JobError("bad_output", "The clip is black.")
        assert self.services.store.fail(self.start(video_id), ANN, error)


@pytest.fixture
def hand(services: Services, tmp_path: Path) -> Hand:
    return Hand(services, tmp_path)


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 40)) -> bytes:
    """A picture with enough detail that cutting it short is felt."""
    into = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(into, kind)
    return into.getvalue()


def refused(answer: Any, status: int = 400) -> dict[str, Any]:
    """Check that the answer is an error in the envelope, and return what is inside."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"}
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["code"]
    assert answer.headers["x-request-id"]
    return error


PROMPT = {"prompt": "a red ball"}


def as_json(client: TestClient, parameters: dict[str, Any]) -> Any:
    return client.post("/v1/videos", json=parameters)


def as_form(client: TestClient, parameters: dict[str, Any]) -> Any:
    return client.post("/v1/videos", files=[(name, (None, str(value))) for name, value in parameters.items()])


@pytest.fixture(params=[as_json, as_form])
def post(request: pytest.FixtureRequest, client: TestClient) -> Callable[[dict[str, Any]], Any]:
    """Post parameters in either encoding."""
    return lambda parameters: request.param(client, parameters)


def send_file(client: TestClient, content: bytes, name: str = "x.png", kind: str = "image/png") -> Any:
    return client.post("/v1/videos", data=PROMPT, files={"input_reference": (name, content, kind)})


def in_pieces(content: bytes, size: int = 60_000) -> Iterator[bytes]:
    return (content[i : i + size] for i in range(0, len(content), size))


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@functools.cache
def movie(frames: int = 16, size: str = "160x96", fps: int = 8, comment: str = "") -> bytes:
    """An MP4 with a picture that moves."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "movie.mp4"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "lavfi"]
        command += ["-i", f"testsrc2=size={size}:rate={fps}", "-frames:v", str(frames), "-pix_fmt", "yuv420p"]
        command += ["-metadata", f"comment={comment}", "-movflags", "+faststart", str(path)]
        subprocess.run(command, check=True)
        return path.read_bytes()


MP4 = ("movie.mp4", "video/mp4")


def send_movie(client: TestClient, path: str, content: bytes, **parameters: Any) -> Any:
    texts = {name: str(value) for name, value in parameters.items()}
    return client.post(path, data=texts, files={"video": (MP4[0], content, MP4[1])})
