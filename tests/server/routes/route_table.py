"""Every route of the app, and what a stranger with a key may get from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.server.routes.two_keys import BATCH

PARAMETERS = {
    "{video_id}": "done",
    "{character_id}": "character",
    "{file_id}": "picture",
    "{batch_id}": "batch",
    "{webhook_endpoint_id}": "endpoint",
    "{model}": "group",
    "{template_id}": "template",
    "{star_id}": "star",
}


@dataclass(frozen=True)
class Open:
    """Needs no key, for this reason."""

    reason: str


@dataclass(frozen=True)
class Common:
    """Needs a key and answers every key alike, since it shows nobody's things, for this reason."""

    reason: str
    path: str = ""


@dataclass(frozen=True)
class Refused:
    """Is the operator's: every key is answered 403, for this reason."""

    reason: str
    path: str


@dataclass(frozen=True)
class Listing:
    """Shows the caller's own things only: these kinds of them, under these queries."""

    kinds: tuple[str, ...]
    queries: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Owned:
    """Shows the caller's own things of these kinds, beside what everybody is shown."""

    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Named:
    """Its path names a thing of one of these kinds.

    Attributes:
        kinds: Each is tried; the owner gets through with the first.
        body: What is sent.
        own: The status that the owner gets.
        query: What names the thing, where the path does not; each kind is written as ``{kind}``.
    """

    kinds: tuple[str, ...]
    body: dict[str, Any] | None = None
    own: int = 200
    query: str = ""


@dataclass(frozen=True)
class Making:
    """Makes something of the caller's own. Each body names a thing, written as ``{kind}``, or none at all."""

    bodies: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Streaming:
    """Tells of the caller's own videos and never ends."""


Row = Open | Common | Refused | Listing | Owned | Named | Making | Streaming
VIDEOS = ("done", "waiting")
PICTURED = {"prompt": "a red ball", "input_reference": {"file_id": "{picture}"}}
STARRING = {"prompt": "Mossy is a red ball", "characters": [{"id": "{character}"}]}
AGAIN = {"prompt": "a blue ball", "video": {"id": "{done}"}}

