"""A real API over a real socket whose videos are finished by the test instead of a worker."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from pipelines.card import ModelCard
from server.app import create_app
from server.assets import AssetStore, Variant
from server.cli.main import main
from server.jobs import JobError, JobId, JobResult, WorkerId
from server.loaded import DeviceMemory, LoadedModel
from server.settings import Settings
from server.store import JobStore
from server.workers import WorkerInfo

WORKER = WorkerId("stand-in")
MP4 = b"\0\0\0\x18ftypmp42 not really a film"


class Stage:
    """The API, and a stand-in for its worker that finishes each video as it is accepted.

    Attributes:
        works: Whether videos are finished at all.
        error: If set, videos fail with it.
        looked_at: Set once somebody has asked for a video's state.
    """

    def __init__(self, settings: Settings) -> None:
        self.store = JobStore.open(settings.database_url)
        self.assets = AssetStore(settings.assets_dir)
        self.url = ""
        self.works = True
        self.error: JobError | None = None
        self.looked_at = threading.Event()
        self._app = create_app(settings, supervise=False)
        self._film = settings.data_dir / "film.mp4"
        self._film.write_bytes(MP4)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def act_then_send(message: Any) -> None:
            # Before the answer leaves: whoever has it finds the video finished.
            if message["type"] == "http.response.start" and scope["path"].startswith("/v1/videos"):
                self._act(scope["method"])
            await send(message)

        await self._app(scope, receive, act_then_send)

    def _act(self, method: str) -> None:
        if method == "GET":
            self.looked_at.set()
        elif method == "POST" and self.works:
            self._finish_all()

    def announce(self) -> None:
        now = time.time()
        models = (LoadedModel("homereel-mini", "float32, all on the device", 49_000_000, now + 90),)
        memory = DeviceMemory("a CPU", 16 * 2**30, 8 * 2**30)
        self.store.announce(WorkerInfo(WORKER, "cpu", 1, "homereel-mini", None, now, models=models, memory=memory))

    def _finish_all(self) -> None:
        for waiting in self.store.waiting():
            self.store.claim(waiting.id, WORKER, lease_s=30)
            if self.error is not None:
                self.store.fail(waiting.id, WORKER, self.error)
                continue
            self.assets.put(waiting.id, Variant.VIDEO, self._film)
            self.store.finish(waiting.id, WORKER, JobResult(stage_s={}, peak_memory_bytes=0))

    def jobs(self) -> list[JobId]:
        return [job.id for job in self.store.list(after=None, limit=100, newest_first=False).jobs]


def _always(_card: ModelCard) -> bool:
    return True


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Stage]:
    # Nothing is generated here, so the weights need not be there.
    monkeypatch.setattr("pipelines.holdings.installed", _always)
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    stage = Stage(settings)
    server = uvicorn.Server(uvicorn.Config(stage, log_config=None, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stage.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("HOMEREEL_URL", stage.url)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield stage
        server.should_exit = True
        thread.join()
    stage.store.close()


@pytest.fixture
def homereel(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: ``status, out, err = homereel("list", "--json")``."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as leaving:  # argparse's way to refuse
            status = int(str(leaving.code))
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run
