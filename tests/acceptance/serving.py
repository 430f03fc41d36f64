"""A server on a real socket whose worker is a thread with a model that takes no time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest
import uvicorn
import yaml

from server.app import create_app
from server.jobs import WorkerId
from server.settings import Settings
from server.store import JobStore
from server.worker import Drain, Place, Worker
from tests.conftest import FakePipeline, fake_models


@contextmanager
def serving(data_dir: Path) -> Generator[str]:
    """Yield the base URL for clients."""
    settings = Settings(data_dir=data_dir, devices=("cpu",), max_queued=5, allow_private_fetch=True)
    with accepting(settings) as base_url:
        store = JobStore.open(settings.database_url)
        drain = Drain()
        worker = Worker(
            Place(WorkerId("ann"), "cpu", 1), settings, store, drain=drain, models=fake_models(settings, FakePipeline)
        )
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            yield base_url
        finally:
            drain.begin(0)
            thread.join()
            store.close()


def hurry(data_dir: Path) -> Path:
    """Let the model that ships make its clips in two steps, for tests that do not look at them; return the folder."""
    card = yaml.safe_load((Path(str(files("configs"))) / "models" / "homereel-mini.yaml").read_text())
    card["sampling"]["num_inference_steps"] = 2
    models = Settings(data_dir=data_dir).models_dir
    models.mkdir(parents=True)
    # A card of one's own counts before one that ships.
    (models / "homereel-mini.yaml").write_text(yaml.safe_dump(card))
    return data_dir


@contextmanager
def accepting(settings: Settings) -> Generator[str]:
    """Yield the base URL of a server that takes videos and makes none."""
    with (
        pytest.MonkeyPatch.context() as patch,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        _thread_of_uvicorn(settings, listener),
    ):
        # As the command does (server/cli/serve.py): else every answer waits 40 ms, for its header to be acknowledged.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nothing is loaded here: what ships counts as usable, whether its weights are here or not.
        patch.setattr("pipelines.holdings.installed", lambda card: card.weights.package is not None)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@contextmanager
def _thread_of_uvicorn(settings: Settings, listener: socket.socket) -> Generator[None]:
    config = uvicorn.Config(create_app(settings, supervise=False), log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    # The socket listens already: the first request waits in it until the server accepts.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