TABLE: dict[str, Row] = {
    "GET /health": Open("says that the process lives, to load balancers"),
    "GET /ready": Open("says that there are workers, to load balancers"),
    "GET /openapi.json": Open("is the same on every server"),
    "HEAD /openapi.json": Open("is the same on every server"),
    "GET /": Open("is the page, which holds nothing of anybody's"),
    "HEAD /": Open("is the page, which holds nothing of anybody's"),
    "GET /studio/{version}/{name:path}": Open("is a part of the page"),
    "HEAD /studio/{version}/{name:path}": Open("is a part of the page"),
    "GET /metrics": Common("counts everybody's videos and shows none"),
    "GET /v1/models": Common("lists what is installed"),
    "GET /v1/models/{model}": Common("describes what is installed", "/v1/models/sora-2"),
    "POST /v1/models/{model}/pull": Refused("fills the disk", "/v1/models/wan2.1-t2v-1.3b/pull"),
    "GET /v1/models/{model}/pull": Refused("goes with fetching", "/v1/models/wan2.1-t2v-1.3b/pull"),
    "DELETE /v1/models/{model}/pull": Refused("goes with fetching", "/v1/models/wan2.1-t2v-1.3b/pull"),
    "GET /v1/webhook_event_types": Common("lists words"),
    "POST /v1/videos": Making(({"prompt": "a red ball"}, PICTURED, STARRING)),
    "GET /v1/videos": Listing(VIDEOS, ("", "?after={done}&order=asc", "?group={group}", "?limit=100")),
    "POST /v1/videos/edits": Making((AGAIN, {**AGAIN, "video": "{done}"})),
    "POST /v1/videos/extensions": Making(({**AGAIN, "seconds": "2"},)),
    "POST /v1/videos/join": Making(({"videos": [{"id": "{done}"}, {"id": "{done}", "end_frame": 3}]},)),
    "POST /v1/videos/restore": Making(()),
    "POST /v1/videos/variations": Making(({"prompt": "a ball", "seeds": [1]}, {**PICTURED, "seeds": [1]})),
    "POST /v1/videos/estimate": Making(({"prompt": "a red ball"}, PICTURED, STARRING)),
    "POST /v1/videos/characters": Making(({"name": "Moss", "image": {"file_id": "{picture}"}},)),
    "GET /v1/videos/characters": Listing(("character",), ("", "?after={character}&order=asc")),
    "GET /v1/videos/characters/{character_id}": Named(("character",)),
    "GET /v1/videos/{video_id}": Named(VIDEOS),
    "POST /v1/videos/{video_id}": Named(VIDEOS, {"starred": True, "metadata": {"a": "b"}, "priority": 5}),
    "GET /v1/videos/{video_id}/content": Named(VIDEOS),
    "HEAD /v1/videos/{video_id}/content": Named(VIDEOS),
    "GET /v1/videos/{video_id}/preview": Named(VIDEOS),
    "GET /v1/videos/{video_id}/events": Named(VIDEOS),
    "POST /v1/videos/{video_id}/remix": Named(VIDEOS, {"prompt": "a blue ball"}),
    "POST /v1/videos/{video_id}/edits": Named(VIDEOS, {"prompt": "a blue ball"}),
    "GET /v1/events": Streaming(),
    "GET /v1/queue": Listing(("waiting",)),
    "GET /v1/prompts/templates": Owned(("template",)),
    "POST /v1/prompts/templates": Making(({"name": "mine", "text": "a ball"},)),
    "GET /v1/prompts/templates/{template_id}": Named(("template",)),
    "POST /v1/prompts/compose": Making(({"beats": [{"template": "{template}", "slots": {"what": "a ball"}}]},)),
    "POST /v1/prompts/starred": Making(({"prompt": "a red ball"},)),
    "GET /v1/prompts/starred": Listing(("star",), ("", "?after={star}")),
    "GET /v1/prompts/log": Listing(VIDEOS, ("", "?q=ball", "?after={done}")),
    "GET /v1/prompts/diff": Named(("done",), query="?a={done}&b={done}"),
    "POST /v1/files": Making(()),
    "GET /v1/files": Listing(("picture", "requests"), ("", "?after={picture}&order=asc", "?purpose=vision")),
    "GET /v1/files/{file_id}": Named(("picture", "requests")),
    "GET /v1/files/{file_id}/content": Named(("picture", "requests")),
    "HEAD /v1/files/{file_id}/content": Named(("picture", "requests")),
    "POST /v1/batches": Making(({**BATCH, "input_file_id": "{requests}"},)),
    "GET /v1/batches": Listing(("batch",), ("", "?after={batch}")),
    "GET /v1/batches/{batch_id}": Named(("batch",)),
    "POST /v1/webhook_endpoints": Making(()),
    "GET /v1/webhook_endpoints": Listing(("endpoint",), ("", "?after={endpoint}")),
    "GET /v1/webhook_endpoints/{webhook_endpoint_id}": Named(("endpoint",)),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}": Named(("endpoint",), {"name": "mine now"}),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/rotate_secret": Named(("endpoint",), {}),
    "POST /v1/webhook_endpoints/{webhook_endpoint_id}/test": Named(("endpoint",), {"event_type": "video.completed"}),
    # What ends things comes last, as the owner goes through the table in order.
    "POST /v1/batches/{batch_id}/cancel": Named(("batch",)),
    "POST /v1/videos/{video_id}/cancel": Named(("waiting", "done")),
    "POST /v1/prompts/templates/{template_id}": Named(("template",), {"name": "mine"}),
    "DELETE /v1/prompts/templates/{template_id}": Named(("template",)),
    "DELETE /v1/prompts/starred/{star_id}": Named(("star",)),
    "DELETE /v1/videos/{video_id}": Named(VIDEOS),
    "DELETE /v1/videos/characters/{character_id}": Named(("character",)),
    "DELETE /v1/files/{file_id}": Named(("picture", "requests")),
    "DELETE /v1/webhook_endpoints/{webhook_endpoint_id}": Named(("endpoint",)),
}
