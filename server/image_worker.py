"""Decodes one picture and says whether it is sound. A process of its own, started by ``images.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.errors import InvalidImage
from pipelines.images import check_image
from server import sandbox


def main(path: str, max_pixels: str) -> None:
    """Tell ``{"message": …, "width": …, "height": …}``; an empty message means that the picture is sound."""
    sandbox.confine()
    message, size = "", (0, 0)
    try:
        size = check_image(Path(path), int(max_pixels))
    except InvalidImage as error:
        message = error.message
    sandbox.tell({"message": message, "width": size[0], "height": size[1]})


if __name__ == "__main__":
    main(*sys.argv[1:])
