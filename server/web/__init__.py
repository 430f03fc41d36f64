"""The page's files: read once, told apart from older ones by their hash, and nothing else about them."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from server.web.shrink import shrunk

FOLDER = Path(__file__).parent
# Everything that the page is made of lies below this path, in a folder that is named after what is in it.
PREFIX = "/studio/"
PAGE = "/"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# In the page: its version, and every module, so that a browser asks for all at once and not for one after the other.
_VERSION, _MODULES = "{version}", "{modules}"


def is_page(path: str) -> bool:
    """Tell whether a path is the page or a part of it: the same on every server, so it is nobody's secret."""
    return path == PAGE or path.startswith(PREFIX)


@dataclass(frozen=True)
class WebFile:
    """One file of the page, as it is sent."""

    media_type: str
    content: bytes
    packed: bytes
    etag: str

    @classmethod
    def of(cls, name: str, content: bytes) -> Self:
        """Prepare a file whose name says what it is."""
        packed = gzip.compress(content, 9, mtime=0)
        return cls(_MEDIA_TYPES[Path(name).suffix], content, packed, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@dataclass(frozen=True)
class Site:
    """All files of the page by name, and the version that the page itself names."""

    version: str
    files: dict[str, WebFile]
    page: WebFile

    @classmethod
    def read(cls, folder: Path = FOLDER) -> Self:
        """Read the files that ship; what has another ending, such as this module, is not one of them."""
        contents = shrunk(
            {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.suffix in _MEDIA_TYPES
            }
        )
        whole = hashlib.sha256()
        for name, content in contents.items():
            whole.update(f"{name} {len(content)}\n".encode() + content)
        version = whole.hexdigest()[:10]
        modules = [
            f"<link rel=modulepreload href={PREFIX}{_VERSION}/{name}>" for name in contents if name[-3:] == ".js"
        ]
        page = contents.pop("index.html").decode().replace(_MODULES, "\n".join(modules)).replace(_VERSION, version)
        files = {name: WebFile.of(name, content) for name, content in contents.items()}
        return cls(version, files, WebFile.of("index.html", page.encode()))
