"""What an MP4 of ours was made of, in the words of a request: drop it back and ask for it again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.datastructures import UploadFile

from pipelines.errors import PipelineError
from pipelines.holdings import as_installed
from pipelines.pieces import Piece, pieces_of
from server import clips, loras
from server.errors import InvalidRequest
from server.ids import new_id
from server.jobs import JobId
from server.joining import MAX_JOINED_S
from server.made import Made, Short
from server.parameters import VideoCreate
from server.references import chunks, head_of, unwrapped
from server.retrieval import stored
from server.validation import Medium, validated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from pipelines.card import ModelCard
    from server.deps import Caller, Services
    from server.forms import Fields, Value

FILE = Medium(
    "An MP4 that was made here, or on another such server",
    {
        "type": "object",
        "properties": {"file_id": {"type": "string", "description": "Id of an uploaded file"}},
        "required": ["file_id"],
        "additionalProperties": False,
    },
    is_required=True,
)
MEDIA = {clips.PARAM: FILE}
_WAYS = "Send an MP4 as a file part."
_FOREIGN = "This video does not say what it was made of: it is not one of Homereel's, or another program rewrote it."
_DAMAGED = "What this video says of itself cannot be read: it is damaged, or of a newer version."


class MadeBy(BaseModel):
    """What made a clip."""

    model: str
    revision: str
    weights: str | None
    licence: str
    versions: dict[str, str] = Field(description="Of libraries, and the device and plan: as the worker noted them.")


class RestoredPart(BaseModel):
    """One of the pieces that a joined clip shows: which frames of which video, and what that was made of."""

    video: str
    start_frame: int
    end_frame: int
    parameters: dict[str, JsonValue] | None
    made_by: MadeBy | None


class Restored(BaseModel):
    """What a clip was made of. ``parameters`` are those of POST /v1/videos, and can be sent there as they are."""

    object: Literal["video.restored"] = "video.restored"
    parameters: dict[str, JsonValue]
    made_by: MadeBy
    warnings: list[str] = Field(description="Why a video that is made from these parameters may be another one.")
    parts: list[RestoredPart] = Field(description="What it was joined from; empty unless it was.")


class RestoreRequest(BaseModel):
    """The parameters of a restoration, besides the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Lora(BaseModel):
    name: Short
    weight: float = 1.0


class _Made(Made):
    """With what a request for the same clip needs, and what is not in the file."""

    size: str
    num_frames: Annotated[int, Field(ge=1)]
    fps: Annotated[int, Field(ge=1)]
    source: dict[str, JsonValue] | None = None
    loras: Annotated[list[_Lora], Field(max_length=64)] = Field(default_factory=list[_Lora])
    references: list[JsonValue] = Field(default_factory=list[JsonValue])
    conditions: list[JsonValue] = Field(default_factory=list[JsonValue])
    revision: Short = ""
    weights: Short | None = None
    licence: Short = ""

    def by(self) -> MadeBy:
        return MadeBy(
            model=self.model,
            revision=self.revision,
            weights=self.weights,
            licence=self.licence,
            versions=self.facts,
        )

    def parameters(self, card: ModelCard | None) -> dict[str, JsonValue]:
        """Return the parameters of a request for the same clip, without those that the card would refuse."""
        frames = self._new_frames()
        length = {"seconds": f"{frames / self.fps:.12g}"} if frames >= self.fps else {"num_frames": frames}
        asked: dict[str, JsonValue] = {
            "model": self.model,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "size": self.size,
            **length,
            "fps": self.fps,
            "seed": self.seed,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": self.guidance_scale,
            "step_cache": self.step_cache,
        }
        if card is not None and card.sampling.guidance_scale_2 is not None:
            asked["guidance_scale_2"] = self.guidance_scale_2
        if card is not None and card.sampling.flow_shift is not None:
            asked["flow_shift"] = self.flow_shift
        if card is not None and "audio" in card.capabilities:
            asked["generate_sound"] = self.sound
        if self.loras:
            asked["lora"] = [{"name": lora.name, "weight": lora.weight} for lora in self.loras]
        return asked

    def _new_frames(self) -> int:
        """Return how many frames were made: those of an extension's source were not."""
        there = (self.source or {}).get("num_frames")
        extends = (self.source or {}).get("use") == "extend"
        return max(1, self.num_frames - there) if extends and isinstance(there, int) else self.num_frames

    def lacking(self) -> list[str]:
        """Say what the clip was made from that is not in the file."""
        told: list[str] = []
        if self.source is not None:
            what = "extended" if self.source.get("use") == "extend" else "edited"
            told.append(f"it {what} another video, which is not in the file: these parameters make a new one")
        if self.conditions:
            told.append("it was made from a picture, which is not in the file: add it again")
        if self.references:
            told.append("it shows characters, which are not in the file: add them again")
        return told


