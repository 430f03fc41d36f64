"""The queue: what is being made, what waits, and for how long."""

from __future__ import annotations

from fastapi import APIRouter

from server.deps import CallerDep, ServicesDep
from server.overview import overview
from server.queue_schemas import Queue

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get("")
def show_queue(caller: CallerDep, services: ServicesDep) -> Queue:
    """Show the caller's running and waiting videos; of others', no more than that they are ahead or behind."""
    return Queue.of(overview(services), caller.owner)
