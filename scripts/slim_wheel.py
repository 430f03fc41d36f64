"""Take files out of a wheel: python -m scripts.slim_wheel WHEEL PATTERN"""

from __future__ import annotations

import sys
import zipfile
from fnmatch import fnmatch
from pathlib import Path


def main(wheel: str, pattern: str) -> None:
    path = Path(wheel)
    slim = path.with_suffix(".tmp")
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(slim, "w", zipfile.ZIP_DEFLATED) as left:
        for item in whole.infolist():
            if not fnmatch(item.filename, pattern):
                left.writestr(item, whole.read(item))
    slim.replace(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
