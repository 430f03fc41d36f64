"""Decodes one picture and says whether it is sound. A process of its own, started by ``images.py``."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from pipelines.errors import InvalidImage
from pipelines.images import check_image

CPU_S = 20
MEMORY_BYTES = 4 << 30


def main(path: str, max_pixels: str) -> None:
    """Write ``{"message": …}`` to standard output; an empty message means that the picture is sound."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    message = ""
    try:
        check_image(Path(path), int(max_pixels))
    except InvalidImage as error:
        message = error.message
    sys.stdout.write(json.dumps({"message": message}))


if __name__ == "__main__":
    main(*sys.argv[1:])
