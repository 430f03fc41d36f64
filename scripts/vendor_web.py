"""Fetches the page's three libraries from npm, pinned, and writes them with their hashes to server/web/vendor.

Browsers resolve no bare names, so imports of one library by another become relative: the only change to the files.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

VENDOR = Path(__file__).resolve().parent.parent / "server" / "web" / "vendor"
# What a library imports, and the file that it is here.
NAMES = {"preact": "preact.js", "preact/hooks": "hooks.js", "@preact/signals-core": "signals-core.js"}


class Library(NamedTuple):
    """A published package, and which of its files are wanted under which names."""

    package: str
    version: str
    licence: str
    files: dict[str, str]


LIBRARIES = (
    Library("preact", "11.2.0", "MIT", {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"}),
    Library("htm", "3.1.1", "Apache-2.0", {"dist/htm.mjs": "htm.js"}),
    Library("@preact/signals-core", "1.14.5", "MIT", {"dist/signals-core.mjs": "signals-core.js"}),
    Library("@preact/signals", "2.11.4", "MIT", {"dist/signals.mjs": "signals.js"}),
)


def relative(text: str) -> str:
    """Return a module whose imports a browser can follow."""
    for name, file in NAMES.items():
        text = text.replace(f'from"{name}"', f'from"./{file}"')
    return text


def published(text: str) -> str:
    """Return a module as npm has it: the reverse of ``relative``."""
    for name, file in NAMES.items():
        text = text.replace(f'from"./{file}"', f'from"{name}"')
    return text


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def vendor(library: Library, into: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--json", f"{library.package}@{library.version}"]
        told = json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)
        [packed] = told.values() if isinstance(told, dict) else told
        with tarfile.open(Path(folder) / packed["filename"].replace("@", "").replace("/", "-")) as archive:
            members = {
                path: archive.extractfile(f"package/{path}").read().decode()  # pyright: ignore[reportOptionalMemberAccess]
                for path in (*library.files, "LICENSE")
            }
    files: dict[str, dict[str, str]] = {}
    for path, name in library.files.items():
        written = relative(members[path])
        (into / name).write_text(written)
        files[name] = {"published_as": path, "published_sha256": digest(members[path]), "sha256": digest(written)}
    licence = f"LICENSE-{library.package.replace('@', '').replace('/', '-')}.txt"
    (into / licence).write_text(members["LICENSE"])
    pinned = {"version": library.version, "licence": library.licence, "integrity": packed["integrity"]}
    return {**pinned, "licence_file": licence, "licence_sha256": digest(members["LICENSE"]), "files": files}


def main() -> None:
    VENDOR.mkdir(parents=True, exist_ok=True)
    manifest = {library.package: vendor(library, VENDOR) for library in LIBRARIES}
    (VENDOR / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
