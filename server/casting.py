"""Characters on their way in and out: made from a clip or a picture, and called for by the videos that show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, BinaryIO, cast

from starlette.datastructures import UploadFile

from server import clips, images
from server.characters import CHARACTER_ID, PREFIX, Character, CharacterId, CharacterNotFound
from server.disk import written_whole
from server.errors import InvalidRequest, NotFound, quoted
from server.forms import Fields, Value, parse_object
from server.ids import new_id
from server.parameters import CharacterCreate
from server.quota import Quota
from server.references import PICTURE, chunks, head_of, picture_of, unwrapped
from server.retrieval import stored
from server.validation import Medium, validated

if TYPE_CHECKING:
    from pydantic import JsonValue

    from server.deps import Caller, Services

MAX_CHARACTERS = 2
# Longer than what is looked at of a character; a clip to edit may be ten times as long.
MAX_CHARACTER_S = 20.0
CHARACTERS, IMAGE = "characters", "image"
CAST = Medium(
    f"Up to {MAX_CHARACTERS} characters to show, each named in the prompt",
    {
        "type": "array",
        "maxItems": MAX_CHARACTERS,
        "items": {
            "type": "object",
            "properties": {"id": {"type": "string"}},
            "required": ["id"],
            "additionalProperties": False,
        },
    },
    is_file=False,
)
_FILE_ID: Mapping[str, JsonValue] = {
    "type": "object",
    "properties": {"file_id": {"type": "string", "description": "Id of a file with the purpose vision or user_data"}},
    "required": ["file_id"],
    "additionalProperties": False,
}
PORTRAIT = {
    clips.PARAM: Medium("A short MP4 of the character, or a picture of it", _FILE_ID),
    IMAGE: Medium("A JPEG, PNG or WebP picture of the character, in place of video", PICTURE.schema),
}
_WAYS = 'Send a list such as [{"id": "char_…"}].'
_PICTURES = "Send an MP4, JPEG, PNG or WebP file part."


def cast_of(value: Value, caller: Caller, services: Services) -> tuple[Character, ...]:
    """Return the characters that ``characters`` names.

    Raises:
        InvalidRequest: It is no list of so few ids.
        NotFound: One of them is no character of the caller's.
    """
    named = _listed(value)
    if len(named) > MAX_CHARACTERS:
        message = f"At most {MAX_CHARACTERS} characters can be shown at a time; {len(named)} were given."
        raise InvalidRequest(message, param=CHARACTERS)
    found: list[Character] = []
    for entry in named:
        match entry:
            case {"id": str(character_id), **rest} if not rest:
                found.append(character(character_id, caller, services, param=CHARACTERS))
            case _:
                raise InvalidRequest(f"Invalid type for 'characters'. {_WAYS}", param=CHARACTERS, code="invalid_type")
    if len({one.id for one in found}) < len(found):
        raise InvalidRequest("'characters' names the same one twice.", param=CHARACTERS)
    return tuple(found)


def character(character_id: str, caller: Caller, services: Services, *, param: str = "character_id") -> Character:
    """Return one of the caller's characters.

    Raises:
        NotFound: There is none of this id.
    """
    try:
        if CHARACTER_ID.fullmatch(character_id):
            return services.characters.get(character_id, caller.owner)
    except CharacterNotFound:
        pass
    raise NotFound(f"There is no character {quoted(character_id)}.", param=param, code="character_not_found")


def unnamed(characters: tuple[Character, ...], prompt: str) -> tuple[str, ...]:
    """Return a warning for each character that the prompt does not speak of."""
    return tuple(f"the prompt does not name the character {quoted(c.name)}" for c in characters if c.name not in prompt)


def create_character(fields: Fields, caller: Caller, services: Services) -> Character:
    """Keep a character. When this returns, it survives a crash; when it raises, nothing has been stored.

    Raises:
        InvalidRequest: A parameter is unknown, malformed or missing, or the clip cannot be read.
        InvalidImage: The picture cannot be read.
    """
    file, param = _shown(fields, caller, services)
    named = validated(CharacterCreate, fields, PORTRAIT)
    created_at = services.now()
    character_id = CharacterId(new_id(PREFIX, created_at))
    suffix = images.kind_of(head_of(file))
    try:
        path = services.characters.original_path(character_id, suffix or ".mp4")
        with written_whole(path) as target:
            target.writelines(chunks(file))
        with services.decoders.taken():
            if suffix:
                images.check(path, services.settings.max_image_pixels, param=param)
            else:
                still = services.characters.still_path(character_id)
                max_pixels = services.settings.max_video_pixels
                clips.inspect(path, max_pixels=max_pixels, max_seconds=MAX_CHARACTER_S, still=still)
        made = Character(character_id, caller.owner, named.name, "image" if suffix else "video", created_at)
        services.characters.add(made, Quota("characters", services.settings.max_characters))
    except BaseException:
        services.characters.discard(character_id)
        raise
    return made


def _listed(value: Value) -> list[Value]:
    if isinstance(value, str):
        # Written by hand for curl: a list or an object in a text part.
        text = value if value.lstrip().startswith("[") else f"[{value}]"
        value = parse_object(f'{{"listed": {text}}}')["listed"]
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequest(f"Invalid type for 'characters'. {_WAYS}", param=CHARACTERS, code="invalid_type")
    return cast("list[Value]", value)


def _shown(fields: Fields, caller: Caller, services: Services) -> tuple[BinaryIO, str]:
    """Return the file that shows the character, and the parameter that it came in."""
    video, image = fields.pop(clips.PARAM, None), fields.pop(IMAGE, None)
    if video is not None and image is not None:
        message = "video and image both show the character: give one of the two."
        raise InvalidRequest(message, param=IMAGE, code="conflicting_parameters")
    if image is not None:
        file, param = picture_of(image, caller, services, IMAGE), IMAGE
    else:
        file, param = _clip_of(video, caller, services), clips.PARAM
    if file is None:
        raise InvalidRequest(f"Missing required parameter: 'video'. {_PICTURES}", param=param, code="missing_parameter")
    head = head_of(file)
    if not images.kind_of(head) and not (param == clips.PARAM and clips.is_mp4(head)):
        code = clips.CODE if param == clips.PARAM else "invalid_image"
        raise InvalidRequest(f"{param} is not a file that can be read. {_PICTURES}", param=param, code=code)
    return file, param


def _clip_of(value: Value, caller: Caller, services: Services) -> BinaryIO | None:
    match unwrapped(value):
        case UploadFile() as upload:
            return upload.file
        case {"file_id": str(file_id), **rest} if not rest:
            return stored(file_id, f"{clips.PARAM}.file_id", caller, services)
        case None:
            return None
        case _:
            message = f"Invalid type for '{clips.PARAM}'. {_PICTURES}"
            raise InvalidRequest(message, param=clips.PARAM, code="invalid_type")
