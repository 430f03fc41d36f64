"""Pictures that come from outside: checked before anything trusts them, then fitted to a clip."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.errors import InvalidImage
from pipelines.types import GenerationRequest, Given, ImageCondition

FORMATS = ("JPEG", "PNG", "WEBP")
MIN_SIDE = 8
MAX_PIXELS = 64_000_000


def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read a picture whole, upright and as RGB.

    Raises:
        InvalidImage: It is not a JPEG, PNG or WebP picture, it is cut short, or it claims too many pixels. The size
            is checked before any pixel is decoded.
    """
    try:
        with warnings.catch_warnings():
            # Pillow's own bomb warning; the limit below is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                _check_size(picture.width, picture.height, max_pixels)
                picture.load()
                upright = ImageOps.exif_transpose(picture)
                return upright.convert("RGB")
    except UnidentifiedImageError as error:
        raise InvalidImage("The file is not a JPEG, PNG or WebP image.", param="input_reference") from error
    except Image.DecompressionBombError as error:
        raise InvalidImage(
            f"The image is too large; at most {max_pixels // 1_000_000} million pixels are read.",
            param="input_reference",
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise InvalidImage("The image is damaged or incomplete.", param="input_reference") from error


def check_image(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return width and height of a picture that ``open_image`` will read.

    Raises:
        InvalidImage: It will not.
    """
    return open_image(path, max_pixels).size


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise InvalidImage(
            f"The image is {width}x{height} pixels; each side must have at least {MIN_SIDE}.",
            param="input_reference",
        )
    if width * height > max_pixels:
        raise InvalidImage(
            f"The image is {width}x{height} pixels; at most {max_pixels // 1_000_000} million are read.",
            param="input_reference",
        )


def fitted(condition: ImageCondition, width: int, height: int) -> Image.Image:
    """Return the condition's picture at exactly this size.

    Raises:
        InvalidImage: It cannot be read, or ``exact`` was asked for and it has another size.
    """
    picture = open_image(condition.path)
    match condition.fit:
        case "cover":
            return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
        case "contain":
            return ImageOps.pad(picture, (width, height), Image.Resampling.LANCZOS, color=(0, 0, 0))
        case "exact":
            return _exactly(picture, width, height)


def _exactly(picture: Image.Image, width: int, height: int) -> Image.Image:
    if picture.size != (width, height):
        raise InvalidImage(
            f"The image is {picture.width}x{picture.height}; it must be exactly {width}x{height}.",
            param="input_reference",
        )
    return picture


def beginning(pictures: Mapping[Path, Image.Image], request: GenerationRequest, given: Given) -> Image.Image:
    """Return the picture that a window begins with: the last frame of what is there, or the one for the first frame.

    Args:
        pictures: Those of the request's conditions, by their files.
        request: The window's, with a picture for its first frame unless it goes on from something.
        given: What it goes on from.
    """
    if given.before is not None:
        return Image.fromarray(given.before[0])
    return next(pictures[condition.path] for condition in request.conditions if condition.frame == 0)
