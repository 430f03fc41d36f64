"""Joins the page's modules into one, so that a minifier may call by short names what they call one another.

They are written for it, which a test holds: imports by name at the top, each name of the top level in one module only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

ENTRY = "app.js"
NAMED = re.compile(r"^import \{([^}]*)\} from '\./([^']+)';\n", re.M)
_WHOLE = re.compile(r"^import (\w+) from '\./([^']+)';\n", re.M)
_PASSED_ON = re.compile(r"^export \{([^}]*)\} from '\./([^']+)';\n", re.M)
_EXPORT = re.compile(r"^export (?=async function|function|const|let|class)", re.M)


def joined(modules: Mapping[str, str]) -> str:
    """Return the text of one module that does what all do which the entry needs, in the order in which they would run.

    Args:
        modules: Texts by name; what is imported and not among them is imported still.
    """
    texts = {name: modules[name] for name in _in_order(ENTRY, modules)}
    outside: dict[str, set[str]] = {}
    for text in texts.values():
        for names, source in [*NAMED.findall(text), *_PASSED_ON.findall(text)]:
            if source not in modules:
                outside.setdefault(source, set()).update(filter(None, map(str.strip, names.split(","))))
    wholes = {source: name for text in texts.values() for name, source in _WHOLE.findall(text)}
    imports = [f"import {{{','.join(sorted(names))}}} from './{source}';" for source, names in sorted(outside.items())]
    imports += [f"import {name} from './{source}';" for source, name in sorted(wholes.items())]
    known = ",".join(sorted({*wholes.values(), *(name for names in outside.values() for name in names)}))
    # Only within a function is a minifier free to name things, its parameters too.
    return "\n".join([*imports, f"(({known}) => {{", *map(_body, texts.values()), f"}})({known});"])


def _in_order(name: str, modules: Mapping[str, str], seen: set[str] | None = None) -> Iterator[str]:
    """Yield the names of modules, each after those that it imports."""
    seen = set() if seen is None else seen
    seen.add(name)
    for _, source in NAMED.findall(modules[name]):
        if source in modules and source not in seen:
            yield from _in_order(source, modules, seen)
    yield name


def _body(text: str) -> str:
    for statement in (NAMED, _WHOLE, _PASSED_ON, _EXPORT):
        text = statement.sub("", text)
    return text
