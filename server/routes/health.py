"""Is the process alive, and can it make videos? For load balancers and container runtimes."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter

from server.deps import ServicesDep
from server.errors import NotReady
from server.schemas import Health, Ready, Worker, WorkerModel
from server.space import pause_reason
from server.workers import WorkerInfo

router = APIRouter(tags=["operations"])


@router.get("/health")
def health() -> Health:
    """Answer as long as the process lives; nothing else is asked."""
    return Health(version=own_version())


@router.get("/ready")
def ready(services: ServicesDep) -> Ready:
    """Answer 200 once a worker has announced itself, 503 before. A paused queue is named, but no reason to turn away.

    Whoever takes this server out of service while its disk is full takes away the ways to download and to delete.
    """
    workers = services.store.workers()
    if not workers:
        raise NotReady("No worker has announced itself yet. Try again in a second.", headers={"retry-after": "1"})
    reason = pause_reason(services.settings, [worker.paused for worker in workers])
    shown = [_shown(worker) for worker in workers]
    return Ready(status="paused" if reason else "ready", reason=reason, workers=shown)


def _shown(worker: WorkerInfo) -> Worker:
    models = [
        WorkerModel(
            model=loaded.card,
            plan=loaded.plan,
            memory_mb=loaded.memory_bytes / 1e6,
            unload_at=None if loaded.unload_at is None else int(loaded.unload_at),
        )
        for loaded in worker.models or ()
    ]
    memory = worker.memory
    return Worker(
        device=worker.device,
        name=memory and memory.name,
        memory_total_mb=memory and memory.total_bytes / 1e6,
        memory_free_mb=memory and memory.free_bytes / 1e6,
        model=worker.card,
        busy=worker.job is not None,
        models=models,
    )


def own_version() -> str:
    """Return the version of the installed package, or that of a bare checkout."""
    try:
        return version("homereel")
    except PackageNotFoundError:
        return "0.0.0"