def restore(fields: Fields, caller: Caller, services: Services) -> Restored:
    """Return what the MP4 in a request was made of. Nothing is kept of it.

    Raises:
        InvalidRequest: It is not a sound MP4 within the limits, or says nothing of what it was made of.
    """
    file = _file(fields.pop(clips.PARAM, None), caller, services)
    validated(RestoreRequest, fields, MEDIA)
    # A name of its own in the folder of uploads, which is swept if this process dies.
    job_id = JobId(new_id("video_", services.now()))
    try:
        path = services.assets.save_input(job_id, "restored.mp4", chunks(file))
        with services.decoders.taken():
            max_pixels = services.settings.max_video_pixels
            found = clips.inspect(path, max_pixels=max_pixels, max_seconds=MAX_JOINED_S).provenance
    finally:
        services.assets.delete(job_id)
    return restored(found, services)


def restored(found: Mapping[str, JsonValue], services: Services) -> Restored:
    """Return what a clip was made of, by what is written in it.

    Raises:
        InvalidRequest: That is nothing, or not what we write.
    """
    pieces = pieces_of(found)
    if not pieces:
        made = _made(found)
        parameters, warnings = _asked(made, services)
        return Restored(parameters=parameters, made_by=made.by(), warnings=warnings, parts=[])
    parts = [_part(piece, services) for piece in pieces]
    first = next((part for part in parts if part.parameters and part.made_by), None)
    if first is None or first.parameters is None or first.made_by is None:
        raise InvalidRequest(_FOREIGN, param=clips.PARAM, code="no_metadata")
    warning = f"it was joined from {len(parts)} pieces: these are the parameters of the first that says them"
    return Restored(parameters=first.parameters, made_by=first.made_by, warnings=[warning], parts=parts)


def _file(value: Value, caller: Caller, services: Services) -> BinaryIO:
    match unwrapped(value):
        case UploadFile() as upload:
            file = upload.file
        case {"file_id": str(file_id), **rest} if not rest:
            file = stored(file_id, f"{clips.PARAM}.file_id", caller, services)
        case None:
            message = f"Missing required parameter: 'video'. {_WAYS}"
            raise InvalidRequest(message, param=clips.PARAM, code="missing_parameter")
        case _:
            raise InvalidRequest(f"Invalid type for 'video'. {_WAYS}", param=clips.PARAM, code="invalid_type")
    clips.refuse(head_of(file))
    return file


def _made(found: Mapping[str, JsonValue]) -> _Made:
    if not found:
        raise InvalidRequest(_FOREIGN, param=clips.PARAM, code="no_metadata")
    try:
        return _Made.model_validate(found)
    except ValidationError as error:
        raise InvalidRequest(_DAMAGED, param=clips.PARAM, code="no_metadata") from error


def _part(piece: Piece, services: Services) -> RestoredPart:
    made = _made(piece.made) if piece.made else None
    return RestoredPart(
        video=piece.video,
        start_frame=piece.start_frame,
        end_frame=piece.end_frame,
        parameters=made and _asked(made, services)[0],
        made_by=made and made.by(),
    )


def _asked(made: _Made, services: Services) -> tuple[dict[str, JsonValue], list[str]]:
    """Return the parameters, which are valid, and why they may make another video."""
    card = services.registry.cards.get(made.model)
    parameters = made.parameters(card)
    try:
        create = VideoCreate.model_validate(parameters)
    except ValidationError as error:
        raise InvalidRequest(_DAMAGED, param=clips.PARAM, code="no_metadata") from error
    warnings = made.lacking()
    if card is None:
        return parameters, [*warnings, f"there is no model {made.model} here: choose another"]
    if not as_installed(card):
        return parameters, [*warnings, f"{card.id} is not installed here; fetch it with: homereel pull {card.id}"]
    if made.revision != card.weights.revision:
        warnings.append(f"{card.id} was at revision {made.revision or 'unknown'}, here it is {card.weights.revision}")
    if not made.conditions:
        warnings += _refusals(create, services)
    return parameters, warnings


def _refusals(create: VideoCreate, services: Services) -> list[str]:
    """Say why this server would refuse the request, if it would."""
    try:
        found = loras.found(create.lora, services.settings.loras_dir)
        services.registry.choose(create.model, replace(create.wish(), loras=found))
    except (PipelineError, InvalidRequest) as error:
        return [f"it cannot be asked for here as it was: {error.message}"]
    return []
