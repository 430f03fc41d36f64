"""The composition root: joins settings, registry, store, assets, routes and workers into one app."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache, partial

from anyio import to_thread
from fastapi import FastAPI

from pipelines.registry import load_registry
from server import errors, openapi
from server.assets import AssetStore
from server.auth import Guard, Keyring
from server.batch_runner import BatchThread
from server.batches import BatchStore
from server.characters import CharacterStore
from server.delivery import Deliverer, DeliveryQueue, Poster
from server.deps import Services
from server.devices import first_device
from server.events import Broker
from server.files import FileStore
from server.headers import SafeHeaders
from server.keys import KeyStore
from server.library import Library
from server.outbox import Outbox
from server.policy import Policy
from server.pulls import Pulls, spawn_pull
from server.routes import (
    batches,
    characters,
    derivations,
    events,
    files,
    health,
    metrics,
    models,
    page,
    prompts,
    queue,
    variations,
    videos,
    webhooks,
)
from server.schemas import ErrorEnvelope
from server.settings import Settings
from server.store import JobStore
from server.supervisor import Supervisor
from server.telemetry import Metrics, Telemetry
from server.timings import TimingStore
from server.webhooks import EndpointStore

_log = logging.getLogger(__name__)


def create_app(settings: Settings, *, supervise: bool = True) -> FastAPI:
    """Return the API. It opens the store and starts its workers when served, not before.

    Args:
        settings: Read once; two apps in one process do not meet.
        supervise: Whether to start worker processes; without them, videos wait.

    Raises:
        BadPolicy: The file of rules that the settings name cannot be used.
    """
    registry = load_registry(own=settings.models_dir, accepted=settings.accept_licences)
    for complaint in registry.unreadable:
        _log.warning("card_unreadable %s", complaint)
    measured = Metrics()
    policy = Policy.read(settings.policy)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        store = await to_thread.run_sync(JobStore.open, settings.database_url)
        outbox = Outbox(store.engine, time.time)
        broker = Broker(outbox, store)
        post = Poster(settings)
        app.state.services = Services(
            settings,
            registry,
            store,
            AssetStore(settings.assets_dir),
            CharacterStore(store.engine, settings.characters_dir),
            TimingStore(store.engine),
            FileStore(store.engine, settings.files_dir, time.time),
            BatchStore(store.engine, time.time),
            outbox,
            broker,
            EndpointStore(store.engine, time.time),
            post,
            Library(store.engine, time.time),
            Pulls(partial(spawn_pull, settings.models_dir)),
            # The driver takes its time, and cards do not change: asked when somebody first wants to know.
            policy=policy,
            device=cache(partial(first_device, settings.devices)),
        )
        app.state.keyring = Keyring(KeyStore(store.engine))
        measured.observe_jobs(store, settings)
        supervisor = Supervisor(settings) if supervise else None
        if supervisor:
            supervisor.start()
        batch_thread = BatchThread(app.state.services)
        batch_thread.start()
        deliverer = Deliverer(DeliveryQueue(store.engine, time.time), outbox, post, health.own_version())
        deliverer.start()
        try:
            async with broker.serving():
                yield
        finally:
            workers = [supervisor.stop] if supervisor else []
            for stop in (batch_thread.stop, *workers, deliverer.stop, app.state.services.pulls.close):
                await to_thread.run_sync(stop)
            store.close()

    app = FastAPI(
        title="Homereel",
        version=health.own_version(),
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A client that asks for /v1/videos/ with an empty id shall be told, not sent in circles.
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        responses={
            "4XX": {"model": ErrorEnvelope, "description": "What went wrong, and what would work"},
            "5XX": {"model": ErrorEnvelope, "description": "The server cannot, now or by a mistake of its own"},
        },
    )
    app.state.metrics = measured
    app.add_middleware(Guard, settings=settings)
    # Around the guard: refused requests are named and counted too.
    app.add_middleware(Telemetry, metrics=measured)
    app.add_middleware(SafeHeaders)
    errors.install(app)
    # Fixed names before those that any id fits.
    routers = (
        *(events, derivations, characters, variations, queue, videos),
        *(files, batches, webhooks, prompts, models, health, metrics, page),
    )
    for routes in routers:
        app.include_router(routes.router)
    openapi.complete(app)
    return app
