"""Files: upload, look at, list, download, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile

from server.deps import CallerDep, Services, ServicesDep
from server.downloads import Download
from server.errors import InvalidRequest, PayloadTooLarge
from server.file_schemas import FileCreate, FileDeleted, FileList, FileObject
from server.files import FILE_ID, FileId, FileNotFound, StoredFile, new_file
from server.forms import Body, open_body
from server.jobs import Owner
from server.quota import Quota
from server.references import chunks
from server.validation import Medium, openapi_body, validated

router = APIRouter(prefix="/v1/files", tags=["files"])

MAX_PAGE = 10_000
# The file's neighbours in the form, which are short.
_OVERHEAD_BYTES = 1_000_000
_FILE = Medium("the file's content, as a file part with a file name", {"type": "string"}, is_required=True)
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {"description": "The range that was asked for"},
    304: {"description": "The client has it already"},
}


def _create_body() -> dict[str, Any]:
    described = openapi_body(FileCreate, {"file": _FILE})
    # A file cannot be said in JSON.
    described["requestBody"]["content"].pop("application/json")
    return described


async def _form(request: Request, services: ServicesDep) -> AsyncIterator[Body]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        message = "Send the file as multipart/form-data, with the parts 'purpose' and 'file'."
        raise InvalidRequest(message, code="invalid_body")
    max_bytes = services.settings.max_file_mb * 1_000_000 + _OVERHEAD_BYTES
    async with open_body(request, max_bytes, services.landing, max_text_bytes=_OVERHEAD_BYTES) as body:
        yield body


def _path_id(file_id: Annotated[str, Path(description="Id of a file")]) -> FileId:
    return valid_id(file_id)


def valid_id(text: str) -> FileId:
    """Return the id of a file, which may or may not exist.

    Raises:
        FileNotFound: No file has ids of this shape; the database is not asked.
    """
    file_id = FileId(text)
    if not FILE_ID.fullmatch(text):
        raise FileNotFound(file_id)
    return file_id


FileIdDep = Annotated[FileId, Depends(_path_id)]


@router.post("", openapi_extra=_create_body())
def create_file(body: Annotated[Body, Depends(_form)], caller: CallerDep, services: ServicesDep) -> FileObject:
    """Keep a file. It survives a crash of the server from the moment of this answer."""
    fields = body.fields()
    upload = fields.pop("file", None)
    create = validated(FileCreate, fields, {"file": _FILE})
    if not isinstance(upload, UploadFile):
        problem = "Missing required parameter: 'file'." if upload is None else "Invalid type for 'file'."
        code = "missing_parameter" if upload is None else "invalid_type"
        raise InvalidRequest(f"{problem} Expected {_FILE.description}.", param="file", code=code)
    return FileObject.of(_keep(upload, create, caller.owner, services))


@router.get("")
def list_files(
    caller: CallerDep,
    services: ServicesDep,
    after: str | None = None,
    limit: Annotated[int, Query(ge=0, le=MAX_PAGE)] = MAX_PAGE,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> FileList:
    """List files by creation, the newest first; go on with ``after=last_id``, also if that file is deleted."""
    try:
        cursor = None if after is None else valid_id(after)
    except FileNotFound as error:
        raise InvalidRequest("'after' must be the last_id of the page before.", param="after") from error
    page = services.files.list(
        after=cursor, limit=limit, newest_first=order == "desc", owner=caller.owner, purpose=purpose
    )
    return FileList.of([FileObject.of(file) for file in page.files], has_more=page.has_more)


@router.get("/{file_id}")
def retrieve_file(file_id: FileIdDep, caller: CallerDep, services: ServicesDep) -> FileObject:
    """Say what a file is."""
    return FileObject.of(services.files.get(file_id, caller.owner))


@router.head("/{file_id}/content", include_in_schema=False)
@router.get("/{file_id}/content", response_class=FileResponse, responses=_BYTES)
def download_file(file_id: FileIdDep, request: Request, caller: CallerDep, services: ServicesDep) -> Response:
    """Send a file's content; ranges and conditional requests are honoured."""
    file = services.files.get(file_id, caller.owner)
    path = services.files.content(file_id, caller.owner)
    return Download.named(path, file.filename, "application/octet-stream", tag=file.id, request_headers=request.headers)


@router.delete("/{file_id}")
def delete_file(file_id: FileIdDep, caller: CallerDep, services: ServicesDep) -> FileDeleted:
    """Delete a file. A batch that reads it goes on."""
    services.files.delete(file_id, caller.owner)
    return FileDeleted(id=file_id)


def _keep(upload: UploadFile, create: FileCreate, owner: Owner, services: Services) -> StoredFile:
    settings = services.settings
    size = upload.size or 0
    if size == 0:
        raise InvalidRequest("The file is empty.", param="file", code="empty_file")
    if size > settings.max_file_mb * 1_000_000:
        raise PayloadTooLarge(f"The file is larger than {settings.max_file_mb} MB.", param="file")
    lifetime_s = create.expires_after and create.expires_after.seconds
    new = new_file(owner, create.purpose, upload.filename or "upload", services.now(), size=size, lifetime_s=lifetime_s)
    return services.files.add(
        new,
        chunks(upload.file),
        max_total_bytes=int(settings.max_files_gb * 1e9),
        quota=Quota("files", settings.max_files),
    )
