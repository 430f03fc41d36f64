"""Batches: many videos from one file of requests."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from server.batch_types import BATCH_ID, BatchId, new_batch
from server.batches import BatchNotFound
from server.deps import BodyDep, CallerDep, ServicesDep
from server.errors import InvalidRequest, NotFound
from server.file_schemas import BatchCreate, BatchList, BatchObject
from server.files import FileNotFound
from server.quota import Quota
from server.routes.files import valid_id as valid_file_id
from server.schemas import DEFAULT_PAGE, MAX_PAGE
from server.validation import openapi_body, validated

router = APIRouter(prefix="/v1/batches", tags=["batches"])


def _valid_id(text: str) -> BatchId:
    batch_id = BatchId(text)
    if not BATCH_ID.fullmatch(text):
        raise BatchNotFound(batch_id)
    return batch_id


def _path_id(batch_id: Annotated[str, Path(description="Id of a batch")]) -> BatchId:
    return _valid_id(batch_id)


BatchIdDep = Annotated[BatchId, Depends(_path_id)]


@router.post("", openapi_extra=openapi_body(BatchCreate, {}))
def create_batch(body: BodyDep, caller: CallerDep, services: ServicesDep) -> BatchObject:
    """Accept a file of requests. They are looked at next, and carried out as the queue has room."""
    create = validated(BatchCreate, body.fields(), {})
    try:
        file = services.files.get(valid_file_id(create.input_file_id), caller.owner)
    except FileNotFound as error:
        message = "There is no such file. Upload one with POST /v1/files and the purpose 'batch'."
        raise NotFound(message, param="input_file_id", code="file_not_found") from error
    if file.purpose != "batch":
        message = f"The purpose of this file is '{file.purpose}'; it must be 'batch'."
        raise InvalidRequest(message, param="input_file_id", code="invalid_purpose")
    batch = new_batch(
        caller.owner,
        file.id,
        services.now(),
        metadata=create.metadata,
        output_expires_s=create.output_expires_after and create.output_expires_after.seconds,
    )
    services.batches.add(batch, Quota("batches", services.settings.max_batches, "Wait until one has ended"))
    return BatchObject.of(batch)


@router.get("")
def list_batches(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = DEFAULT_PAGE,
) -> BatchList:
    """List batches, the newest first; go on with ``after=last_id``."""
    try:
        cursor = None if after is None else _valid_id(after)
    except BatchNotFound as error:
        raise InvalidRequest("'after' must be the last_id of the page before.", param="after") from error
    page = services.batches.list(after=cursor, limit=limit, owner=caller.owner)
    return BatchList.of([BatchObject.of(batch) for batch in page.batches], has_more=page.has_more)


@router.get("/{batch_id}")
def retrieve_batch(batch_id: BatchIdDep, caller: CallerDep, services: ServicesDep) -> BatchObject:
    """Say how a batch is doing."""
    return BatchObject.of(services.batches.get(batch_id, caller.owner))


@router.post("/{batch_id}/cancel")
def cancel_batch(batch_id: BatchIdDep, caller: CallerDep, services: ServicesDep) -> BatchObject:
    """Make no further videos, and stop those that are being made. What is finished stays; an ended batch does too."""
    return BatchObject.of(services.batches.request_cancel(batch_id, caller.owner))
