"""What a route may ask for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request

from pipelines.plan import Device
from pipelines.registry import Registry
from server.assets import AssetStore
from server.batches import BatchStore
from server.characters import CharacterStore
from server.delivery import Post
from server.events import Broker
from server.files import FileStore
from server.forms import Body, Landing, open_body
from server.jobs import JOB_ID, JobId, Owner
from server.library import Library
from server.outbox import Outbox
from server.policy import Policy
from server.pulls import Pulls
from server.retries import Turns
from server.settings import Settings
from server.slots import Slots
from server.store import JobNotFound, JobStore
from server.timings import TimingStore
from server.webhooks import EndpointStore


@dataclass(frozen=True)
class Services:
    """The parts that the routes work with; one set per app, from start to shutdown.

    Attributes:
        decoders: For whoever looks at an upload, which takes a process and a few hundred MB.
        fetches: For whoever asks an address that a client has named, which may not answer for long.
    """

    settings: Settings
    registry: Registry
    store: JobStore
    assets: AssetStore
    characters: CharacterStore
    timings: TimingStore
    files: FileStore
    batches: BatchStore
    outbox: Outbox
    events: Broker
    endpoints: EndpointStore
    post: Post
    library: Library
    pulls: Pulls
    now: Callable[[], float] = time.time
    landing: Landing = field(default_factory=Landing)
    decoders: Slots = field(default_factory=lambda: Slots(at_once=2, waiting=8))
    fetches: Slots = field(default_factory=lambda: Slots(at_once=6, waiting=6))
    policy: Policy = field(default_factory=Policy)
    turns: Turns = field(default_factory=Turns)
    device: Callable[[], Device | None] = lambda: None
    """What the first worker runs on, for predictions; None if nobody can tell."""


def _services(request: Request) -> Services:
    return request.app.state.services


ServicesDep = Annotated[Services, Depends(_services)]


@dataclass(frozen=True)
class Caller:
    """Who asks: the key that came with the request, or ``NOBODY`` on a server without keys."""

    owner: Owner


def _caller(request: Request) -> Caller:
    # Put there by server.auth; that it is missing is a fault of ours and must not let anybody in.
    return request.state.caller


CallerDep = Annotated[Caller, Depends(_caller)]


def valid_id(text: str) -> JobId:
    """Return the id of a video, which may or may not exist.

    Raises:
        JobNotFound: No video has ids of this shape; the database is not asked.
    """
    job_id = JobId(text)
    if not JOB_ID.fullmatch(text):
        raise JobNotFound(job_id)
    return job_id


def _path_id(video_id: Annotated[str, Path(description="Id of a video")]) -> JobId:
    return valid_id(video_id)


VideoId = Annotated[JobId, Depends(_path_id)]


async def _body(request: Request, services: ServicesDep) -> AsyncIterator[Body]:
    max_bytes = services.settings.max_upload_mb * 1_000_000
    async with open_body(request, max_bytes, services.landing) as body:
        yield body


BodyDep = Annotated[Body, Depends(_body)]
