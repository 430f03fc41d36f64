"""Takes out of scripts and styles what only people read, in a process of its own.

The minifier is a Go library; its runtime, with threads and signal handlers, has no business in a server.
"""

from __future__ import annotations

import json
import logging
import re
import string
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

from server.web.bundle import ENTRY, joined

_log = logging.getLogger(__name__)
_MEDIA_TYPES = {".js": "application/javascript", ".css": "text/css"}
# What others have published stays as it is, so that its hash can be compared.
_VENDOR = "vendor/"
# Of scripts, only templates keep their line breaks. Space before a tag or a value is layout there: htm drops it anyway.
_INDENT = re.compile(r"\n +(?=<|\$\{)")
# Within a tag of a template, where htm takes such values without quotes.
_QUOTED = re.compile(r'(?<=\s)([a-z][A-Za-z-]*)="([\w-]+)"(?=[ \n>]|/>)')
_PROPERTY = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def shrunk(contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files by name, those that are ours smaller; all as they are where the minifier is not installed."""
    ours = {name: text.decode() for name, text in contents.items() if _kind(name) and not name.startswith(_VENDOR)}
    smaller = {name: text.encode() for name, text in _minified(json.dumps(ours)).items()}
    # Some are joined: of ours, what came back is all that there is.
    return {name: text for name, text in contents.items() if name not in ours or not smaller} | smaller


def _kind(name: str) -> str:
    return _MEDIA_TYPES.get(f".{name.rpartition('.')[2]}", "")


@lru_cache(maxsize=4)
def _minified(texts: str) -> dict[str, str]:
    if find_spec("minify") is None:
        return {}
    command = [sys.executable, "-P", "-m", __name__]
    done = subprocess.run(command, input=texts, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        _log.warning("page_not_minified error=%s", done.stderr.strip()[-200:])
        return {}
    return json.loads(done.stdout)


def main() -> None:
    """Read file texts by name from standard input as JSON, and write the smaller ones to standard output."""
    import minify  # noqa: PLC0415 - not in the server

    library: Any = minify
    texts: dict[str, str] = json.load(sys.stdin)
    if ENTRY in texts:
        scripts = {name: texts.pop(name) for name in list(texts) if name.endswith(".js")}
        texts[ENTRY] = joined(scripts)
    smaller = {name: library.string(_kind(name), text) for name, text in texts.items()}
    briefly = _renamed("".join(text for name, text in smaller.items() if name.endswith(".css")))
    json.dump({name: briefly(_tags(name, text)) for name, text in smaller.items()}, sys.stdout)


def _tags(name: str, text: str) -> str:
    return _QUOTED.sub(r"\1=\2", _INDENT.sub("\n", text)) if name.endswith(".js") else text


def _renamed(styles: str) -> Callable[[str], str]:
    """Return what gives the styles' own properties short names, in whichever file they are."""
    known = sorted(set(re.findall(r"(--[a-z][a-z0-9-]*):", styles)))
    brief = {name: f"--{string.ascii_letters[place]}" for place, name in enumerate(known[: len(string.ascii_letters)])}
    return partial(_PROPERTY.sub, lambda found: brief.get(found[0], found[0]))


if __name__ == "__main__":
    main()
